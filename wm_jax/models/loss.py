"""The loss of a window: which frames are shown, which compared, and the terms; its knobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax import shapes
from wm_jax.losses import squared_error


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How a window is cut and what its terms weigh.

    told_dropout: share of streams that each modality is absent from throughout (see
                `wm_jax.models.conditioning.dropped`)
    told_dropout_of: modalities that this is about; (): all. What a part that no longer learns was
                always told should go on being told
    told_in_words: share of streams that are told changes in words alone, the others as a vector
                alone (see `wm_jax.models.conditioning.one_of_said`); 0: all are told both ways
    paraphrase: of the distance between what is made of a sentence and what is made of the vector
                that says the same, where a batch has such pairs (`Net.paraphrased`): words are
                learned from the vector, and it is not changed by them
    context:    'random' shows each stream only its first c frames, c uniform in [context_low,
                context_high] but at most half the window, and closes the loop on the state for
                the rest, so that errors are met in training as in a rollout; 'all' shows every
                frame. A backbone with ``passes`` > 0 closes that loop in parallel, by self-fed
                passes (`wm_jax.models.dynamics.parallel.Parallel.self_fed_scan`)
    context_noise: highest level of noise on the frames shown, each of which has a level of its own
                (`wm_jax.models.context_noise`); 0: none
    overshoot_steps: steps that the prior is rolled from a state of each window and compared with
                later posteriors (`wm_jax.models.overshooting`); 0: none, and no cost
    posterior:  of the squared error of frames decoded after they were seen
    prior:      of the squared error of frames decoded before, or without, being seen
    kl_dyn, kl_rep: of a stochastic backbone's KL terms
    place, whole, said: of `grid_slots`' terms of these names
    overshoot:  of that comparison: nats, or squared distance of tokens
    overshoot_frames: of the squared error of the same steps' decoded frames; 0: none
                is decoded
    head_reward, head_continue, head_audio, head_readout: of the heads' terms
    sharp:      of a flow decoder's own error; no gradient of it reaches the rest of the model
    decoded:    frames a window, drawn anew for every update, whose pixels are compared before and
                after they are seen (the terms are scaled to all frames); 0: all of them
    painted:    one stream in this many is decoded at all (its terms are scaled likewise): where
                pixels cost most of an update and teach little, the rest goes to the dynamics
    """

    told_dropout: float = 0.0
    told_dropout_of: tuple[str, ...] = ()
    told_in_words: float = 0.0
    context: str = "random"
    context_low: int = 3
    context_high: int = 12
    context_noise: float = 0.0
    overshoot_steps: int = 0
    posterior: float = 0.25
    prior: float = 1.0
    kl_dyn: float = 1.0
    kl_rep: float = 0.1
    place: float = 40.0
    whole: float = 4.0
    said: float = 40.0
    paraphrase: float = 4.0
    overshoot: float = 1.0
    overshoot_frames: float = 0.0
    head_reward: float = 1.0
    head_continue: float = 1.0
    head_audio: float = 1.0
    head_readout: float = 1.0
    sharp: float = 1.0
    decoded: int = 0
    painted: int = 1


Terms = dict[str, Float[Array, "b t"]]


