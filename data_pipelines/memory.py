"""Batches from episodes held in RAM: numpy alone, no Grain and no TFDS.

Item i of the endless sequence is a function of (seed, i): epoch e visits every episode once, in an
order of its own, each at a random start. So a position is one number, and resuming is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import corrupt, window
from wm_jax.errors import UserError


class MemoryLoader:
    """Endless batches of windows. ``next`` gives a dict of arrays (see `window`).

    ``source`` is a sequence of episodes (dicts of arrays); ``batch_size`` this process's share;
    process p of P holds episodes p, p + P, … With ``consecutive``, row i of a batch goes on where
    row i of the batch before ended (see `Consecutive`); else every window is drawn at random.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        *,
        length: int,
        batch_size: int,
        seed: int,
        conditions: Sequence[str] = (),
        process: tuple[int, int] = (0, 1),
        corrupt_budget: int = 0,
        consecutive: bool = False,
    ):
        index, count = process
        window.fields(conditions)
        self._corrupt = corrupt.Corrupt(corrupt_budget)
        self.episodes: list[window.Arrays] = []
        for i in range(index, len(source), count):
            episode, problem = corrupt.read(source, i, conditions)
            if episode is not None:
                self.episodes.append(episode)
            else:
                self._corrupt.add(i, str(problem))
        if not self.episodes:
            raise UserError(
                f"there are {len(source)} episodes for {count} processes; every process needs at "
                "least one that can be read."
            )
        self._length, self._batch_size, self._seed = length, batch_size, seed
        self._first_stream = index * batch_size
        self._streams: Consecutive | None = None
        if consecutive:
            lengths = [len(episode["frames"]) for episode in self.episodes]
            self._streams = Consecutive(lengths, length, seed)
        self._served = 0
        self._order = (-1, np.zeros(0, int))
        self._fingerprint = {
            "loader": "memory, consecutive windows" if consecutive else "memory",
            "episodes": len(source),
            "content": content_digest(self.episodes[0]),
            "window": length,
            "batch_size": batch_size * count,
            "seed": seed,
            "process_count": count,
            "workers": 0,
        }

    @property
    def corrupt(self) -> dict[int, str]:
        """Unreadable records so far: index to a sentence."""
        return self._corrupt.found

    def __iter__(self):
        return self

    def __next__(self) -> window.Arrays:
        number, rows = self._served, range(self._batch_size)
        self._served += 1
        if self._streams is not None:
            return window.collate([self._next_of(self._streams, i, number) for i in rows])
        return window.collate([self._item(number * self._batch_size + i) for i in rows])

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
        place = streams.place(self._first_stream + row, number)
        return window.cut(self.episodes[place.episode], place.start, self._length, place.begins)

    def _item(self, number: int) -> window.Arrays:
        epoch, place = divmod(number, len(self.episodes))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._order = (epoch, rng.permutation(len(self.episodes)))
        episode = self.episodes[self._order[1][place]]
        rng = np.random.default_rng((self._seed, epoch, place))
        start = window.draw_start(rng, episode, self._length)
        return window.cut(episode, start, self._length)


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
    # Each process reads its own share, and the position of process 0 stands for all of them.
    own = ("content",) if here["process_count"] > 1 else ()
    differ = [k for k in here if saved.get(k) != here[k] and k not in own]
    if differ:
        listing = ", ".join(f"{k} was {saved.get(k)} and is {here[k]}" for k in differ)
        raise UserError(
            f"the position in the data does not fit this run ({listing}); run with what it was "
            "saved with, or start in a new workdir."
        )
