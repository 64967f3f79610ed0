"""Batches from episodes held in RAM: numpy alone, no Grain and no TFDS.

Item i of the endless sequence is a function of (seed, i): epoch e visits every episode once, in an
order of its own, each at a random start. So a position is one number, and resuming is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import corrupt, window
from data_pipelines.consecutive import Consecutive
from wm_jax.errors import UserError


class MemoryLoader:
    """Endless batches of windows. ``next`` gives a dict of arrays (see `window`).

    ``source`` is a sequence of episodes (dicts of arrays); ``batch_size`` this process's share;
    process p of P holds episodes p, p + P, … With ``consecutive``, row i of a batch goes on where
    row i of the batch before ended (see `consecutive`); else every window is drawn at random.
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
