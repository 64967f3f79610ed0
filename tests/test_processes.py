"""Several processes as one run: told of each other, stopped together, resumed to the bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from wm_jax import checkpoint, processes
from wm_jax.errors import UserError
from wm_jax.stop import StopRequest

ROOT = Path(__file__).parent.parent
THREE = {
    "JAX_COORDINATOR_ADDRESS": "a:1",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


def test_what_a_launcher_tells_is_what_jax_is_told():
    assert processes.settings(THREE) == {
        "coordinator_address": "a:1",
        "num_processes": 4,
        "process_id": 3,
    }
    assert processes.settings({"WM_JAX_CLUSTER": "auto"}) == {}
    slurm = {"WM_JAX_CLUSTER": "slurm"}
    assert processes.settings(slurm) == {"cluster_detection_method": "slurm"}


def test_nobody_waits_for_others_unless_asked_to():
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "JAX_COORDINATOR_ADDRESS": "a:1"}
    assert processes.settings(allocation) is None
    processes.join({})  # would fail: devices have been used
    assert type(processes.stop_request()) is StopRequest


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID must be set too"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, "JAX_COORDINATOR_ADDRESS must be set too"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two is not a whole number"),
        ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 and JAX_NUM_PROCESSES=4: .* numbered from 0"),
        ({"WM_JAX_CLUSTER": "slrum"}, "WM_JAX_CLUSTER=slrum is none of auto, slurm"),
    ],
)
def test_a_launcher_that_tells_half_is_one_sentence(change, sentence):
    with pytest.raises(UserError, match=sentence):
        processes.settings(THREE | change)


#: Trains the tiny model in two processes. Where a number is given, process 1 alone gets SIGTERM as
#: it asks for that batch, and batches are slow from then on.
TWO = """
import json, os, signal, sys, time
from pathlib import Path
from wm_jax import processes
processes.join()
import jax
from data_pipelines.memory import MemoryLoader
from tests import tiny

assert jax.device_count() == 4
served, serve, at = 0, MemoryLoader.__next__, int(sys.argv[2])
def serve_and_signal(loader):
    global served
    served += 1
    if served == at and jax.process_index() == 1:
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    if at and served >= at:
        time.sleep(0.1)
    return serve(loader)
