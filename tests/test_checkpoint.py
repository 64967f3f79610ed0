"""Checkpoints: what was saved comes back, and what was damaged never does."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from wm_jax import checkpoint, mesh, optim
from wm_jax.config import base_config, from_json, to_json
from wm_jax.errors import UserError
from wm_jax.train_step import init_state, jit_train_step, make_train_step

POSITION = {"batches": 7}


@pytest.fixture(scope="module")
def setup():
    config = base_config()
    model, optimizer = tiny.TinyModel(), optim.make_optimizer(config.optim)
    devices = mesh.make_mesh(config.mesh)
    batch = mesh.shard_batch(tiny.arrays(), devices)
    state = init_state(model, optimizer, batch, 0, devices, ema=0.9)
    step = jit_train_step(make_train_step(model, optimizer, ema=0.9), state, devices)
    return config, batch, state, step


def copy(state):
    return jax.tree.map(jnp.copy, state)


def saved(tmp_path, setup, count=3, keep=2):
    """A folder with the last ``keep`` of ``count`` checkpoints, and the states they hold."""
    config, batch, state, step = setup
    checkpoints = checkpoint.Checkpoints(tmp_path, checkpoint.Keep(keep))
    states, state = {}, copy(state)
    for _ in range(count):
        state, _ = step(state, batch, 1e-2)
        states[int(state.step)] = copy(state)
        checkpoints.save(state, POSITION, config)
    checkpoints.wait()
    return checkpoints, states


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def largest_file(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_everything_comes_back_and_only_the_newest_are_kept(tmp_path, setup):
    checkpoints, states = saved(tmp_path, setup)
    assert checkpoint.steps(checkpoints.directory) == [2, 3]
    assert checkpoints.newest() == 3
    restored = checkpoints.restore(3, setup[2])
    assert_same(restored.state, states[3])
    assert restored.position == POSITION
    assert not checkpoints.notes


def test_a_state_may_be_donated_while_it_is_being_written(tmp_path, setup):
    config, batch, state, step = setup
    checkpoints = checkpoint.Checkpoints(tmp_path)
    state = copy(state)
    want = copy(state)
    checkpoints.save(state, POSITION, config)
    for _ in range(20):
        state, _ = step(state, batch, 1e-1)
    checkpoints.wait()
    assert_same(checkpoints.restore(0, setup[2]).state, want)


def test_weights_alone_come_back_averaged_with_their_config(tmp_path, setup):
    _, states = saved(tmp_path, setup)
    params, config, step = checkpoint.restore_params(tmp_path)
    assert step == 3
    assert_same(params, states[3].ema)
    assert to_json(config) == to_json(setup[0]) == to_json(from_json(to_json(config)))
    assert_same(checkpoint.restore_params(tmp_path, step=2)[0], states[2].ema)


def test_one_flipped_bit_is_noticed_and_the_step_before_is_used(tmp_path, setup):
    checkpoints, states = saved(tmp_path, setup)
    file = largest_file(checkpoints.directory / "3" / "weights")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert checkpoint.restore_params(tmp_path)[2] == 2
    assert checkpoints.newest() == 2
    assert "3 is damaged: the content of weights" in checkpoints.notes[0]
    assert_same(checkpoints.restore(2, setup[2]).state, states[2])


@pytest.mark.parametrize("harm", ["empty", "no manifest", "missing file", "half a manifest"])
def test_a_step_that_is_not_whole_is_passed_over(tmp_path, setup, harm):
    checkpoints, _ = saved(tmp_path, setup)
    path = checkpoints.directory / "3"
    if harm == "empty":
        (checkpoints.directory / "9").mkdir()
        assert checkpoints.newest() == 3
        return
    if harm == "no manifest":
        (path / "manifest.json").unlink()
    if harm == "missing file":
        largest_file(path).unlink()
    if harm == "half a manifest":
        text = (path / "manifest.json").read_text()
        (path / "manifest.json").write_text(text[: len(text) // 2])
    assert checkpoints.newest() == 2
    assert len(checkpoints.notes) == 1


def test_leftovers_of_a_killed_save_are_removed(tmp_path, setup):
    checkpoints, _ = saved(tmp_path, setup)
    leftover = checkpoints.directory / "4.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints.directory / "3", leftover)
    checkpoint.Checkpoints(tmp_path)
    assert not leftover.exists()
    assert checkpoint.steps(checkpoints.directory) == [2, 3]


@pytest.mark.parametrize("change", ["dtype", "shape", "missing"])
def test_a_state_of_another_model_is_refused(tmp_path, setup, change):
    checkpoints, _ = saved(tmp_path, setup, count=1)
    params = {k: dict(v) for k, v in setup[2].params.items()}
    kernel = params["encoder"]["kernel"]
    if change == "dtype":
        params["encoder"]["kernel"] = kernel.astype(jnp.bfloat16)
    if change == "shape":
        params["encoder"]["kernel"] = kernel[:, :3]
    if change == "missing":
        del params["encoder"]["kernel"]
    with pytest.raises(UserError, match=r"params/encoder/kernel is float32 \[192, 16\] there and"):
        checkpoints.restore(1, setup[2]._replace(params=params))


def test_a_workdir_without_checkpoints_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no whole checkpoint; train there first"):
        checkpoint.restore_params(tmp_path)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(two_megabytes, setup):
    checkpoints, states = saved(two_megabytes, setup, count=1)
    config, batch, state, step = setup
    free = shutil.disk_usage(two_megabytes).free
    (two_megabytes / "ballast").write_bytes(os.urandom(free - 60_000))
    state, _ = step(copy(states[1]), batch, 1e-2)
    with pytest.raises(UserError, match=r"the disk is full: .*newest whole one is .*/1"):
        checkpoints.save(state, POSITION, config)
        checkpoints.wait()
    assert [p.name for p in checkpoints.directory.iterdir()] == ["1"]
    assert_same(checkpoint.restore_params(two_megabytes)[0], states[1].ema)
    (two_megabytes / "ballast").unlink()
    checkpoints.save(state, POSITION, config)
    checkpoints.wait()
    assert checkpoints.newest() == 2


def test_the_manifest_lists_every_file(tmp_path, setup):
    checkpoints, _ = saved(tmp_path, setup, count=1)
    path = checkpoints.directory / "1"
    listed = set(json.loads((path / "manifest.json").read_text())["files"])
    there = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert listed == there - {"manifest.json"}


ON_FOUR = """
import sys
import jax
from pathlib import Path
from tests import tiny
assert len(jax.devices()) == 4
tiny.train(Path(sys.argv[1]), mesh__data=2, mesh__fsdp=2, train__steps=20)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_a_checkpoint_of_four_devices_comes_back_on_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    command = [sys.executable, "-c", ON_FOUR, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = tmp_path / "alone"
    tiny.train(alone, train__steps=20)
    many, one = checkpoint.restore_params(tmp_path)[0], checkpoint.restore_params(alone)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, one)
    # and the run goes on, on one device
    assert tiny.train(tmp_path, train__steps=20)["step"] == 20


