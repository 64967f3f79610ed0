"""Counterfactual twins: the built-in simulator, its episodes and its data set.

`make_episode` and `make_group` draw episodes from a seed; `Simulator`, `simulate_from` and
`render` are the true world for evaluation; `build` writes a data set, `open_source` reads one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_pipelines.twins.generate import make_episode, make_group
from data_pipelines.twins.interventions import KINDS, Intervention, sample_intervention
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.render import project, render
from data_pipelines.twins.restart import simulate_from, start, static_of
from data_pipelines.twins.world import HUES, SHAPES, SPLITS, VERSION, WORLDS

if TYPE_CHECKING:
    from data_pipelines.twins.source import Source

__all__ = [
    "HUES",
    "KINDS",
    "SHAPES",
    "SPLITS",
    "VERSION",
    "WORLDS",
    "Intervention",
    "Simulator",
    "make_episode",
    "make_group",
    "open_source",
    "project",
    "render",
    "sample_intervention",
    "simulate_from",
    "start",
    "static_of",
]


def open_source(directory: str, split: str, fields: Sequence[str] | None = None) -> Source:
    """Episodes of a built split, by index; see `source.Source`. Imports TFDS, hence here."""
    from data_pipelines.twins.source import Source

    return Source(directory, split, fields)