def window_terms(
    net: Any,
    apply: Callable[..., Any],
    weights: LossWeights,
    batch: shapes.Batch,
    told: shapes.Conditions,
    key: jax.Array,
    start: PyTree = None,
) -> tuple[Terms, PyTree]:
    """The terms of a window, unweighted, each (b, t), and the carry after it.

    ``apply(method, …)`` calls a method of the `Net`; ``start`` is the carry before the first frame,
    None where every window is a stream of its own.
    """
    frames = batch.frames.astype(jnp.float32) / 255
    cut_key, step_key = jax.random.split(key)
    batch_size, time = frames.shape[:2]
    observed, known = _observed(weights, cut_key, batch_size, time)
    taught = hasattr(net.dynamics, "teach")  # its posteriors have seen every frame
    known = time if taught else known
    seen = _compared(weights.decoded, jax.random.fold_in(cut_key, 1), 0, known)
    # Nothing can be predicted before a stream's first frame; its error is pure noise.
    first = 1 if start is None else 0
    foreseen = _compared(weights.decoded, jax.random.fold_in(cut_key, 2), first, time)
    keys = shapes.step_keys(step_key, time)
    painted, highest = slice(None, None, weights.painted), weights.context_noise
    out = apply(
        "window",
        *(frames, observed, told, batch.is_first, keys),
        *(seen, foreseen if weights.prior > 0 else None, painted),
        targets=targets_of(net, batch),
        start=start,
        noise=(jax.random.fold_in(cut_key, 3), highest) if highest else None,
        followed=batch.followed,
    )

    def all_frames(error, at, count):
        """The error at some frames of the painted streams, scaled so that its sum stands for
        ``count`` of them of all streams."""
        share = error.size / (batch_size * count)
        return jnp.zeros((batch_size, time)).at[painted, at].set(error / share)

    terms = dict(out.terms)
    error = squared_error(out.posterior, frames[painted, seen])
    if observed is not None and not taught:
        error = error * observed[painted, seen]
    terms["posterior"] = all_frames(error, seen, known)
    if out.prior is not None:
        error = squared_error(out.prior, frames[painted, foreseen])
        error = error * ~batch.is_first[painted, foreseen]
        terms["prior"] = all_frames(error, foreseen, time - first)
    if out.sharp is not None:
        at, count = (seen, known) if out.prior is None else (foreseen, time - first)
        terms["sharp"] = all_frames(out.sharp, at, count)
    terms |= {name: all_frames(error, slice(None), time) for name, error in out.heads.items()}
    if batch.paraphrases is not None and weights.paraphrase:
        terms["paraphrase"] = apply("paraphrased", batch.paraphrases)
    if weights.overshoot_steps:
        inputs = frames, told, batch.is_first, jax.random.fold_in(cut_key, 4)
        terms |= _overshoot_terms(apply, weights, *inputs)
    return terms, out.carry


def targets_of(net: Any, batch: shapes.Batch) -> dict[str, Any]:
    """What the batch says to the heads of a `Net`."""
    return {} if net.heads is None else net.heads.targets(batch)


def _overshoot_terms(apply, weights, frames, told, is_first, key) -> Terms:
    """At the frames that were imagined, scaled to all of them."""
    decoded = weights.overshoot_frames > 0
    steps = weights.overshoot_steps
    shot, images = apply("overshoot", frames, told, is_first, key, steps, decoded)
    time = is_first.shape[1]
    stream = jnp.arange(len(is_first))[:, None]

    def all_frames(error):
        return jnp.zeros(is_first.shape).at[stream, shot.at].set(error * time / error.shape[1])

    terms = {"overshoot": all_frames(shot.error)}
    if images is not None:
        error = squared_error(images, frames[stream, shot.at])
        terms["overshoot_frames"] = all_frames(error * shot.real)
    return terms


def _compared(count: int, key: jax.Array, begin: int, end: int) -> slice | Array:
    """The frames of [begin, end) whose pixels are compared: ``count`` of them; 0: all."""
    if not count or count >= end - begin:
        return slice(begin, end)
    return begin + jax.random.choice(key, end - begin, (count,), replace=False)


def _observed(
    weights: LossWeights, key: jax.Array, batch: int, time: int
) -> tuple[Bool[Array, "b t"] | None, int]:
    """Which frames are shown (None: all), and after how many none is."""
    if weights.context == "all":
        return None, time
    low = weights.context_low
    high = max(low, min(weights.context_high, time // 2))
    cut = jax.random.randint(key, (batch, 1), low, high + 1)
    return jnp.arange(time) < cut, min(high, time)