def test_the_best_and_every_so_many_stay_beside_the_newest(tmp_path, setup):
    config, _, state, _ = setup
    keep = checkpoint.Keep(last=1, every=4, best="clip/psnr_db")
    scores = {1: 20.0, 2: 30.0, 3: 25.0, 6: 29.0}
    for number in range(1, 8):
        # A process of its own each time: what stays is told by the disk alone.
        checkpoints = checkpoint.Checkpoints(tmp_path, keep)
        told = {"clip/psnr_db": scores[number]} if number in scores else None
        state = copy(state)._replace(step=jnp.int32(number))
        checkpoints.save(state, POSITION, config, told)
        checkpoints.wait()
    assert checkpoint.steps(checkpoints.directory) == [2, 4, 7]


@pytest.mark.parametrize("harm", ["key", "shape", "number"])
def test_a_manifest_that_changed_is_noticed(tmp_path, setup, harm):
    checkpoints, _ = saved(tmp_path, setup)
    path = checkpoints.directory / "3" / "manifest.json"
    old, new = {"key": ('"files"', '"filez"'), "shape": ("[192, 16]", "[193, 16]")}.get(
        harm, ('"scores": {}', '"scores": {"clip/psnr_db": 99}')
    )
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert checkpoint.damage(path.parent) == "is damaged: manifest.json cannot be read"
    assert checkpoint.restore_params(tmp_path)[2] == 2
    assert checkpoints.newest() == 2


def test_a_manifest_of_an_earlier_version_still_counts(tmp_path, setup):
    checkpoints, states = saved(tmp_path, setup)
    path = checkpoints.directory / "3" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ("files", "arrays")}))
    assert checkpoints.newest() == 3
    assert_same(checkpoints.restore(3, setup[2]).state, states[3])
