"""What a published benchmark of frozen states is: what is read off them, and what is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wm_jax.errors import UserError
from wm_jax.evaluation.judge import Readable
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.rows import Row

#: What stands in every table beside a model as it is: see `wm_jax.evaluation.probes.CONTROLS`.
CONTROLS = {
    None: "as trained",
    "random_weights": "random weights",
    "one_frame": "one frame shown",
    "shuffled_labels": "labels shuffled",
}


class Column(NamedTuple):
    """A score of the table: rows have it as METRIC_VARIANT, or as METRIC where it has no variants.

    ``form`` is how its numbers are written; a share may be written as ".1%".
    """

    metric: str
    title: str
    form: str


class Judged(NamedTuple):
    """The rules with all that was found out by reading the files, the rows, and the models that
    were told actions."""

    protocol: ProbeProtocol
    rows: list[Row]
    told: Collection[str] = ()


@dataclasses.dataclass(frozen=True)
class ReadOutBenchmark:
    """A protocol with its reader. Models are never trained here, only read.

    files:     what the folder must hold, in words
    judge:     scores models by their states on the files of a folder, of at most so many test
               episodes; raises `UserError` for what is missing or wrong
    variants:  name -> in words: what the read-outs are given, or which they are
    columns:   the table, left to right
    curves:    metrics, with their variant, that charts show by frames seen, and in words
    differs:   what is not as published, a sentence each
    dots:      title of a picture of all columns side by side, over ``range``; "" for none
    published: method -> metric (with a variant or for all of them) -> value, from ``source``
    """

    name: str
    about: str
    files: str
    judge: Callable[[Mapping[str, Readable], Path, int], Judged]
    variants: Mapping[str, str]
    columns: tuple[Column, ...]
    differs: tuple[str, ...]
    curves: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dots: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    source: str = ""

    def result(
        self, runs: Mapping[str, Readable], folder: Path, episodes: int, command: str
    ) -> dict[str, Any]:
        """What `judge` finds, as JSON. Raises `UserError` where there is no such folder."""
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; --data must hold {self.files}.")
        rules, rows, told = self.judge(runs, folder, episodes)
        return {
            "protocol": {**rules.to_dict(), "differs": self.differs},
            "models": {
                name: {**run.about(1), "told": ["actions"] if name in told else []}
                for name, run in runs.items()
            },
            "published": {"source": self.source, "values": self.published},
            "command": command,
            "rows": rows,
        }
