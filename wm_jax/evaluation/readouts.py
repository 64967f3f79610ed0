"""Read-outs: small regressions from a frozen state to what is true of the scene.

Three of them, of which none knows what kind of model a state comes from:

  linear      ridge regression on the whole state, projected to a fixed width
  mlp         one hidden layer on the same
  attentive   for each hue, attention over the tokens of the state (a learned query, one head), and
              a linear map of what it found. A state of objects in no fixed order says where each is
              without any fixed number saying where the red one is: only this one can read it. Of a
              state that is one vector it is a linear map

All are tuned on a fifth of the training episodes, in the same way for every state. Probing as such:
Alain & Bengio 2016, arXiv 1610.01644; the control by shuffled labels: Hewitt & Liang 2019, arXiv
1909.03368.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

PROBES = ("linear", "mlp", "attentive")


class Features(NamedTuple):
    """States of e examples: whole, projected to w numbers; and their n tokens."""

    whole: Float[Array, "e w"]
    tokens: Float[Array, "e n d"]


class Examples(NamedTuple):
    """States and what is true of them: for each of h hues f numbers, where they are ``asked``.

    group: the episode that an example comes from
    """

    features: Features
    value: Float[np.ndarray, "e h f"]
    asked: Bool[np.ndarray, "e h f"]
    group: Int[np.ndarray, " e"]


class Tuning(NamedTuple):
    """How every read-out is made."""

    hidden: int
    updates: int
    batch: int
    learning_rates: tuple[float, ...]
    every: int = 50  # updates after which the held-out fifth is looked at; the best are kept
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # of a variance


ReadOut = Callable[[Features], np.ndarray]


def fit(probe: str, examples: Examples, tuning: Tuning, seed: int) -> ReadOut:
    """One of `PROBES`, trained: a function from features to (e, h, f)."""
    mean, scale = moments(examples)
    unit = examples._replace(value=(examples.value - mean) / scale)
    read = _ridge(unit, tuning) if probe == "linear" else _learned(probe, unit, tuning, seed)
    return lambda features: np.asarray(read(features), np.float64) * scale + mean


def moments(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each number, over hues and examples that are asked; of what
    never differs 1 stands for the latter."""
    asked = examples.asked
    count = np.maximum(asked.sum((0, 1)), 1)
    mean = np.where(asked, examples.value, 0).sum((0, 1)) / count
    square = np.square(np.where(asked, examples.value - mean, 0)).sum((0, 1)) / count
    return mean, np.where(square > 1e-12, np.sqrt(square), 1.0)


def _held_out(examples: Examples) -> np.ndarray:
    return examples.group % 5 == 4


def _ridge(examples: Examples, tuning: Tuning) -> ReadOut:
    """For each hue and number the penalty that all hues of that number are best with."""
    x = np.asarray(examples.features.whole, np.float64)
    held = _held_out(examples)
    hues, numbers = examples.value.shape[1:]
    weights = np.zeros((len(tuning.penalties), hues, numbers, x.shape[1] + 1))
    error = np.zeros((len(tuning.penalties), numbers))
    last: dict[tuple[int, bytes], _Solver] = {}
    for hue, number in np.ndindex(hues, numbers):
        asked, y = examples.asked[:, hue, number], examples.value[:, hue, number]
        key = hue, asked.tobytes()
        solver = last.get(key) or _Solver(x, asked & ~held)
        last = {key: solver}
        for i, penalty in enumerate(tuning.penalties):
            weights[i, hue, number] = solver(y, penalty)
            guess = x[asked & held] @ weights[i, hue, number, 1:] + weights[i, hue, number, 0]
            error[i, number] += np.square(guess - y[asked & held]).sum()
    best = error.argmin(0)
    chosen = np.stack([weights[best[f], :, f] for f in range(numbers)], 1)

    def read(features: Features) -> np.ndarray:
        told = np.asarray(features.whole, np.float64)
        return np.einsum("ew,hfw->ehf", told, chosen[..., 1:]) + chosen[..., 0]

    return read


class _Solver:
    """Ridge regressions of several numbers from the same rows of x, by one eigendecomposition."""

    def __init__(self, x: np.ndarray, rows: np.ndarray):
        self.rows, self.number = rows, int(rows.sum())
        self.middle = x[rows].mean(0) if self.number else np.zeros(x.shape[1])
        self.x = x[rows] - self.middle
        self.values, self.vectors = np.linalg.eigh(self.x.T @ self.x)

    def __call__(self, y: np.ndarray, penalty: float) -> np.ndarray:
        """Offset, then weights."""
        if not self.number:
            return np.zeros(len(self.middle) + 1)
        y = y[self.rows]
        turned = self.vectors.T @ (self.x.T @ (y - y.mean()))
        w = self.vectors @ (turned / (np.maximum(self.values, 0) + penalty * self.number))
        return np.concatenate([[y.mean() - self.middle @ w], w])


