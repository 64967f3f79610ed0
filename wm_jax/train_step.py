"""One update: loss, gradient, optimiser, metrics; one jitted function with a donated state."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from wm_jax import curriculum, flops, optim
from wm_jax import mesh as meshes
from wm_jax.shapes import Batch


class TrainState(NamedTuple):
    """All that an update reads and changes.

    step:       () int32, updates done
    key:        the run's random key; update s uses ``fold_in(key, s)``, so nothing is ever replayed
    params:     float32 weights
    opt_state:  the optimiser's
    ema:        averaged weights, or None
    handover:   what the windows of this update leave to those of the next (a `WorldModel`'s
                `Handover`, every leaf (b, …)) where the state is carried on; or None
    """

    step: jax.Array
    key: jax.Array
    params: PyTree
    opt_state: PyTree
    ema: PyTree | None = None
    handover: PyTree | None = None


def init_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int,
    mesh: Mesh,
    ema: float = 0.0,
    streams: int = 0,
) -> TrainState:
    """A fresh state, its weights and moments split over ``mesh`` by `wm_jax.mesh.RULES`.

    ``streams`` is the number of windows an update, over all processes, if their state is to be
    carried from one update to the next; else 0.
    """

    create = _creator(model, optimizer, batch, seed, ema, streams)
    shardings = state_shardings(jax.eval_shape(create), model, optimizer, mesh)
    return jax.jit(create, out_shardings=shardings)()


def abstract_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int,
    mesh: Mesh,
    ema: float = 0.0,
    streams: int = 0,
) -> Any:
    """What `init_state` makes, as shapes and shardings alone: no weight is ever in memory."""
    state = jax.eval_shape(_creator(model, optimizer, batch, seed, ema, streams))
    shardings = state_shardings(state, model, optimizer, mesh)

    def described(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(described, state, shardings)


def state_size(
    model: Any, optimizer: optax.GradientTransformation, batch: Batch, ema: float = 0.0
) -> tuple[int, int]:
    """Parameters, and bytes of them, their averages, moments and gradients. Makes no array."""
    state = jax.eval_shape(_creator(model, optimizer, batch, 0, ema, 0))
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    return parameters, sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves((state, state.params))
    )


def _creator(
    model: Any,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int,
    ema: float,
    streams: int,
) -> Callable[[], TrainState]:
    def create() -> TrainState:
        init_key, key = jax.random.split(jax.random.PRNGKey(seed))
        params = model.init(init_key, batch)
        average = jax.tree.map(jnp.copy, params) if ema else None
        step, moments = jnp.zeros([], jnp.int32), optimizer.init(params)
        handover = model.begin(streams) if streams else None
        return TrainState(step, key, params, moments, average, handover)

    return create


def state_shardings(
    state: TrainState, model: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> PyTree:
    """A `NamedSharding` for every leaf: moments lie where their weights lie, and what is carried
    from window to window where the windows lie."""
    whole: Any = meshes.replicated(mesh)
    axes = getattr(model, "logical_axes", meshes.axes_by_shape)(state.params)
    weights = meshes.param_shardings(state.params, axes, mesh)
    masked = optax.MaskedNode  # stands where a partitioned optimiser leaves a weight to another

    def beside(moment: Any, weight: Any) -> Any:
        return moment if isinstance(moment, masked) else weight

    moments = optax.tree_map_params(
        optimizer,
        beside,
        state.opt_state,
        weights,
        transform_non_params=lambda _: whole,
        is_leaf=lambda x: isinstance(x, masked),
    )
    average = None if state.ema is None else weights
    handover = jax.tree.map(lambda _: meshes.batch_sharding(mesh), state.handover)
    return TrainState(whole, whole, weights, moments, average, handover)


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    ema: float = 0.0,
    window: int | None = None,
    only: tuple[str, ...] = (),
) -> Any:
    """``train_step(state, batch, rate) -> (state, metrics)``, to be jitted by `jit_train_step`.

    ``window`` cuts the batch's windows to that many frames (see `curriculum`). ``rate`` is the
    learning rate. ``only`` are the parts that learn (see `optim.learns`); (): all. Metrics are
    float32 scalars; loss terms are means over real (unpadded) frames.
    """

    def train_step(state: TrainState, batch: Batch, rate: jax.Array):
        key = jax.random.fold_in(state.key, state.step)
        if window is not None:
            batch = curriculum.cut(batch, window)

        def objective(params):
            if only:
                params = optim.held(params, only)
            if state.handover is None:
                total, terms = model.loss(params, batch, key, state.step)
                return total, (terms, None)
            return model.loss_from(params, batch, key, state.step, state.handover)

        compute = jax.value_and_grad(objective, has_aux=True)
        (total, (terms, handover)), grads = compute(state.params)
        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: u * rate, direction)
        params = optax.apply_updates(state.params, updates)
        average = state.ema
        if average is not None:
            average = optax.incremental_update(params, average, 1 - ema)
        metrics = {f"train/loss/{name}": _mean(term, batch.mask) for name, term in terms.items()}
        metrics |= {
            "train/loss/total": total,
            "train/grad_norm": optax.tree.norm(grads),
            "train/update_norm": optax.tree.norm(updates),
            "train/param_norm": optax.tree.norm(params),
        }
        after = TrainState(state.step + 1, state.key, params, opt_state, average, handover)
        return after, metrics

    return train_step


Options = Mapping[str, bool]


def compiler_options(model: Any, mesh: Mesh) -> Options:
    """What XLA is told when it compiles an update of ``model``, beyond its defaults.

    On a CPU, of a backbone that is thousands of small operations and few products: to emit fusions
    as it did before it had emitters of their own. The default's updates compile in 0.75 and run in
    0.8 of the time so (train_step.py --xla-defaults, jax 0.10.2); DreamerV3's RSSM would in 1.09.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return _understood() if on_cpu and getattr(model, "small_operations", False) else {}