MemoryLoader.__next__ = serve_and_signal
result = tiny.train(Path(sys.argv[1]), train__steps=120, train__checkpoint_every=60, mesh__fsdp=2)
print(json.dumps(result), flush=True)
"""


def local_hosts(*command, hosts=2, **environment):
    """Runs a command in processes that have four devices together; results as JSON, in the
    processes' order."""
    start = [sys.executable, "-m", "wm_jax.launch.local_hosts", str(hosts)]
    start += ["--devices", str(4 // hosts), "--"]
    done = subprocess.run(
        [*start, sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(done.stdout.splitlines())  # results alone: Gloo's greetings are on stderr
    return [json.loads(line[4:]) for line in lines], done.stderr


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(("number", "hosts"), [("SIGTERM", 2), ("SIGINT", 1)])
def test_a_signal_to_one_stops_both_and_the_same_command_goes_on(tmp_path, number, hosts):
    """On as many hosts, or on one that has all devices."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    local_hosts("-c", TWO, str(whole), "0", number, **cache)
    (first, second), told = local_hosts("-c", TWO, str(stopped), "20", number, **cache)
    assert first["stopped"] and second["stopped"] and first["step"] == second["step"]
    assert 19 <= first["step"] < 60
    assert told.count("the same command goes on") == 1  # of several processes one tells
    assert checkpoint.steps(stopped / "checkpoints") == [first["step"]]
    local_hosts("-c", TWO, str(stopped), "0", number, hosts=hosts, **cache)
    assert tiny.digest(stopped, 120) == tiny.digest(whole, 120)
    assert tiny.rows(stopped) == tiny.rows(whole)


#: Every process reads its rows of one batch; prints what mesh it did so on.
DEALT = """
import json
from types import SimpleNamespace
from wm_jax import processes
processes.join()
import jax, numpy as np
from tests import tiny
from wm_jax import mesh as meshes

whole, seen = tiny.arrays(batch=8), {}
three = (4, 1, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2), (1, 1, 4)
for sizes in (*three, (2, 1, 1, 2), (1, 1, 1, 4), (1, 1, 2, 2)):
    mesh = meshes.make_mesh(SimpleNamespace(**dict(zip(meshes.AXES, (*sizes, 1)))))
    rows = meshes.rows_of_process(mesh, 8)
    own = {name: array[list(rows)] for name, array in whole.items()}
    batch = meshes.shard_batch(own, mesh)
    assert batch.frames.sharding == meshes.batch_sharding(mesh, frames=True)
    assert batch.frames.shape[0] == 8
    for name, got in (("frames", batch.frames), ("is_first", batch.is_first)):
        assert len(got.addressable_shards) == 2
        for shard in got.addressable_shards:
            assert (np.asarray(shard.data) == whole[name][shard.index]).all()
    seen["x".join(map(str, sizes))] = rows
print(json.dumps(seen), flush=True)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_what_a_process_read_is_what_its_devices_hold():
    (first, second), _ = local_hosts("-c", DEALT)
    for mesh, rows in first.items():
        assert sorted({*rows, *second[mesh]}) == list(range(8)), mesh
    assert first["2x2x1"] == [0, 1, 4, 5] and second["2x2x1"] == [2, 3, 6, 7]
    assert first["1x1x4"] == second["1x1x4"]  # they share the work on all of them
    assert first["1x1x1x4"] == second["1x1x1x4"]


#: Trains a few updates on four devices, in several ways.
FEW = """
import json, sys
from pathlib import Path
from wm_jax import processes
processes.join()
from tests import tiny
from tests.test_carried import ON, Carries

few = {"train__steps": 12, "train__log_every": 1}
ways = {
    "grain": few | {"mesh__fsdp": 2, "data__loader": "grain", "data__workers": 0},
    "carried": ON | {"mesh__fsdp": 2},
    "tensor": few | {"mesh__data": 1, "mesh__tensor": 4},
    "cells": few | {"mesh__data": 2, "mesh__cells": 2},
}
for name, settings in ways.items():
    tiny.train(Path(sys.argv[1]) / name, Carries() if name == "carried" else None, **settings)
print(json.dumps(list(ways)), flush=True)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_losses_on_two_processes_are_those_on_one(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    one, two = tmp_path / "one", tmp_path / "two"
    (ways,), _ = local_hosts("-c", FEW, str(one), hosts=1, **cache)
    local_hosts("-c", FEW, str(two), **cache)
    for way in ways:
        assert tiny.rows(two / way) == tiny.rows(one / way), way


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_train_a_real_model_and_resume(tmp_path):
    from data_pipelines.twins.build import build, make_plan

    plan = make_plan("twins:motion", train=8, validation=2, test=1, resolution=32, length=16)
    build(plan, str(tmp_path / "data"), progress=False)
    run = tmp_path / "run"
    command = ["-m", "wm_jax", "train", "--config", "experiments/configs/twins.py:debug", "--json"]
    command += [f"--config.data.directory={tmp_path / 'data'}", "--workdir", str(run)]
    command += [f"--config.train.{knob}" for knob in ("steps=4", "checkpoint_every=2")]
    command += ["--config.train.clip_every=4", "--config.train.log_every=1"]
    (result,), told = local_hosts(*command)
    assert result["step"] == 4
    assert "for 4 cpu device(s)" in told and (run / "clips/000004.gif").exists()
    assert checkpoint.steps(run / "checkpoints") == [2, 4]
    rows = tiny.rows(run)
    shutil.rmtree(run / "checkpoints/4")
    _, told = local_hosts(*command)
    assert f"resuming {run} after update 2" in told
    assert tiny.rows(run) == rows