def _mlp_start(key: jax.Array, features: Features, hues: int, numbers: int, hidden: int) -> PyTree:
    width = features.whole.shape[-1]
    return {
        "in": jax.random.normal(key, (width, hidden)) * np.sqrt(2 / width),
        "in_bias": jnp.zeros(hidden),
        "out": jnp.zeros((hidden, hues, numbers)),
        "out_bias": jnp.zeros((hues, numbers)),
    }


def _mlp(params: PyTree, features: Features) -> Array:
    x = jax.nn.relu(features.whole @ params["in"] + params["in_bias"])
    return jnp.einsum("ed,dhf->ehf", x, params["out"]) + params["out_bias"]


def _attentive_start(
    key: jax.Array, features: Features, hues: int, numbers: int, hidden: int
) -> PyTree:
    width = features.tokens.shape[-1]
    query = jax.random.normal(key, (hues, width)) * np.sqrt(1 / width)
    same, own = jnp.zeros((width, numbers)), jnp.zeros((hues, width, numbers))
    return {"query": query, "same": same, "own": own, "bias": jnp.zeros((hues, numbers))}


def _attentive(params: PyTree, features: Features) -> Array:
    """What all hues share, and what each has of its own."""
    x = features.tokens
    weight = jax.nn.softmax(jnp.einsum("end,hd->ehn", x, params["query"]), -1)
    found = jnp.einsum("ehn,end->ehd", weight, x)
    return jnp.einsum("ehd,hdf->ehf", found, params["same"] + params["own"]) + params["bias"]


_LEARNED: dict[str, tuple[Callable[..., PyTree], Callable[[PyTree, Features], Array]]] = {
    "mlp": (_mlp_start, _mlp),
    "attentive": (_attentive_start, _attentive),
}


def _learned(probe: str, examples: Examples, tuning: Tuning, seed: int) -> ReadOut:
    """Adam on the mean squared error, at several rates. Each number is read by the parameters that
    were best for it of all looks at the held-out fifth."""
    begin, apply = _LEARNED[probe]
    held = _held_out(examples)
    train, valid = (
        jax.tree.map(lambda x, w=where: jnp.asarray(np.asarray(x)[w], jnp.float32), examples)
        for where in (~held, held)
    )
    sizes = *examples.value.shape[1:], tuning.hidden
    params = begin(jax.random.key(seed), examples.features, *sizes)
    params = jax.tree.map(lambda x: jnp.stack([x] * len(tuning.learning_rates)), params)
    start, run, judge = _programs(probe, tuning)
    memory = start(params)
    numbers = examples.value.shape[2]
    best, least = judge(params, valid, None, jnp.full(numbers, jnp.inf))
    for part in range(tuning.updates // tuning.every):
        key = jax.random.fold_in(jax.random.key(seed), part)
        params, memory = run(params, memory, train, key, part * tuning.every)
        best, least = judge(params, valid, best, least)
    answer = jax.jit(lambda best, x: jnp.diagonal(jax.vmap(apply, (0, None))(best, x), 0, 0, 3))
    return lambda features: np.asarray(answer(best, jax.tree.map(jnp.asarray, features)))


@functools.lru_cache
def _programs(probe: str, tuning: Tuning) -> tuple[Any, Any, Any]:
    """For all rates at once: the optimisers' start, some updates, and, number by number, the better
    of the best parameters so far and these. Compiled once for all states of a size."""
    apply, rates = _LEARNED[probe][1], jnp.array(tuning.learning_rates)
    optimiser = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(1e-2))

    def error(params: PyTree, examples: Examples) -> Array:
        far = jnp.square(apply(params, examples.features) - examples.value) * examples.asked
        # Each number for itself, as often or seldom as it is asked.
        return far.sum((0, 1)) / jnp.maximum(examples.asked.sum((0, 1)), 1)

    def some(params, memory, rate, examples, key, first):
        size = len(examples.value)

        def update(state, number):
            params, memory = state
            rows = jax.random.randint(jax.random.fold_in(key, number), (tuning.batch,), 0, size)
            few = jax.tree.map(lambda x: x[rows], examples)
            gradient = jax.grad(lambda params: error(params, few).sum())(params)
            change, memory = optimiser.update(gradient, memory, params)
            now = rate * (1 + jnp.cos(jnp.pi * number / tuning.updates)) / 2
            return (jax.tree.map(lambda x, by: x - now * by, params, change), memory), None

        return jax.lax.scan(update, (params, memory), first + jnp.arange(tuning.every))[0]

    @jax.jit
    def run(params, memory, examples, key, first):
        every = jax.vmap(some, in_axes=(0, 0, 0, None, None, None))
        return every(params, memory, rates, examples, key, first)

    @jax.jit
    def judge(params, examples, best, least):
        errors = jax.vmap(error, (0, None))(params, examples)
        here, which = errors.min(0), errors.argmin(0)
        new = jax.tree.map(lambda x: x[which], params)
        best = new if best is None else best
        better = here < least

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(keep, new, best), jnp.minimum(here, least)

    return jax.jit(jax.vmap(optimiser.init)), run, judge
