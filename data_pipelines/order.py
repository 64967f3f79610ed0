"""In which order windows are read: the same on one process and on many.

Item i of an endless sequence is a function of (seed, i): epoch e visits every episode once, in an
order of its own, each at a random start. Batch n of B windows is items n B to n B + B - 1 of it,
and each of several processes reads those rows of every batch that its devices hold. So a run may
go on with another number of processes, and goes on with the same batches, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_jax.errors import UserError


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
    """The rows of a batch of ``total`` that are read here, in increasing order; None: all of them.
    Raises `UserError` for none, and for any that it has not."""

    def __init__(self, total: int, own: Sequence[int] | None = None):
        self.total, self.own = total, tuple(range(total) if own is None else own)
        if not self.own or list(self.own) != sorted(set(self.own) & set(range(total))):
            raise UserError(
                f"a process cannot read the rows {list(self.own)} of a batch of {total}; name at "
                f"least one of 0 to {total - 1}, each once, in increasing order."
            )

    def of_batch(self, number: int) -> list[int]:
        """Their items in the endless sequence."""
        return [number * self.total + row for row in self.own]
