"""Building a data set on disk: whole or not at all, and never over a different one."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from data_pipelines.twins import proof
from data_pipelines.twins.interventions import KINDS
from data_pipelines.twins.source import PLAN_FILE, read_plan
from data_pipelines.twins.world import SHIFTED, WORLDS, get_world, scene_seed
from wm_jax.errors import MissingExtra, UserError
from wm_jax.progress import Progress

try:
    from data_pipelines.twins.builder import Plan, Twins, TwinsConfig
except ImportError:  # pragma: no cover
    raise MissingExtra("tensorflow-datasets", "data") from None

# Counterfactuals a scene, unless told otherwise.
TWINS = {"twins:motion": 0, "twins:keys": 0, "twins:full": 3}


def make_plan(
    world: str,
    *,
    train: int = 1000,
    validation: int = 50,
    test: int = 50,
    shifted: int = 0,
    twins: int | None = None,
    resolution: int = 64,
    length: int = 64,
    test_length: int = 640,
    seed: int = 0,
    kinds: str = "",
) -> Plan:
    """A checked Plan; counts are scenes, `shifted` of each shifted test set, `kinds` those of
    interventions, by commas. Raises UserError."""
    name = get_world(world).name
    counts = {"train": train, "validation": validation, "test": test}
    counts |= dict.fromkeys(SHIFTED, shifted)
    if min(counts.values()) < 0 or not any(counts.values()):
        raise UserError("The number of scenes can't be negative, and one split must have some.")
    twins = TWINS[name] if twins is None else twins
    if resolution not in (32, 64, 128):
        raise UserError(f"--resolution {resolution} isn't drawn; choose 32, 64 or 128.")
    if min(length, test_length) < (33 if twins else 2):
        raise UserError(
            "Episodes must have at least 33 frames with twins and 2 without; raise --length or "
            "--test-length."
        )
    if not 0 <= seed < 10**6:
        raise UserError(f"--seed {seed} is outside 0 to 999999; choose another.")
    scenes = {split: count for split, count in counts.items() if count}
    unknown = sorted({*kinds.split(",")} - {*KINDS}) if kinds else []
    if unknown:
        raise UserError(f"--kinds has '{unknown[0]}'; there are {', '.join(KINDS)}.")
    if kinds and not twins:
        raise UserError("--kinds are those of counterfactuals; ask for some with --twins.")
    sizes = resolution, length, test_length
    return Plan(name, scenes, twins, *sizes, seed, kinds=kinds)


def build(plan: Plan, directory: str, workers: int = 1, progress: bool = True) -> dict[str, Any]:
    """Write the data set, unless it is there already. Returns a summary.

    It grows in a hidden folder beside `directory` and is renamed when it is whole, so a build
    that is stopped leaves nothing under its name. Raises UserError where `directory` holds
    something else, or the disk is full.
    """
    directory = os.path.abspath(directory)
    started, built = time.monotonic(), not _is_built(plan, directory)
    if built:
        parent, name = os.path.split(directory)
        work = os.path.join(parent, f".{name}.building")
        shutil.rmtree(work, ignore_errors=True)  # what a killed build left
        try:
            os.makedirs(work)
            _write(plan, work, directory, workers, progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"The disk of {parent} is full; free some space, or ask for fewer scenes."
            ) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return _summary(plan, directory, built, time.monotonic() - started)


def _is_built(plan: Plan, directory: str) -> bool:
    if not os.path.exists(directory) or not os.listdir(directory):
        return False
    try:
        there = read_plan(directory)["plan"]
    except UserError:
        raise UserError(
            f"{directory} holds something that isn't a data set; choose another --out."
        ) from None
    wanted = dataclasses.asdict(plan)
    there = {"kinds": ""} | there  # not yet written by an earlier version
    differing = [f"{k} is {there.get(k)}, not {v}" for k, v in wanted.items() if there.get(k) != v]
    if differing:
        raise UserError(
            f"{directory} holds another data set ({'; '.join(differing)}); choose another --out, "
            "or remove it first."
        )
    return True


def _adder(bar: Progress) -> Callable[[int], None]:
    """Counts up: the bar takes totals, the builder tells frames by frames."""
    done = 0

    def add(frames: int) -> None:
        nonlocal done
        done += frames
        bar.update(done)

    return add


@contextlib.contextmanager
def _shuffle_in_memory() -> Iterator[None]:
    """TFDS spills a split of more than 1 GB to disk while it writes, and needs TensorFlow for that
    (4.9.10, also with ``disable_shuffling``). Held in memory, a split needs its own size in RAM."""
    from tensorflow_datasets.core import shuffle

    limit, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, sys.maxsize
    try:
        yield
    finally:
        shuffle.MAX_MEM_BUFFER_SIZE = limit


def _write(plan: Plan, work: str, directory: str, workers: int, progress: bool) -> None:
    import tensorflow_datasets as tfds
    from absl import logging

    tfds.disable_progress_bar()  # one bar of ours in place of five
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every configuration made in code
    frames = sum(n * plan.length_of(split) for split, n in plan.episodes.items())
    stream = None if progress else io.StringIO()
    bar = Progress(frames, plan.world, "frames", stream=stream)
    with bar, contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
        config = TwinsConfig(
            name=plan.world.removeprefix("twins:"), plan=plan, workers=workers, progress=_adder(bar)
        )
        builder = Twins(config=config, data_dir=work, file_format="array_record")
        with _shuffle_in_memory():
            builder.download_and_prepare()
    logging.set_verbosity(verbosity)
    record = {
        "plan": dataclasses.asdict(plan),
        "split_hashes": {split: split_hash(plan, split) for split in plan.scenes},
        "files": proof.files_of(builder.data_dir),
    }
    with open(os.path.join(builder.data_dir, PLAN_FILE), "w", encoding="utf-8") as file:
        json.dump(proof.sealed(record), file, indent=1)
    if os.path.isdir(directory):
        os.rmdir(directory)  # empty, or _is_built would have refused
    os.replace(builder.data_dir, directory)


def split_hash(plan: Plan, split: str) -> str:
    """16 hex digits of the scene seeds of a split; protocols quote it."""
    from data_pipelines.twins.builder import scene_numbers

    digest = hashlib.blake2b(digest_size=8)
    for number in scene_numbers(plan, split):
        digest.update(scene_seed(plan.world, split, number).to_bytes(8, "little"))
    return digest.hexdigest()


def _summary(plan: Plan, directory: str, built: bool, seconds: float) -> dict[str, Any]:
    paths = [os.path.join(directory, name) for name in os.listdir(directory)]
    frames = sum(n * plan.length_of(split) for split, n in plan.episodes.items())
    return {
        "directory": directory,
        "built": built,
        **dataclasses.asdict(plan),
        "episodes": plan.episodes,
        "frames": frames,
        "bytes": sum(os.path.getsize(path) for path in paths),
        "seconds": round(seconds, 2),
        "frames_per_second": round(frames / seconds, 1) if built else None,
        "split_hashes": read_plan(directory)["split_hashes"],
    }


assert set(TWINS) == set(WORLDS)
