"""A start that was made before finds its programs: the same ones, or none."""

import json
import os
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data_pipelines import window
from tests import tiny
from wm_jax import checkpoint, kept, updates
from wm_jax import config as configs
from wm_jax import mesh as meshes
from wm_jax.config import base_config, change
from wm_jax.models import build
from wm_jax.optim import make_optimizer
from wm_jax.train import train
from wm_jax.train_step import abstract_state, jit_train_step, make_train_step
from wm_jax.writers import read_rows

ON_FOUR = """
import shutil, sys
from pathlib import Path
from tests import test_updates as here
folder, changes = Path(sys.argv[1]), {"mesh__fsdp": 2, "train__window_doublings": ()}
here.run(folder / "first", **changes)
here.run(folder / "again", **changes)
shutil.copytree(folder / "first", folder / "resumed")
shutil.rmtree(folder / "resumed/checkpoints/6")
here.run(folder / "resumed", **changes)
assert [here.compiled(folder / n) for n in ("again", "resumed")] == [[True], [False, True]]
assert here.left(folder / "first") == here.left(folder / "again") == here.left(folder / "resumed")
"""
SMALL = {
    "model.name": "grid_gru",
    "model.size": "debug",
    "model.resolution": 16,
    "data.window": 6,
    "data.conditions": (),
    "train.batch_size": 4,
    "train.steps": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "train.clip_every": 0,
    "train.window_doublings": (0.5,),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A compilation cache of this file's own that takes every program."""
    folder = tmp_path_factory.mktemp("compiled")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(folder))
    jax.config.update(names[1], 0)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def config(**changes):
    return change(base_config(), SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def run(workdir, **changes):
    source, validation = tiny.episodes(resolution=16), tiny.episodes(2, resolution=16)
    return train(config(**changes), workdir, source=source, validation=validation)


def compiled(workdir):
    rows = read_rows(workdir / "events.jsonl")
    return [row["loaded"] for row in rows if row["event"] == "compiled"]


def programs(folder):
    return sorted(folder.glob("wm_jax_program_*"))


def left(workdir):
    """Everything a run left that takes part in what it learned."""
    manifests = [
        json.loads((workdir / f"checkpoints/{step}/manifest.json").read_text())["arrays"]
        for step in (3, 6)
    ]
    weights = [
        np.asarray(x).tobytes() for x in jax.tree.leaves(checkpoint.restore_params(workdir)[0])
    ]
    return tiny.rows(workdir), manifests, weights


@pytest.fixture(scope="module")
def first(cache, tmp_path_factory):
    """The first run of all: it compiles, for both windows of its curriculum."""
    workdir = tmp_path_factory.mktemp("first")
    run(workdir)
    return workdir


def test_a_start_that_was_made_before_loads_its_programs_and_learns_the_same(
    cache, first, tmp_path
):
    assert compiled(first) == [False] and len(programs(cache)) == 2
    run(tmp_path / "again", seed=0, train__log_every=1)
    assert compiled(tmp_path / "again") == [True]
    assert left(tmp_path / "again") == left(first)


def test_a_resumed_run_loads_and_ends_as_one_that_was_not_stopped(
    cache, first, tmp_path, monkeypatch
):
    shutil.copytree(first, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/6")
    monkeypatch.setattr(
        "wm_jax.train_step._creator", lambda *_: pytest.fail("a resumed run traced its state")
    )
    run(tmp_path / "run")
    assert compiled(tmp_path / "run") == [False, True]
    assert left(tmp_path / "run") == left(first)


def test_another_seed_and_another_length_need_no_other_programs(cache, first, tmp_path):
    run(tmp_path / "other", seed=5, train__steps=4, train__checkpoint_every=2)
    assert compiled(tmp_path / "other") == [True]
    assert tiny.rows(tmp_path / "other")[0] != tiny.rows(first)[0]


def test_damaged_programs_are_removed_and_made_anew(cache, first, tmp_path):
    mesh = meshes.make_mesh(config().mesh)
    key, path = updates.key_of(config(), mesh), programs(cache)[0]
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        path.write_bytes(content)
        assert updates.find(key, mesh) is None
        assert not path.exists()
    run(tmp_path / "run")
    assert compiled(tmp_path / "run") == [False]
    assert left(tmp_path / "run") == left(first)
    # JAX had the program in its own cache, and that one could not be run if it were kept.
    assert not path.exists()
    path.write_bytes(whole)
    assert updates.find(key, mesh).loaded


def test_after_a_change_that_changes_no_program_a_start_finds_them_again(
    cache, first, tmp_path, monkeypatch
):
    monkeypatch.setattr(updates, "_code", lambda _: "a comment was added")
    for number in range(2):
        run(tmp_path / str(number))
        assert compiled(tmp_path / str(number)) == [number > 0]
        assert left(tmp_path / str(number)) == left(first)


def test_knobs_that_no_program_depends_on_change_none():
    plain, changed = config(), config()
    for key, value in configs.flat(plain).items():
        if key.startswith(updates.OUTSIDE):
            change(changed, {key: _another(value)})
    assert len(configs.difference(plain, changed)) > 15
    assert _text(plain) == _text(changed)


def _another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return ("optimizer",)
    return f"{value}x" if isinstance(value, str) else value + 7


def _text(config):
    """The update, as a program before it is compiled."""
    model, optimizer = build(config.model), make_optimizer(config.optim)
    mesh, side = meshes.make_mesh(config.mesh), config.model.resolution
    first = meshes.to_batch(window.blank(1, 2, side, (), 0))
    state = abstract_state(model, optimizer, first, config.seed, mesh, config.train.ema)
    batch = meshes.shard_batch(window.blank(4, config.data.window, side, (), 0), mesh)
    step = make_train_step(model, optimizer, config.train.ema)
    return jit_train_step(step, state, mesh).lower(state, batch, np.float32(0)).as_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"model__dynamics__depth": 2},
        {"model__loss__prior": 2.0},
        {"data__window": 4},
        {"train__batch_size": 2},
        {"train__ema": 0.5},
        {"optim__clip_value": 0.1},
    ],
)
def test_other_knobs_have_other_programs(cache, changes):
    mesh = meshes.make_mesh(config().mesh)
    assert updates.key_of(config(), mesh) != updates.key_of(config(**changes), mesh)


