"""Batches from episodes held in RAM: numpy alone, no Grain and no TFDS.

A position is one number (see `order`), and resuming is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import corrupt, window
from data_pipelines.order import Rows, Shuffled
from data_pipelines.twins import paraphrases as pairs
from wm_jax.errors import UserError


class MemoryLoader:
    """Endless batches of windows. ``next`` gives a dict of arrays (see `window`).

    ``source`` is a sequence of episodes (dicts of arrays), of which every process holds all;
    ``batch_size`` counts all of them, ``rows`` are those that this one reads (None: all). With
    ``consecutive``, row i of a batch goes on where row i of the batch before ended (see
    `Consecutive`); else every window is drawn at random, or, with ``fixed``, the same of an episode
    each time: then a batch has ``episode`` too, whose window each is (see `fixed_window`).
    ``paraphrases`` are kinds of changes of which each frame gets a pair (`twins.paraphrases`).
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        *,
        length: int,
        batch_size: int,
        seed: int,
        conditions: Sequence[str] = (),
        rows: Sequence[int] | None = None,
        corrupt_budget: int = 0,
        consecutive: bool = False,
        fixed: bool = False,
        paraphrases: Sequence[str] = (),
    ):
        window.fields(conditions)
        pairs.check(paraphrases)
        self._corrupt = corrupt.Corrupt(corrupt_budget)
        self.episodes: list[window.Arrays] = []
        for i in range(len(source)):
            episode, problem = corrupt.read(source, i, conditions)
            if episode is not None:
                self.episodes.append(episode)
            else:
                self._corrupt.add(i, str(problem))
        if not self.episodes:
            raise UserError(
                f"there are {len(source)} episodes, and none can be read; build the data set anew."
            )
        self._length, self._seed, self._fixed = length, seed, fixed
        self._paraphrases = tuple(paraphrases)
        self._rows = Rows(batch_size, rows)
        self._order = Shuffled(len(self.episodes), seed)
        self._streams: Consecutive | None = None
        if consecutive:
            lengths = [len(episode["frames"]) for episode in self.episodes]
            self._streams = Consecutive(lengths, length, seed)
        self._served = 0
        self._fingerprint = {
            "loader": "memory"
            + ", consecutive windows" * consecutive
            + ", one window an episode" * fixed,
            "episodes": len(source),
            "content": content_digest(self.episodes[0]),
            "window": length,
            "batch_size": batch_size,
            "seed": seed,
            "workers": 0,
        } | ({"paraphrases": ",".join(paraphrases)} if paraphrases else {})

    @property
    def corrupt(self) -> dict[int, str]:
        """Unreadable records so far: index to a sentence."""
        return self._corrupt.found

    def __iter__(self):
        return self

    def __next__(self) -> window.Arrays:
        number = self._served
        self._served += 1
        if self._streams is not None:
            streams = self._streams
            return window.collate([self._next_of(streams, i, number) for i in self._rows.own])
        return window.collate([self._item(i) for i in self._rows.of_batch(number)])

    def position(self) -> dict[str, Any]:
        """A small JSON value: where the next batch begins, and of what."""
        return {"fingerprint": self._fingerprint, "batches": self._served}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continues from `position`; refuses one that belongs to other data or settings."""
        check_fingerprint(position["fingerprint"], self._fingerprint)
        self._served = position["batches"]

    def close(self) -> None:
        """Nothing to release."""

    def _next_of(self, streams: Consecutive, row: int, number: int) -> window.Arrays:
        place = streams.place(row, number)
        episode = self.episodes[place.episode]
        arrays = window.cut(episode, place.start, self._length, place.begins)
        rng = np.random.default_rng((self._seed, row, number))
        return arrays | pairs.of_window(rng, self._paraphrases, arrays)

    def fixed_window(self, index: int) -> window.Arrays:
        """The window of an episode that is always taken, where it is always the same."""
        return self._cut(index, np.random.default_rng((self._seed, index)))

    def _item(self, number: int) -> window.Arrays:
        index, rng = self._order.at(number)
        if self._fixed:
            return self.fixed_window(index) | {"episode": np.asarray(index)}
        return self._cut(index, rng)

    def _cut(self, index: int, rng: np.random.Generator) -> window.Arrays:
        episode = self.episodes[index]
        arrays = window.cut(episode, window.draw_start(rng, episode, self._length), self._length)
        return arrays | pairs.of_window(rng, self._paraphrases, arrays)


class Place(NamedTuple):
    """Where a window lies, and whether its first frame starts a stream (nothing came before)."""

    episode: int
    start: int
    begins: bool


class Consecutive:
    """The windows of ``length`` frames of episodes with these ``lengths``, where a window goes on
    from the one before (truncated backpropagation).

    A stream reads an episode from window to window to its end, then the next one, in an order of
    its own in which an epoch visits each episode once: window i of a stream is a function of (seed,
    stream, i). An episode gives as many whole windows as fit, at least one (padded where it is
    shorter); those begin at a random frame that leaves room for them.
    """

    def __init__(self, lengths: Sequence[int], length: int, seed: int):
        sizes = np.asarray(lengths)
        self._counts = np.maximum(sizes // length, 1)
        self._spare = np.maximum(sizes - self._counts * length, 0)
        self._total = int(self._counts.sum())
        self._length, self._seed = length, seed
        self._epochs: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}

    def place(self, stream: int, number: int) -> Place:
        """Window ``number`` (from 0) of a stream. Streams begin at different windows of an epoch,
        lest all of them start anew in the same batch."""
        shift = int(np.random.default_rng((self._seed, stream)).integers(self._total))
        epoch, place = divmod(number + shift, self._total)
        order, ends = self._epoch(stream, epoch)
        rank = int(np.searchsorted(ends, place, side="right"))
        episode = int(order[rank])
        index = place - int(ends[rank] - self._counts[episode])
        rng = np.random.default_rng((self._seed, stream, epoch, episode))
        begin = int(rng.integers(self._spare[episode] + 1))
        return Place(episode, begin + index * self._length, index == 0 or number == 0)

    def _epoch(self, stream: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of episodes, and the windows passed by the end of each."""
        if stream not in self._epochs or self._epochs[stream][0] != epoch:
            rng = np.random.default_rng((self._seed, stream, epoch))
            order = rng.permutation(len(self._counts))
            self._epochs[stream] = (epoch, order, np.cumsum(self._counts[order]))
        return self._epochs[stream][1:]


def content_digest(episode: Mapping[str, Any]) -> str:
    """Tells two data sets apart cheaply: a digest of one episode's frames."""
    return f"{zlib.crc32(episode['frames'].tobytes()):08x}"


def check_fingerprint(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuses a position whose data or settings differ from the loader's."""
    # Versions that wrote this key gave each of several processes episodes of its own.
    here = dict(here) | ({"process_count": 1} if "process_count" in saved else {})
    differ = [k for k in {**here, **saved} if saved.get(k) != here.get(k)]
    if differ:
        listing = ", ".join(f"{k} was {saved.get(k)} and is {here.get(k)}" for k in differ)
        raise UserError(
            f"the position in the data does not fit this run ({listing}); run with what it was "
            "saved with, or start in a new workdir."
        )
