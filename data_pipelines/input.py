"""From a data set on disk to batches: records → windows → batches, in the order of `order`.

Two loaders with one interface (``next``, ``position``, ``seek``, ``corrupt``, ``close``):
`MemoryLoader` holds the split in RAM, `GrainLoader` reads records as it goes. Neither touches jax.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines import corrupt, window
from data_pipelines.memory import MemoryLoader, check_fingerprint, content_digest
from data_pipelines.order import Rows, Shuffled
from data_pipelines.twins import paraphrases as pairs
from wm_jax.errors import UserError

#: Items of a source that never ends: what Grain counts them with can hold.
ENDLESS = 2**60


def open_loader(
    config: Any,
    *,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
    source: Sequence[Mapping[str, Any]] | None = None,
    targets: Sequence[str] = (),
    consecutive: bool = False,
    fixed: bool = False,
) -> MemoryLoader | GrainLoader:
    """The training batches that ``config`` (the ``data`` section) describes.

    ``batch_size`` counts all processes; ``rows`` are those that this one reads (None: all; see
    `wm_jax.mesh.rows_of_process`). ``source`` replaces the data set on disk by episodes at hand.
    ``targets`` are fields that heads need beside ``config.conditions``; ``consecutive`` windows go
    on from batch to batch, ``fixed`` ones are the same of an episode each time, and both need the
    loader 'memory'. Raises `UserError` where the data set is missing or empty.
    """
    names = tuple(dict.fromkeys((*config.conditions, *targets)))
    settings = {
        "length": config.window,
        "batch_size": batch_size,
        "seed": seed,
        "conditions": names,
        "rows": rows,
        "corrupt_budget": config.corrupt_budget,
        "paraphrases": tuple(config.paraphrases),
    }
    source = open_split(config, "train", names) if source is None else source
    if config.loader == "memory":
        return MemoryLoader(source, **settings, consecutive=consecutive, fixed=fixed)
    return GrainLoader(source, **settings, workers=config.workers)


def open_split(
    config: Any, split: str, conditions: Sequence[str] | None = None
) -> Sequence[Mapping[str, Any]]:
    """Episodes of one split as a sequence of dicts, read from disk when they are indexed, with
    ``config.conditions`` unless others are named."""
    from data_pipelines.twins import open_source

    names = window.fields(tuple(config.conditions if conditions is None else conditions))
    return open_source(config.directory, split, fields=names)


class Windows:
    """A source for Grain: item i is this process's window i, of a record or, where that cannot be
    read, of the next one that can.

    Items are (window, sentences about unreadable records met on the way), so that the process that
    trains learns of them wherever they were read.
    """

    def __init__(
        self,
        source: Any,
        conditions: Sequence[str],
        budget: int,
        length: int,
        seed: int,
        rows: Rows,
        paraphrases: Sequence[str] = (),
    ):
        self._paraphrases = tuple(paraphrases)
        self._source, self._conditions, self._budget = source, conditions, budget
        self._length, self._rows, self._order = length, rows, Shuffled(len(source), seed)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, item: int) -> tuple[window.Arrays, dict[int, str]]:
        batch, place = divmod(item, len(self._rows.own))
        index, rng = self._order.at(self._rows.of_batch(batch)[place])
        episode, problems = self.episode(index)
        start = window.draw_start(rng, episode, self._length)
        arrays = window.cut(episode, start, self._length)
        return arrays | pairs.of_window(rng, self._paraphrases, arrays), problems

    def episode(self, index: int) -> tuple[window.Arrays, dict[int, str]]:
        problems: dict[int, str] = {}
        count = len(self._source)
        for i in range(index, index + min(self._budget + 1, count)):
            i %= count
            episode, problem = corrupt.read(self._source, i, self._conditions)
            if episode is not None:
                return episode, problems
            problems[i] = str(problem)
        counter = corrupt.Corrupt(self._budget)
        for i, problem in problems.items():
            counter.add(i, problem)
        raise corrupt.CorruptData("no record of the data set can be read; build it anew.")


class GrainLoader:
    """The interface of `MemoryLoader`, reading records as they are needed (see there)."""

    def __init__(
        self,
        source: Any,
        *,
        length: int,
        batch_size: int,
        seed: int,
        conditions: Sequence[str] = (),
        rows: Sequence[int] | None = None,
        corrupt_budget: int = 0,
        workers: int = 0,
        paraphrases: Sequence[str] = (),
    ):
        pairs.check(paraphrases)
        try:
            import grain
        except ImportError as error:
            raise UserError(
                "grain is not installed; run pip install grain, or set config.data.loader=memory."
            ) from error
        window.fields(conditions)
        if not len(source):
            raise UserError("there are 0 episodes; build a data set that has some.")
        self._corrupt, own = corrupt.Corrupt(corrupt_budget), Rows(batch_size, rows)
        settings = conditions, corrupt_budget, length, seed, own, paraphrases
        windows = Windows(source, *settings)

        def collate(items):
            problems = {i: text for _, found in items for i, text in found.items()}
            return window.collate([arrays for arrays, _ in items]), problems

        batches = grain.MapDataset.source(windows).batch(len(own.own), batch_fn=collate)
        # Two threads, a few batches ahead: Grain's default of 500 records would fill the memory.
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        stream = batches.to_iter_dataset(options)
        if workers:
            _parse_flags()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
        self._iterator = iter(stream)
        self._fingerprint = {
            "loader": "grain",
            "order": "as in memory",
            "episodes": len(source),
            "content": content_digest(windows.episode(0)[0]),
            "window": length,
            "batch_size": batch_size,
            "seed": seed,
            "workers": workers,
        } | ({"paraphrases": ",".join(paraphrases)} if paraphrases else {})

    @property
    def corrupt(self) -> dict[int, str]:
        """Unreadable records so far: index to a sentence."""
        return self._corrupt.found

    def __iter__(self):
        return self

    def __next__(self) -> window.Arrays:
        batch, problems = next(self._iterator)
        for i, problem in problems.items():
            self._corrupt.add(i, problem)
        return batch

    def position(self) -> dict[str, Any]:
        """A small JSON value: where the next batch begins, and of what."""
        state = self._iterator.get_state()
        json.dumps(state)
        found = {str(i): sentence for i, sentence in self._corrupt.found.items()}
        return {"fingerprint": self._fingerprint, "grain": state, "corrupt": found}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continues from `position`; refuses one that belongs to other data or settings. Grain
        itself would accept another worker count silently, and read other records."""
        check_fingerprint(position["fingerprint"], self._fingerprint)
        self._iterator.set_state(position["grain"])
        self._corrupt.found = {int(i): sentence for i, sentence in position["corrupt"].items()}

    def close(self) -> None:
        """Ends reader threads and processes."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


def _parse_flags() -> None:
    """Grain's worker processes read absl flags, which a program that is not absl's never parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
