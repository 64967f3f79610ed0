"""A small twins world in memory, at 32 px, shared by the evaluation's tests."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.twins import make_episode
from wm_jax.config import base_config
from wm_jax.evaluation.judge import Run, judge
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import TwinsWorld
from wm_jax.models.baselines import CopyLast


def twins_world(name: str, resolution: int, episodes: int, length: int) -> TwinsWorld:
    @functools.cache
    def source(split: str, fields: tuple[str, ...]):
        return [
            make_episode(name, i, split=split, length=length, resolution=resolution, sound=False)
            for i in range(episodes)
        ]

    return TwinsWorld(name, resolution, source)


@pytest.fixture(scope="session")
def world():
    return twins_world("twins:motion", 32, episodes=5, length=100)


@pytest.fixture(scope="session")
def full_world():
    return twins_world("twins:full", 64, episodes=5, length=48)


@pytest.fixture(scope="session")
def protocol(world):
    return Protocol(
        world=world.name, resolution=32, episodes=5, starts=(0, 40), context=12, horizon=30
    )


@pytest.fixture(scope="session")
def clips(world, protocol):
    return world.clips("test", protocol.length, protocol.starts, protocol.episodes)


@pytest.fixture(scope="session")
def instrument(world):
    return Instrument(world.palette, world.resolution)


@pytest.fixture(scope="session")
def judged(world, protocol):
    """The report and the result of a run whose model is copy-last, judged as any other."""
    model, params = CopyLast((32, 32)), {"none": np.zeros(3)}
    run = Run(Path("runs/a"), model, params, base_config(), updates=7)
    few = dataclasses.replace(protocol, episodes=3)
    return judge({"default": run}, world, few, "wm-jax evaluate --workdir runs/a")
