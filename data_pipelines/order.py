"""In which order windows are read: the same on one process and on many.

Item i of an endless sequence is a function of (seed, i): epoch e visits every episode once, in an
order of its own, each at a random start. Batch n of B windows is items n B to n B + B - 1 of it,
and each of several processes reads its own rows of every batch. So a run may go on with another
number of processes, and goes on with the same batches. (Where ``mesh.fsdp`` divides a batch, the
rows of one are in another order on several processes: see `wm_jax.mesh.BATCH_AXES`.)
"""

from __future__ import annotations

import numpy as np


class Shuffled:
    """Which episode an item is of."""

    def __init__(self, episodes: int, seed: int):
        self._episodes, self._seed = episodes, seed
        self._epoch = (-1, np.zeros(0, int))

    def at(self, number: int) -> tuple[int, np.random.Generator]:
        """The episode of an item, and what its window is drawn with. May be called from several
        threads."""
        epoch, place = divmod(number, self._episodes)
        known, order = self._epoch
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._episodes)
            self._epoch = (epoch, order)
        return int(order[place]), np.random.default_rng((self._seed, epoch, place))


class Rows:
    """The rows of a batch that are those of process ``index`` of ``count``, ``size`` each."""

    def __init__(self, size: int, index: int = 0, count: int = 1):
        self.size, self.total = size, size * count
        self.own = range(index * size, (index + 1) * size)

    def of_batch(self, number: int) -> range:
        """Its items in the endless sequence."""
        return range(number * self.total + self.own[0], number * self.total + self.own[-1] + 1)
