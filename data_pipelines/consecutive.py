"""Which window comes after which where windows go on from one another (truncated backpropagation).

A stream reads an episode from window to window to its end, then the next episode. Every stream has
an order of its own, in which an epoch visits each episode once; so window i of a stream is a
function of (seed, stream, i), a position is one number, and resuming is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where a window lies, and whether its first frame starts a stream (nothing came before)."""

    episode: int
    start: int
    begins: bool


class Consecutive:
    """The windows of ``length`` frames of episodes with these ``lengths``.

    An episode gives as many whole windows as fit, at least one (padded where it is shorter); those
    begin at a random frame that leaves room for them.
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
