"""One change said twice, as a sentence and as a vector: words are learned without a video to each.

A model that learns from twins what a change does sees each sentence beside one future, and there
are as many sentences with numbers as there are episodes. What a sentence *means* needs no future:
it is the vector that says the same. So pairs are made up, of any object and any place, as many as
there are frames; see ``paraphrase`` in `wm_jax.models.loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.twins import telling
from data_pipelines.twins.language import thing
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import ARENA, HUES, SHAPES
from wm_jax import words
from wm_jax.edit import KINDS as ALL
from wm_jax.edit import as_vector
from wm_jax.errors import UserError

#: Kinds whose sentence can say all that the vector does.
KINDS = ("move", "push", "recolour", "remove", "add", "gravity")
#: Largest change of speed and speed (world units a frame), and pull (a frame²); sizes. Wider than
#: what any world draws, so that what is at its edge is not at the edge here.
PUSH, SPEED, PULL, RADIUS = 2.6, 2.2, 0.04, (3.0, 8.0)


def check(kinds: Sequence[str]) -> None:
    """Raises `UserError` for a kind that is none of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"config.data.paraphrases has '{kind}', which no sentence says in full; choose "
                f"some of {', '.join(KINDS)}."
            )


def made_up(
    rng: np.random.Generator, kinds: Sequence[str], count: int, resolution: int
) -> tuple[list[str], Float[np.ndarray, "n 24"]]:
    """``count`` changes of these kinds, of any object: as sentences, lengths in px of frames of
    ``resolution``, and as vectors (`edit.as_vector`)."""
    chosen = rng.integers(len(kinds), size=count)
    hue, shape = rng.integers(len(HUES), size=count), rng.integers(len(SHAPES), size=count)
    params, still = _params(rng, [kinds[i] for i in chosen]), np.zeros((count, 3), np.float32)
    told: dict[str, Any] = {k: np.array(x) for k, x in telling.filled({}, count)._asdict().items()}
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(chosen == number)
        given = telling.fields(kind, params[rows], still[rows]) | {"kind": ALL.index(kind)}
        if kind not in ("add", "gravity"):
            given["named"] = PALETTE[hue[rows]]
        for name, value in given.items():
            told[name][rows] = value
    whose = [f"the {thing(h, s)}" for h, s in zip(hue, shape, strict=True)]
    said = [
        _sentence(kinds[number], who, row, resolution)
        for number, who, row in zip(chosen, whose, params, strict=True)
    ]
    return said, as_vector(telling.filled(told, count))


def of_window(
    rng: np.random.Generator, kinds: Sequence[str], window: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One for each frame of a window: ``paraphrase/text`` (t, 32), ids of words, and
    ``paraphrase/intervention`` (t, 24); {} of no kinds."""
    if not kinds:
        return {}
    frames = window["frames"]
    said, vectors = made_up(rng, kinds, len(frames), frames.shape[1])
    ids = np.stack([words.encode(sentence) for sentence in said])
    return {"paraphrase/text": ids, "paraphrase/intervention": vectors}


def blank(batch: int, time: int) -> dict[str, np.ndarray]:
    """What a batch holds of them, without data."""
    sizes = {"text": words.LENGTH, "intervention": 24}
    return {f"paraphrase/{k}": np.zeros((batch, time, n), np.float32) for k, n in sizes.items()}


def _params(rng: np.random.Generator, kinds: Sequence[str]) -> Float[np.ndarray, "n 8"]:
    """As `interventions` writes them."""
    count = len(kinds)
    place = rng.uniform(2.0, ARENA - 2.0, (count, 2))
    shape, hue = rng.integers(len(SHAPES), size=count), rng.integers(len(HUES), size=count)
    largest = {"push": PUSH, "add": SPEED, "gravity": PULL}
    way = rng.normal(size=(count, 2))
    way *= np.sqrt(rng.random((count, 1))) / np.linalg.norm(way, axis=1, keepdims=True)
    way *= np.array([largest.get(kind, 0.0) for kind in kinds])[:, None]
    out = np.zeros((count, 8), np.float32)
    for i, kind in enumerate(kinds):
        if kind == "move":
            out[i, :2] = place[i]
        elif kind == "add":
            out[i, :7] = *place[i], *way[i], hue[i], shape[i], rng.uniform(*RADIUS)
        elif kind == "recolour":
            out[i, 0] = hue[i]
        else:
            out[i, :2] = way[i]
    return out


def _sentence(kind: str, who: str, params: Float[np.ndarray, " 8"], resolution: int) -> str:
    if kind == "recolour":
        return f"{who} turns {HUES[int(params[0])]}"
    if kind == "remove":
        return f"{who} disappears"
    said = telling.exactly(kind, who, params, np.zeros(3, np.float32), resolution)
    assert said is not None
    return said
