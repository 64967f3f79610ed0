"""The optimiser, from config: clip → direction → weight decay, and a schedule beside it.

The chain yields the *direction* for a learning rate of 1. The train step multiplies it by
``learning_rate(config, steps)(step)``, a plain function of the update's number, so that the length
of the run is no constant of the compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

#: Top-level modules whose matrices touch pixels or conditions; Muon leaves those to AdamW.
NOT_HIDDEN = ("encoder", "decoder", "conditioning")


def learning_rate(config: Any, steps: int) -> Callable[[int], float]:
    """The rate of each update 0 … steps - 1: linear warm-up times the schedule.

    The warm-up is at most a tenth of the run, so that a short run learns too.
    """
    peak, final = config.learning_rate, config.final_fraction
    warmup = min(config.warmup, steps // 10)

    def decay(progress: float) -> float:
        """1 at the start, 0 at the end."""
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if config.schedule == "linear":
            return 1 - progress
        if config.schedule == "wsd":
            return min(1.0, (1 - progress) / max(config.decay_fraction, 1e-9))
        return 1.0

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / (warmup + 1))
        progress = min(1.0, step / max(steps, 1))
        return peak * warm * (final + (1 - final) * decay(progress))

    return rate


def make_optimizer(config: Any) -> optax.GradientTransformation:
    """The chain that ``config`` (the ``optim`` section) names, for a learning rate of 1."""
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    direction = {
        "adamw": lambda: adam,
        "laprop": lambda: scale_by_laprop(config.beta1, config.beta2, config.eps),
        "muon": lambda: optax.partition({"muon": _muon(config.beta1), "adam": adam}, _muon_or_adam),
    }
    clip = {
        "agc": lambda: clip_to_own_norm(config.clip_value),
        "norm": lambda: optax.clip_by_global_norm(config.clip_value),
        "none": optax.identity,
    }
    parts = [clip[config.clip](), direction[config.name]()]
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_matrices))
    parts.append(optax.scale(-1.0))
    if config.only:
        still = functools.partial(learns, only=tuple(config.only), otherwise=True)
        parts.append(optax.masked(optax.set_to_zero(), still))
    return optax.chain(*parts)


def learns(params: PyTree, only: tuple[str, ...], otherwise: bool = False) -> PyTree:
    """Which weights are, or lie below, one of the parts ``only`` ('dynamics/hearing'), as bools;
    ``otherwise``, which do not."""

    def chosen(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return any(name == part or name.startswith(f"{part}/") for part in only) != otherwise

    return jax.tree_util.tree_map_with_path(chosen, params)


def held(params: PyTree, only: tuple[str, ...]) -> PyTree:
    """The weights, of which only these parts get a gradient."""
    return jax.tree.map(
        lambda x, learned: x if learned else jax.lax.stop_gradient(x), params, learns(params, only)
    )


class LaPropState(NamedTuple):
    updates: jax.Array
    mean: PyTree
    square: PyTree


def scale_by_laprop(
    beta1: float = 0.9, beta2: float = 0.99, eps: float = 1e-8
) -> optax.GradientTransformation:
    """LaProp (Ziyin et al. 2020, alg. 1): normalise by the second moment, *then* average.

    Unlike Adam, one large gradient cannot stay in the numerator after it left the denominator.
    """

    def init(params: PyTree) -> LaPropState:
        zeros = optax.tree.zeros_like(params)
        return LaPropState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(updates: PyTree, state: LaPropState, params: PyTree = None):
        del params
        count = state.updates + 1
        square = optax.tree.update_moment_per_elem_norm(updates, state.square, beta2, 2)
        unbiased = optax.tree.bias_correction(square, beta2, count)
        normed = jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + eps), updates, unbiased)
        mean = optax.tree.update_moment(normed, state.mean, beta1, 1)
        return optax.tree.bias_correction(mean, beta1, count), LaPropState(count, mean, square)

    return optax.GradientTransformation(init, update)


def clip_to_own_norm(fraction: float, least: float = 1e-3) -> optax.GradientTransformation:
    """Adaptive clipping, per tensor as DreamerV3 does it (after Brock et al. 2021): each gradient's
    norm is held to ``fraction`` of its parameter's norm, which counts as at least ``least``."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None):
        def clip(g, p):
            limit = fraction * jnp.maximum(jnp.linalg.norm(p.ravel()), least)
            return g * jnp.minimum(1.0, limit / jnp.maximum(jnp.linalg.norm(g.ravel()), 1e-12))

        return jax.tree.map(clip, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _muon(beta: float) -> optax.GradientTransformation:
    """Muon with updates as large as Adam's (0.2 · √ of the longer side: Liu et al. 2025, eq. 4), so
    that one learning rate serves both."""

    def scale(updates: PyTree, state: PyTree, params: PyTree = None):
        def size(u):
            return u * (0.2 * math.sqrt(max(math.prod(u.shape[:-1]), u.shape[-1])))

        return jax.tree.map(size, updates), state

    sized = optax.GradientTransformation(lambda _: optax.EmptyState(), scale)
    return optax.chain(
        optax.contrib.scale_by_muon(beta=beta, weight_dimension_numbers=_as_matrices), sized
    )


def _as_matrices(tree: PyTree) -> PyTree:
    """Every tensor as inputs × outputs: a convolution's kernel is one matrix."""

    def sides(x):
        axes = tuple(range(x.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(reduction_axis=axes, output_axis=x.ndim - 1)

    return jax.tree.map(sides, tree)


def _matrices(params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def _muon_or_adam(params: PyTree) -> PyTree:
    def label(path, p):
        return "muon" if p.ndim >= 2 and path[0].key not in NOT_HIDDEN else "adam"

    return jax.tree_util.tree_map_with_path(label, params)