@functools.cache
def _understood() -> Options:
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # jax 0.11 has no such option
        return {}
    return options


def jit_train_step(
    train_step: Any, state: TrainState, mesh: Mesh, options: Options | None = None
) -> Any:
    """The step as one program; ``state`` is donated, so its buffers are reused. ``options`` are
    `compiler_options`."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = meshes.on_mesh(train_step, mesh)
    outputs = shardings, meshes.replicated(mesh)
    told = dict(options) if options else None
    return jax.jit(step, donate_argnums=0, out_shardings=outputs, compiler_options=told)


class Cost(NamedTuple):
    """What one update costs. FLOPs and operands are those of matrix products; see `flops`."""

    parameters: int
    flops: float
    operand_bytes: float
    memory_bytes: int  # arguments and temporaries, on one device
    compile_seconds: float


def compile_train_step(
    train_step: Any,
    state: TrainState,
    batch: Batch,
    mesh: Mesh,
    make: Callable[[Any], Any] = lambda lowered: lowered.compile(),
    options: Options | None = None,
) -> tuple[Any, Cost]:
    """The step compiled for these shapes and shardings, by ``make``, and its cost."""
    begin = time.monotonic()
    traced = jit_train_step(train_step, state, mesh, options).trace(state, batch, np.float32(0))
    work, moved = flops.matmul_cost(traced.jaxpr.jaxpr)
    compiled = make(traced.lower())
    seconds = time.monotonic() - begin
    memory = compiled.memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    return compiled, Cost(parameters, work, moved, total, round(seconds, 2))


def first_not_finite(metrics: dict[str, np.ndarray]) -> str | None:
    """The name of the first metric that is NaN or infinite: losses first, then the gradient, the
    update, the weights: the order in which they are computed."""
    order = ("train/loss/", "train/grad_norm", "train/update_norm", "train/param_norm")

    def rank(name: str) -> tuple[int, bool, str]:
        place = [i for i, prefix in enumerate(order) if name.startswith(prefix)]
        return (place[0] if place else len(order), name == "train/loss/total", name)

    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    return min(bad, key=rank, default=None)


def _mean(term: jax.Array, mask: jax.Array) -> jax.Array:
    weight = mask.astype(jnp.float32)
    return (term * weight).sum() / jnp.maximum(weight.sum(), 1)
