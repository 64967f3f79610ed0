"""The TFDS builder of twins: array_record files, no TensorFlow, episodes made in parallel."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.episode import EPISODE, TEXT, Field
from data_pipelines.twins.generate import KINDS, Episode, make_group
from data_pipelines.twins.world import VERSION

_SCENES_A_SEED = 10_000_000  # build seed s takes the scenes from s times this on
_IN_FLIGHT = 2  # finished groups a worker may be ahead of the writer


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set, wholly: the same plan and version give the same episodes."""

    world: str
    scenes: dict[str, int]  # of each split
    twins: int  # counterfactual episodes a scene
    resolution: int
    length: int  # frames, of train and validation
    test_length: int  # frames, of the test sets
    seed: int
    version: str = VERSION
    kinds: str = ""  # of interventions, by commas; all of them if empty

    def length_of(self, split: str) -> int:
        return self.length if split in ("train", "validation") else self.test_length

    @property
    def episodes(self) -> dict[str, int]:
        return {split: count * (1 + self.twins) for split, count in self.scenes.items()}


@dataclasses.dataclass
class TwinsConfig(tfds.core.BuilderConfig):
    """A plan, and how many processes work at it."""

    plan: Plan | None = None
    workers: int = 1
    progress: Any = None  # called with a number of frames


class Twins(tfds.core.GeneratorBasedBuilder):
    """Use it through `build`; reading needs only `tfds.builder_from_directory`."""

    VERSION = tfds.core.Version(VERSION)
    builder_config: TwinsConfig

    @property
    def plan(self) -> Plan:
        assert self.builder_config.plan is not None
        return self.builder_config.plan

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Counterfactual twins: rigid bodies in the plane, one change, two futures.",
            features=episode_features(self._example()),
            disable_shuffling=True,
        )

    def _example(self) -> Episode:
        """Any episode of this plan's sizes, for the features."""
        return make_group(self.plan.world, 0, resolution=self.plan.resolution)[0]

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self.plan.scenes}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        for group in generate_groups(self.plan, split, self.builder_config.workers):
            for episode in group:
                yield key, nested(episode)
                key += 1
                if self.builder_config.progress:
                    self.builder_config.progress(len(episode["frames"]))


def generate_groups(plan: Plan, split: str, workers: int) -> Iterator[list[Episode]]:
    """The twin groups of a split in order, whatever the number of worker processes."""
    jobs = scene_numbers(plan, split)
    if workers <= 1:
        for number in jobs:
            yield _group(plan, split, number)
        return
    # spawn: fork is unsafe once threads run (a reader's, jax's)
    context = multiprocessing.get_context("spawn")
    quiet = (signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C is the parent's to handle
    with concurrent.futures.ProcessPoolExecutor(workers, context, *quiet) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for number in jobs:
                waiting.append(pool.submit(_group, plan, split, number))
                if len(waiting) > workers * _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _group(plan: Plan, split: str, number: int) -> list[Episode]:
    length = plan.length_of(split)
    kinds = plan.kinds.split(",") if plan.kinds else KINDS
    sizes = length, plan.resolution
    return make_group(plan.world, number, split, *sizes, twins=plan.twins, kinds=kinds)


def scene_numbers(plan: Plan, split: str) -> range:
    """The numbers of a split's scenes, other ones for every build seed."""
    first = plan.seed * _SCENES_A_SEED
    return range(first, first + plan.scenes[split])


def nested(episode: Episode) -> dict[str, Any]:
    """'truth/position' to ['truth']['position'], as TFDS wants it."""
    tree: dict[str, Any] = {}
    for key, value in episode.items():
        *folders, leaf = key.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def episode_features(example: Episode) -> tfds.features.FeaturesDict:
    """TFDS features for episodes like this one: T, E and K may differ between episodes."""

    def feature(field: Field, value: Any) -> Any:
        if field.dtype == TEXT:
            text = tfds.features.Text()
            return tfds.features.Sequence(text) if field.shape else text
        sizes = zip(field.shape, np.shape(value), strict=True)
        shape = tuple(None if axis in ("T", "E", "K") else size for axis, size in sizes)
        # raw bytes: 280k frames/s to read, ten times the default encoding
        how = "bytes" if len(shape) > 1 else "none"
        return tfds.features.Tensor(shape=shape, dtype=np.dtype(field.dtype), encoding=how)

    flat = {key: feature(EPISODE.fields[key], value) for key, value in example.items()}
    return tfds.features.FeaturesDict(nested(flat))
