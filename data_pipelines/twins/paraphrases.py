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

from data_pipelines.twins import language, telling
from data_pipelines.twins.geometry import unit_vector
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import ARENA, HUES, SHAPES
from wm_jax import words
from wm_jax.edit import KINDS as ALL
from wm_jax.edit import OF_OBJECTS, as_vector
from wm_jax.errors import UserError

#: Kinds whose sentence can say all that the vector does. The place of a move "to the left" depends
#: on where a thing is, which no vector says; so a move is always said with its numbers.
KINDS = ("move", "push", "recolour", "remove", "add", "gravity")
#: Largest change of speed and speed (world units a frame), and pull (a frame²); sizes. Wider than
#: what worlds draw for training, so that what is at their edge is not at the edge here.
PUSH, SPEED, PULL, RADIUS = 2.6, 2.2, 0.04, (3.0, 8.0)
#: Share of the other sentences that say no number. What such a sentence comes to mean is the mean
#: of the vectors that it may stand for, so these are no wider than what worlds draw.
PLAIN = 0.3
PLAIN_SIZES = {"push": (0.8, 1.8), "add": (0.0, 0.0), "gravity": (0.015, 0.035)}
PLAIN_RADIUS = (3.5, 6.0)


def check(kinds: Sequence[str]) -> None:
    """Raises `UserError` for a kind that is none of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"config.data.paraphrases has '{kind}', which no sentence says in full; choose "
                f"some of {', '.join(KINDS)}."
            )


def made_up(
    rng: np.random.Generator,
    kinds: Sequence[str],
    count: int,
    resolution: int,
    plain: float = PLAIN,
) -> tuple[list[str], Float[np.ndarray, "n 24"]]:
    """``count`` changes of these kinds, of any object: as sentences, lengths in px of frames of
    ``resolution``, and as vectors (`edit.as_vector`); ``plain``: see `PLAIN`."""
    chosen = rng.integers(len(kinds), size=count)
    hue, shape = rng.integers(len(HUES), size=count), rng.integers(len(SHAPES), size=count)
    kind_of, still = [kinds[i] for i in chosen], np.zeros((count, 3), np.float32)
    numberless = (rng.random(count) < plain) & (np.array(kind_of) != "move")
    params = np.stack([_params(rng, *each) for each in zip(kind_of, numberless, strict=True)])
    told: dict[str, Any] = {k: np.array(x) for k, x in telling.filled({}, count)._asdict().items()}
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(chosen == number)
        given = telling.fields(kind, params[rows], still[rows]) | {"kind": ALL.index(kind)}
        if kind in OF_OBJECTS:
            given["named"] = PALETTE[hue[rows]]
        for name, value in given.items():
            told[name][rows] = value
    whose = [f"the {language.thing(h, s)}" for h, s in zip(hue, shape, strict=True)]
    said = [
        language.change(kind, who, row) if some else _exactly(kind, who, row, resolution)
        for kind, who, row, some in zip(kind_of, whose, params, numberless, strict=True)
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


def _params(rng: np.random.Generator, kind: str, plain: bool) -> Float[np.ndarray, " 8"]:
    """As `interventions` writes them."""
    largest = {"push": PUSH, "add": SPEED, "gravity": PULL}.get(kind, 0.0)
    size = rng.uniform(*PLAIN_SIZES.get(kind, (0, 0))) if plain else largest * rng.random() ** 0.5
    way, place = size * unit_vector(rng.uniform(-np.pi, np.pi)), rng.uniform(2.0, ARENA - 2.0, 2)
    hue, shape = rng.integers(len(HUES)), rng.integers(len(SHAPES))
    radius = rng.uniform(*(PLAIN_RADIUS if plain else RADIUS))
    values: dict[str, Any] = {
        "move": place,
        "recolour": [hue],
        "add": [*place, *way, hue, shape, radius],
    }
    given = values.get(kind, way)
    out = np.zeros(8, np.float32)
    out[: len(given)] = given
    return out


def _exactly(kind: str, who: str, params: Float[np.ndarray, " 8"], resolution: int) -> str:
    told = telling.exactly(kind, who, params, np.zeros(3, np.float32), resolution)
    return told or language.change(kind, who, params)