def test_code_settings_and_surroundings_have_other_programs(cache, tmp_path, monkeypatch):
    mesh = meshes.make_mesh(config().mesh)
    keys = [updates.key_of(config(), mesh)]
    assert updates.key_of(config(), mesh) == keys[0]
    monkeypatch.setenv(
        "XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=false"
    )
    keys.append(updates.key_of(config(), mesh))
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", "highest")
    keys.append(updates.key_of(config(), mesh))
    jax.config.update("jax_default_matmul_precision", before)
    backbone = tmp_path / "my_backbone.py"
    monkeypatch.syspath_prepend(tmp_path)
    for content in ("a = 1\n", "a = 2\n"):
        backbone.write_text(content)
        __import__("my_backbone")
        keys.append(updates.key_of(config(), mesh))
    del sys.modules["my_backbone"]
    assert len(set(keys)) == len(keys) == 5


@pytest.mark.parametrize("folder", [None, "gs://bucket/cache"])
def test_without_a_cache_on_a_disk_nothing_is_kept(cache, folder):
    mesh = meshes.make_mesh(config().mesh)
    jax.config.update("jax_compilation_cache_dir", folder)
    try:
        assert updates.key_of(config(), mesh) is None
        assert updates.find(None, mesh) is None
    finally:
        jax.config.update("jax_compilation_cache_dir", str(cache))


def test_the_newest_files_stay(cache, monkeypatch):
    monkeypatch.setattr(kept, "COUNT", 3)
    for age in range(5):
        kept.write("value", str(age), age)
        os.utime(kept.path_of("value", str(age)), (time.time() - 1000 * (5 - age),) * 2)
    assert kept.read("value", "2") == 2  # which is in use again
    kept.write("value", "5", 5)
    assert [kept.read("value", str(age)) for age in range(6)] == [None, None, 2, None, 4, 5]


def test_a_full_disk_keeps_nothing(cache, two_megabytes):
    jax.config.update("jax_compilation_cache_dir", str(two_megabytes))
    try:
        kept.write("value", "large", bytes(3_000_000))
        assert not list(two_megabytes.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", str(cache))


def test_a_cache_that_may_only_be_read_is_read(cache, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "read-only file system")

    kept.write("value", "whole", 1)
    kept.write("value", "damaged", 2)
    kept.path_of("value", "damaged").write_bytes(b"x")
    for owner, name in ((os, "utime"), (kept.Path, "unlink"), (kept.Path, "write_bytes")):
        monkeypatch.setattr(owner, name, refuse)
    assert kept.read("value", "whole") == 1
    assert kept.read("value", "damaged") is None
    kept.write("value", "new", 3)
    assert kept.read("value", "new") is None


def test_a_program_that_cannot_be_kept_is_run_all_the_same(cache, monkeypatch):
    def refuse(_):
        raise NotImplementedError("serialize_executables with const_args")

    monkeypatch.setattr(kept.serialize_executable, "serialize", refuse)
    before = programs(cache)
    lowered = jax.jit(lambda x: x + 41).lower(1)
    program, name = kept.compiled(lowered, meshes.make_mesh(config().mesh), {})
    assert program(1) == 42
    assert programs(cache) == before and not kept.path_of(kept.PROGRAM, name).exists()


@pytest.mark.slow
@pytest.mark.ci
def test_on_a_mesh_a_start_finds_its_programs_too(tmp_path):
    """Weights split over two devices, windows over four."""
    told = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": "."}
    told |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    told |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", ON_FOUR, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
