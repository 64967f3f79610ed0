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
    if hosts == 2:
        assert tiny.digest(stopped, 120) == tiny.digest(whole, 120)
        assert tiny.rows(stopped) == tiny.rows(whole)
        return
    # The same windows in every batch: others differ by a hundredth and more. But with fsdp two
    # processes hold rows 0, 2 and 1, 3 of it (`mesh.BATCH_AXES`) and one 0, 1, 2, 3, so windows
    # meet another row's noise: up to two in ten thousand.
    for one, other in zip(tiny.rows(stopped), tiny.rows(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


#: Two devices of each process share the work on its windows; four of both would share windows.
SHARED = """
import json
from types import SimpleNamespace
from wm_jax import processes
processes.join()
import jax, numpy as np
from tests import tiny
from wm_jax import mesh as meshes
from wm_jax.errors import UserError

own = tiny.arrays(batch=2, seed=jax.process_index())
mesh = meshes.make_mesh(SimpleNamespace(data=-1, fsdp=1, tensor=2))
frames = meshes.shard_batch(own, mesh).frames
assert frames.shape[0] == 4 and len(frames.addressable_shards) == 2
assert all((np.asarray(shard.data) == own["frames"]).all() for shard in frames.addressable_shards)
try:
    meshes.make_mesh(SimpleNamespace(data=1, fsdp=1, tensor=4))
except UserError as refused:
    print(json.dumps(str(refused)), flush=True)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_devices_that_share_work_have_the_windows_of_their_own_process():
    told, _ = local_hosts("-c", SHARED)
    assert len(told) == 2 and "would join devices of several processes" in told[0]


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
