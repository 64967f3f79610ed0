"""``wm-jax export``: a run becomes a folder that runs with jax alone.

    exported/a/
      model.safetensors     the weights in float16, one copy for all functions
      initial, encode, observe, step, decode .stablehlo
                            programs for cpu, cuda and tpu with a symbolic batch
      config.json           the run's resolved config
      manifest.json         sizes of frames, conditions and state; a digest of every file
      load.py               the loader: wm_jax/export_loader.py, copied
      MODEL_CARD.md         data, size, scores, limits

Programs take the weights as their first argument, a dict in the order of model.safetensors; a
state crosses the border as a flat dict of arrays, a key as its two words.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import __version__, export_loader, model_card, shapes
from wm_jax.errors import MissingExtra, UserError

PLATFORMS = ("cpu", "cuda", "tpu")
Flat = dict[str, jax.Array]


def main(argv: list[str]) -> int:
    """The verb."""
    parser = argparse.ArgumentParser(
        prog="wm-jax export",
        description="Turn a run into a folder that runs with jax alone.",
        epilog="example: wm-jax export --workdir runs/a --out exported/a",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    args = parser.parse_args(argv)
    # Imported here so that --help answers without them.
    from wm_jax import checkpoint, models

    params, config, step = checkpoint.restore_params(args.workdir)
    manifest = export(
        models.build(config.model),
        params,
        args.out,
        resolution=config.model.resolution,
        context=config.eval.context,
        config=config.to_dict(),
        card=model_card.from_run(args.workdir, config.to_dict(), step, _count(params)),
    )
    if args.json:
        print(json.dumps(manifest))
    else:
        size = sum(file.stat().st_size for file in args.out.iterdir())
        print(f"{args.out}: {manifest['parameters']:,} parameters, {size / 1e6:.1f} MB")
    return 0


def export(
    model: shapes.WorldModel,
    params: Any,
    out: Path,
    *,
    resolution: int,
    context: int,
    config: Mapping[str, Any],
    card: str,
) -> dict[str, Any]:
    """Writes the folder ``out`` and returns its manifest.

    params: nested dicts of arrays; float32 is rounded to float16. context: frames that ``encode``
    takes. The folder appears whole or not at all; an earlier export of that name is replaced, any
    other folder with something in it is refused.
    """
    _refuse_foreign(out)
    weights = flatten(params)
    stored = {name: _halved(np.asarray(value)) for name, value in weights.items()}
    programs, state, stochastic = trace(model, weights, resolution, context)
    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, program in programs.items():
        (staging / f"{name}.stablehlo").write_bytes(program)
    (staging / "model.safetensors").write_bytes(_safetensors(stored))
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    manifest = {
        "format": export_loader.FORMAT,
        "wm_jax": __version__,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "functions": list(programs),
        "parameters": _count(params),
        "context": context,
        "frame": [resolution, resolution, 3],
        "conditions": shapes.CONDITION_SIZES,
        "stochastic": stochastic,
        "state": state,
        "sha256": {file.name: _sha256(file) for file in sorted(staging.iterdir())},
    }
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (staging / "MODEL_CARD.md").write_text(card)
    shutil.copyfile(export_loader.__file__, staging / "load.py")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(staging, out)
    return manifest


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
    stochastic = border.uses_key()
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

    def uses_key(self) -> bool:
        """Whether a step reads its key. Seen in the trace, not asked of the model."""

        def step(key, weights):
            state = self._flat(self.model.initial(unflatten(weights), 1))
            told = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), _told(1))
            return self._step(weights, state, told, None, key)

        jaxpr = jax.make_jaxpr(step)(jax.random.key(0), self.weights).jaxpr
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
    try:
        return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(*inputs).serialize())
    except ModuleNotFoundError as error:
        raise MissingExtra("flatbuffers", "export") from error


def _safetensors(weights: dict[str, np.ndarray]) -> bytes:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise MissingExtra("safetensors", "export") from error
    return safetensors.numpy.save(weights)


def _halved(array: np.ndarray) -> np.ndarray:
    """float32 as float16; refuses values beyond float16's range."""
    if array.dtype != np.float32:
        return array
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise UserError("a weight lies beyond float16's range (65504): the run has diverged.")
    return array.astype(np.float16)


def _count(params: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _refuse_foreign(out: Path) -> None:
    """Only an earlier export, or nothing, may be replaced."""
    if out.is_file():
        raise UserError(f"--out {out} is a file: name a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"--out {out} holds something that is not an export: name another folder.")
