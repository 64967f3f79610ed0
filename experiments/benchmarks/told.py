"""Pictures of what a model makes of a change that it is told in words with all its numbers.

    python experiments/benchmarks/told.py --model runs/told --data data/told --out told.png

A twin of the test split is shown until the frame after which it is changed. Drawn are the first
twin of each kind and, of all twins of the first ``--scenes`` scenes, the one whose told future is
farthest from the truth (mean squared error of its pixels): the future untold, told, and the truth,
every fourth frame.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

import wm_jax
from data_pipelines.twins import open_source, telling
from wm_jax.edit import TOLD
from wm_jax.errors import UserError
from wm_jax.progress import Progress

CONTEXT, STEPS, EVERY = 16, 24, 4
ROWS = ("untold", "told", "truth")
MARGIN, LINE = 44, 14  # px beside and above a film
FIELDS = ("group", "branch", "frames", "camera", "light", "actions")
CHANGED = ("kind", "frame", "params", "sentence")


class Film(NamedTuple):
    """A change and its futures, uint8 (3, t, h, w, 3) in the order of `ROWS`."""

    kind: str
    sentence: str
    frames: np.ndarray

    @property
    def error(self) -> float:
        """Of what was told, mean squared, 8-bit levels²."""
        return float(np.square(np.diff(self.frames[1:].astype(np.float32), axis=0)).mean())


def sentence_of(episode: Mapping[str, Any], size: int) -> str:
    """What is said of the twin, with all numbers where there are any."""
    plain, at = str(episode["intervention/sentence"]), int(episode["intervention/frame"])
    kind, camera = str(episode["intervention/kind"]), np.asarray(episode["camera"][at])
    params = np.asarray(episode["intervention/params"])
    return telling.exactly(kind, plain.partition(" is ")[0], params, camera, size) or plain


def twins_of(directory: str, scenes: int) -> Iterator[Mapping[str, Any]]:
    """Changed episodes of the first scenes of the test split that are long enough to look at."""
    fields = (*FIELDS, *(f"intervention/{name}" for name in CHANGED))
    source, groups = open_source(directory, "test", fields=fields), set()
    for index in range(len(source)):
        episode = source[index]
        groups.add(int(episode["group"]))
        if len(groups) > scenes:
            return
        at = int(episode["intervention/frame"])
        changed = int(episode["branch"]) > 0 and str(episode["intervention/kind"]) not in TOLD
        if changed and at + 1 >= CONTEXT and at + 1 + STEPS <= len(episode["frames"]):
            yield episode


def film_of(world: Any, episode: Mapping[str, Any]) -> Film:
    """The model's futures of a twin, and the true one."""
    at, frames = int(episode["intervention/frame"]), np.asarray(episode["frames"])
    sentence = sentence_of(episode, world.resolution)
    names = [name for name in ("camera", "light", "actions") if name in world.modalities]
    early = {n: episode[n][at + 1 - CONTEXT : at + 1] for n in names}
    late = {n: episode[n][at + (n != "actions") :][:STEPS] for n in names}
    scene = world.encode(frames[at + 1 - CONTEXT : at + 1], **early)
    untold = world.rollout(scene, STEPS, **late).frames[0]
    told = world.rollout(scene, STEPS, text={0: sentence}, route="text", **late).frames[0]
    truth = frames[at + 1 : at + 1 + STEPS]
    films = np.stack([np.asarray(x) for x in (untold, told, truth)])
    return Film(str(episode["intervention/kind"]), sentence, films)


def drawn(films: Mapping[str, Film]) -> Image.Image:
    """Two columns of films under their titles."""
    first = next(iter(films.values())).frames[:, ::EVERY]
    (rows, columns), size = first.shape[:2], first.shape[2]
    wide, high = MARGIN + columns * size + 8, LINE + rows * size + 6
    page = Image.new("RGB", (2 * wide, -(-len(films) // 2) * high), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for number, (title, film) in enumerate(films.items()):
        left, top = number % 2 * wide, number // 2 * high
        pen.text((left + MARGIN, top), title, fill=(0, 0, 0))
        for row, (name, strip) in enumerate(zip(ROWS, film.frames[:, ::EVERY], strict=True)):
            y = top + LINE + row * size
            pen.text((left + 2, y + size // 2 - 6), name, fill=(0, 0, 0))
            page.paste(Image.fromarray(np.concatenate(strip, axis=1)), (left + MARGIN, y))
    return page


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a run or an export that is told words")
    parser.add_argument("--data", required=True, help="a data set with twins")
    parser.add_argument("--scenes", type=int, default=12, help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("told.png"), help="default %(default)s")
    args = parser.parse_args(argv)
    world = wm_jax.load(args.model)
    if "text" not in world.modalities:
        raise UserError(f"{args.model} was not trained to hear words; take a run of twins.py:told.")
    twins = list(twins_of(args.data, args.scenes))
    if not twins:
        raise UserError(f"{args.data} has no twins of {STEPS} frames after a change; build some.")
    films: list[Film] = []
    with Progress(len(twins), "told", unit="twins") as bar:
        for count, episode in enumerate(twins):
            try:
                films.append(film_of(world, episode))
            except UserError as error:  # it takes something for what it isn't
                bar.note(f"left out: {error}")
            bar.update(count + 1)
    if not films:
        raise UserError(f"{args.model} knows none of the things that change in {args.data}.")
    worst = max(films, key=lambda film: film.error)
    first = {film.kind: film for film in reversed(films)}
    titled = {film.sentence: film for film in reversed(first.values())}
    drawn(titled | {f"the worst of {len(films)}: {worst.sentence}": worst}).save(args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
