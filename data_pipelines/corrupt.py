"""Records that cannot be read: each is named, counted and skipped, up to a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipelines import window
from wm_jax.errors import UserError


class CorruptData(UserError):
    """More records are unreadable than the budget allows."""


class Corrupt:
    """The unreadable records seen so far: ``found`` maps an index to a sentence."""

    def __init__(self, budget: int):
        self.budget = budget
        self.found: dict[int, str] = {}

    def add(self, index: int, sentence: str) -> None:
        """Counts a record once. Raises `CorruptData` when the budget is spent."""
        self.found[int(index)] = sentence
        if len(self.found) > self.budget:
            raise CorruptData(
                f"{len(self.found)} records are corrupt and config.data.corrupt_budget is "
                f"{self.budget}; the last is {sentence}. Build the data set anew, or raise the "
                "budget."
            )


def read(
    source: Any, index: int, conditions: Sequence[str]
) -> tuple[window.Arrays | None, str | None]:
    """(episode, None), or (None, a sentence naming file and index) when it cannot be read."""
    try:
        return window.trim(source[index], conditions), None
    except Exception as error:  # noqa: BLE001, whatever a decoder raises, the record is unusable
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return None, f"{where(source, index)}: {reason}"


def where(source: Any, index: int) -> str:
    """File and place of a record, as far as the source knows them."""
    if hasattr(source, "where"):
        return str(source.where(index))
    return f"record {index} of {getattr(source, 'name', type(source).__name__)}"
