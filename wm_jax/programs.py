"""A model's functions as StableHLO programs over flat dicts, which is what an artifact can carry.

Every program takes the weights first, a dict in the order of model.safetensors, so that all of them
share one copy. A state crosses the border as a flat dict of arrays, a key as its two words. The
batch is symbolic, and each program holds all of `PLATFORMS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wm_jax import shapes
from wm_jax.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")
Flat = dict[str, jax.Array]


def trace(
    model: shapes.WorldModel, weights: Flat, resolution: int, context: int
) -> tuple[dict[str, bytes], dict[str, Any], bool]:
    """StableHLO of the five functions, the state's schema, and whether a key changes anything."""
    border = _Border(model, weights)
    (b,) = jax.export.symbolic_shape("b")
    flat = {name: _spec(value.shape, value.dtype) for name, value in weights.items()}
    marker = _spec((b,), jnp.uint8)
    state = jax.eval_shape(border.initial, flat, marker)
    frame = (resolution, resolution, 3)
    stochastic = border.uses_key(resolution)
    random = (_spec((2,), jnp.uint32), _spec((), bool)) if stochastic else ()
    arguments = {
        "initial": (marker,),
        "encode": (_spec((b, context, *frame), jnp.uint8), _told(b, context), *random),
        "observe": (state, _spec((b, *frame), jnp.uint8), _told(b), *random),
        "step": (state, _told(b), *random),
        "decode": (state,),
    }
    with _without_paths():
        programs = {
            name: _serialize(getattr(border, name), flat, *inputs)
            for name, inputs in arguments.items()
        }
    schema = {
        name: {"shape": [d if isinstance(d, int) else "b" for d in x.shape], "dtype": str(x.dtype)}
        for name, x in state.items()
    }
    return programs, schema, stochastic


class _Border:
    """A model's functions over flat dicts of arrays, which is what an artifact can carry.

    ``key`` is two uint32 words and ``sample`` says whether to use them; a model that ignores its
    key is traced without either.
    """

    def __init__(self, model: shapes.WorldModel, weights: Flat):
        self.model = model
        one = jax.eval_shape(lambda w: model.initial(unflatten(w), 1), weights)
        self.treedef: Any = jax.tree.structure(one)
        paths, _ = jax.tree_util.tree_flatten_with_path(one)
        self.names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths]
        self.weights = weights

    def initial(self, weights: Flat, marker: jax.Array) -> Flat:
        """``marker`` (b,) only says how many streams there are."""
        return self._flat(self.model.initial(unflatten(weights), marker.shape[0]))

    def encode(self, weights: Flat, frames, told, key=None, sample=None) -> Flat:
        def draw(key):
            return shapes.encode(self.model, unflatten(weights), frames, _conditions(told), key)

        return self._drawn(draw, key, sample)

    def observe(self, weights: Flat, state, frame, told, key=None, sample=None) -> Flat:
        seen = frame.astype(jnp.float32) / 255
        return self._drawn(lambda key: self._step(weights, state, told, seen, key), key, sample)

    def step(self, weights: Flat, state, told, key=None, sample=None) -> Flat:
        return self._drawn(lambda key: self._step(weights, state, told, None, key), key, sample)

    def decode(self, weights: Flat, state) -> jax.Array:
        return self.model.decode(unflatten(weights), self._state(state)).astype(jnp.float32)

    def uses_key(self, resolution: int) -> bool:
        """Whether a step reads its key, imagining or observing; seen in the trace."""
        frame = jnp.zeros((1, resolution, resolution, 3))

        def steps(key, weights):
            state = self._flat(self.model.initial(unflatten(weights), 1))
            told = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), _told(1))
            return [self._step(weights, state, told, seen, key) for seen in (None, frame)]

        jaxpr = jax.make_jaxpr(steps)(jax.random.key(0), self.weights).jaxpr
        return any(jaxpr.invars[0] is used for eqn in jaxpr.eqns for used in eqn.invars)

    def _step(self, weights: Flat, state, told, frame, key) -> shapes.LatentState:
        params = unflatten(weights)
        return self.model.step(params, self._state(state), _conditions(told), frame, key)

    def _drawn(self, function: Callable[..., shapes.LatentState], key, sample) -> Flat:
        if key is None:
            return self._flat(function(None))
        typed = jax.random.wrap_key_data(key, impl="threefry2x32")
        drawn = jax.lax.cond(sample, lambda: function(typed), lambda: function(None))
        return self._flat(drawn)

    def _flat(self, state: shapes.LatentState) -> Flat:
        leaves, treedef = jax.tree.flatten(state)
        if treedef != self.treedef:
            raise UserError(
                "a step of this model returns a state of another structure than `initial` does; "
                "an export needs the two to be the same."
            )
        return dict(zip(self.names, leaves, strict=True))

    def _state(self, flat: Flat) -> shapes.LatentState:
        return jax.tree.unflatten(self.treedef, [flat[name] for name in self.names])


def flatten(params: Any, prefix: str = "") -> Flat:
    """Nested dicts to one, ``{"encoder/kernel": …}``, in sorted order."""
    flat: Flat = {}
    for name in sorted(params):
        value, path = params[name], f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return dict(sorted(flat.items()))


def unflatten(flat: Flat) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return nested


def _told(*lead: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Conditions as an artifact takes them: ``name`` and ``name_mask``."""
    told = {}
    for name, width in shapes.CONDITION_SIZES.items():
        told[name] = _spec((*lead, width), jnp.float32)
        told[f"{name}_mask"] = _spec(lead, bool)
    return told


def _conditions(told: Flat) -> shapes.Conditions:
    names = shapes.CONDITION_SIZES
    return shapes.Conditions(**{n: shapes.Signal(told[n], told[f"{n}_mask"]) for n in names})


def _spec(shape: tuple, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Programs without the source paths of the machine that wrote them."""
    option = "jax_traceback_in_locations_limit"
    before = jax.config.values[option]
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _serialize(function: Callable, *inputs: Any) -> bytes:
    return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(*inputs).serialize())
