"""Everything the world is told, as one vector a step.

A modality that is absent is zeros and a flag that says so. A discrete action is a one among zeros,
so that the layer after it has a vector of its own for each. Words go through a small text encoder:
an embedding of each, its place in the sentence, one block of attention between them (Vaswani et al.
2017, arXiv 1706.03762) and what a learned question finds in the result. A number among them is told
by its value, not as a word (Golkar et al. 2023, arXiv 2310.02989, section 2), and reaches the end
linearly. Embeddings of 32 numbers that another encoder made are told as they are (``words`` False).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.shapes import CHOICES, CONDITION_SIZES, SAID, Conditions, Signal
from wm_jax.words import IDS, NUMBER, NUMBERS

#: Scales on which a number is told, each cut off at ±1: of places, of speeds, of pulls.
SCALES = (1 / 64, 1 / 4, 16.0)


def flatten(conditions: Conditions, modalities: tuple[str, ...]) -> Float[Array, "*lead k"]:
    """Values (zero where absent) and presence flags side by side, for the chosen modalities."""
    parts = []
    for name in modalities:
        value, mask = getattr(conditions, name)
        if name == "discrete_actions":
            value = jax.nn.one_hot(value[..., 0].astype(jnp.int32), CHOICES)
        mask = mask[..., None].astype(jnp.float32)
        parts += [jnp.where(mask > 0, value, 0.0), mask]
    return jnp.concatenate(parts, -1)


def flat_size(modalities: tuple[str, ...]) -> int:
    """Width of `flatten`; 1 where nothing is told."""
    widths = CONDITION_SIZES | {"discrete_actions": CHOICES}
    return sum(widths[name] + 1 for name in modalities) or 1


def unsaid(conditions: Conditions) -> Conditions:
    """The same without what is `SAID`."""
    silent = {name: getattr(conditions, name) for name in SAID}
    silent = {n: s._replace(mask=jnp.zeros_like(s.mask)) for n, s in silent.items()}
    return conditions._replace(**silent)


def dropped(
    conditions: Conditions, share: float, key: jax.Array, names: tuple[str, ...] = ()
) -> Conditions:
    """Each modality of each stream is absent throughout with probability ``share``, so that one
    model learns to do with any of them (classifier-free guidance, Ho and Salimans 2022, arXiv
    2207.12598, section 3.2); with ``names`` only these."""

    def drop(signal: Signal, key: jax.Array) -> Signal:
        mask = signal.mask
        kept = jax.random.bernoulli(key, 1 - share, (len(mask), *[1] * (mask.ndim - 1)))
        return signal._replace(mask=mask & kept)

    keys = dict(zip(Conditions._fields, jax.random.split(key, len(conditions)), strict=True))
    names = names or Conditions._fields
    return conditions._replace(**{n: drop(getattr(conditions, n), keys[n]) for n in names})


def one_of_said(conditions: Conditions, share: float, key: jax.Array) -> Conditions:
    """What is said is said in one way: of a ``share`` of the streams in words, of the others as a
    vector. Told both, a model learns of the words no more than what the vector leaves open."""
    text, vector = conditions.text, conditions.intervention
    words = jax.random.bernoulli(key, share, (len(text.mask), *[1] * (text.mask.ndim - 1)))
    text = text._replace(mask=text.mask & words)
    vector = vector._replace(mask=vector.mask & ~words)
    return conditions._replace(text=text, intervention=vector)


class TextEncoder(nn.Module):
    """Ids of words (…, 32), 0 none, less than 0 a number (`wm_jax.words`), to (…, width)."""

    width: int
    heads: int = 8

    @nn.compact
    def __call__(self, ids: Float[Array, "*lead k"]) -> Float[Array, "*lead w"]:
        lead, length = ids.shape[:-1], ids.shape[-1]
        # Nearly all steps are told nothing; what those are worth is the same for all.
        ids = ids.reshape(-1, length)
        there, number = (ids != 0)[:, None, None], ids < 0
        value = jnp.where(number, ids + NUMBERS, 0.0)[..., None] * jnp.array(SCALES)
        value = Dense(self.width, use_bias=False)(jnp.clip(value, -1.0, 1.0))
        small = nn.initializers.normal(0.3)
        ids = jnp.where(number, NUMBER, ids).astype(jnp.int32)
        x = nn.Embed(IDS, self.width, embedding_init=small)(ids)
        x = x + self.param("places", small, (length, self.width))
        y = nn.RMSNorm()(x) + value
        q, k, v = jnp.split(Dense(3 * self.width, use_bias=False)(y), 3, -1)
        q, k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (q, k, v))
        x = x + Dense(self.width)(_attend(q, k, v, there).reshape(x.shape))
        y = nn.RMSNorm()(x) + value
        question = self.param("question", small, (self.heads, self.width // self.heads))
        k, v = jnp.split(Dense(2 * self.width, use_bias=False)(y), 2, -1)
        k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (k, v))
        asked = jnp.broadcast_to(question, (ids.shape[0], 1, *question.shape))
        return _attend(asked, k, v, there).reshape(*lead, self.width)


def _attend(q, k, v, there) -> Float[Array, "b m h p"]:
    scores = jnp.einsum("bmhp,blhp->bhml", q, k) / jnp.sqrt(q.shape[-1])
    scores = jnp.where(there, scores, -1e9)
    return jnp.einsum("bhml,blhp->bmhp", nn.softmax(scores), v)


class Conditioning(nn.Module):
    """Conditions (…) → (…, width), or, of width 0, as they are (`flatten`). With no modalities
    chosen, a single zero: nothing is told. ``words``: the text is ids of words, not numbers;
    ``active``: the width is that of an activation, else of what is linear in the numbers."""

    modalities: tuple[str, ...]
    width: int
    words: bool = True
    active: bool = True

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "*lead k"]:
        lead = conditions.actions.mask.shape
        if not self.modalities:
            return jnp.zeros((*lead, 1))
        unknown = set(self.modalities) - set(CONDITION_SIZES)
        if unknown:
            raise ValueError(f"unknown modalities {sorted(unknown)}")
        if not self.width:
            return flatten(conditions, self.modalities)
        active = nn.silu if self.active else lambda x: x
        if "text" not in self.modalities or not self.words:
            return active(Dense(self.width)(flatten(conditions, self.modalities)))
        others = tuple(name for name in self.modalities if name != "text")
        parts = [flatten(conditions, others)] if others else []
        mask = conditions.text.mask[..., None].astype(jnp.float32)
        parts += [mask * TextEncoder(self.width, name="text")(conditions.text.value), mask]
        return active(Dense(self.width)(jnp.concatenate(parts, -1)))


class Apart(nn.Module):
    """Conditions (…) as they are, but what is `SAID` behind them: whether anything is, and (…,
    width) of it, linear in its numbers."""

    modalities: tuple[str, ...]
    width: int
    words: bool = True

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "*lead k"]:
        said, holding = split(self.modalities)
        parts = [Conditioning(holding, 0)(conditions)]
        if said:
            there = jnp.stack([getattr(conditions, name).mask for name in said]).any(0)
            encoded = Conditioning(said, self.width, self.words, active=False, name="said")
            parts += [there[..., None].astype(jnp.float32), encoded(conditions)]
        return jnp.concatenate(parts, -1)


def split(modalities: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that are `SAID`, and the others."""
    said = tuple(name for name in modalities if name in SAID)
    return said, tuple(name for name in modalities if name not in SAID)
