"""Workers as processes: they run at once, apart, are done once, and are gone when we go."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from wm_jax.errors import UserError
from wm_jax.studies import pool, provenance
from wm_jax.studies.plan import Job

ROOT = Path(__file__).parents[2]

#: Stands in for the worker's module: writes down that it ran, and does what its job says.
FAKE = """
import json, os, signal, sys, time
job = json.loads(open(sys.argv[1]).read())
with open(job["trace"], "a") as file:
    file.write(json.dumps({"name": job["arm"], "cores": job["cores"], "pid": os.getpid(),
        "flags": os.environ.get("XLA_FLAGS"), "cache": os.environ["JAX_COMPILATION_CACHE_DIR"]}))
    file.write("\\n")
if job["does"] == "fail":
    print("the disk is full", file=sys.stderr)
    sys.exit(2)
if job["does"] == "wait":
    sys.stdin.buffer.read()
    open(job["saved"], "w").close()
    sys.exit(130)
json.dump({"identity": job["identity"]}, open(job["result"], "w"))
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """`pool` starts `FAKE`; returns a function that makes jobs."""
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    real = subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, str(script), command[-1]], **options)

    monkeypatch.setattr(pool.subprocess, "Popen", popen)

    def job(name, does="finish"):
        content = {
            "arm": name,
            "identity": name,
            "does": does,
            "trace": str(tmp_path / "trace"),
            "saved": str(tmp_path / f"{name}.saved"),
        }
        return Job(name, content, tmp_path / name, tmp_path / f"{name}.json")

    return job


def trace(tmp_path):
    return [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]


def run(jobs, at_once=1, quick=False, cold=False):
    pool.run_all("trial", jobs, at_once=at_once, quick=quick, cold=cold)


def test_what_is_done_is_not_done_again(fake, tmp_path, capsys):
    jobs = [fake("a"), fake("b"), fake("c")]
    jobs[1].result.write_text(json.dumps({"identity": "b"}))
    run(jobs)
    assert [line["name"] for line in trace(tmp_path)] == ["a", "c"]
    run(jobs)
    assert len(trace(tmp_path)) == 2
    assert "trial 3/3 runs" in capsys.readouterr().err


def test_a_failure_is_told_with_its_last_line_and_others_save_and_leave(fake, tmp_path):
    if len(provenance.cores()) < 2:
        pytest.skip("two workers need two cores")
    jobs = [fake("patient", "wait"), fake("broken", "fail"), fake("never")]
    with pytest.raises(UserError, match="broken failed: the disk is full .*log.txt"):
        run(jobs, at_once=2)
    assert (tmp_path / "patient.saved").exists()
    assert {line["name"] for line in trace(tmp_path)} == {"patient", "broken"}


def test_workers_that_run_at_once_share_no_core(fake, tmp_path):
    if len(provenance.cores()) < 2:
        pytest.skip("two workers need two cores")
    run([fake("a"), fake("b")], at_once=2)
    first, second = (set(line["cores"]) for line in trace(tmp_path))
    assert first and len(first) == len(second)
    assert not first & second
    with pytest.raises(UserError, match="--jobs 4096 is more than"):
        run([fake("c")], at_once=4096)


def test_cold_runs_compile_for_themselves_and_quick_ones_without_optimising(fake, tmp_path):
    run([fake("a"), fake("b")], cold=True)
    run([fake("c"), fake("d")], quick=True)
    a, b, c, d = trace(tmp_path)
    assert len({a["cache"], b["cache"], c["cache"]}) == 3
    assert c["cache"] == d["cache"]
    assert pool.QUICK in c["flags"]
    assert a["flags"] is None or pool.QUICK not in a["flags"]


STUDY = """
from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

GRU = {
    "model.name": "grid_gru", "model.patch": 8, "model.dynamics.hidden": 8, "data.window": 8,
    "model.dynamics.width": 8, "train.batch_size": 2, "train.log_every": 1,
}
SCALE = Scale(
    budget=Budget(frames=16 * UPDATES),
    tuning=Budget(frames=16 * 3),
    seeds=(0,),
    data=Data("twins:motion", 32, train=4, validation=2, test=2, length=32, test_length=40),
    steps=(1, 4), horizon=4, starts=(0,), episodes=2, samples=2, jobs=JOBS, quick=True,
)
STUDY = Study(
    claims=(Claim("A is ahead.", "nobody", "a", "b", "position_error", 4, "lower", 0.1),),
    base="experiments/configs/twins.py:quickstart",
    arms={"a": Arm(GRU, (1e-3, 2e-3)), "b": Arm({**GRU, "model.dynamics.hidden": 4}, (1e-3, 2e-3))},
    scales={"smoke": SCALE},
)
"""


def reproduce(folder, *options):
    """The command in ``folder``, as a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "wm_jax", "reproduce", "trial.py", "--scale", "smoke"]
    return subprocess.Popen(
        [*command, *options], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_goes_on_after_a_kill(tmp_path):
    jobs = "2" if len(provenance.cores()) > 1 else "1"
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "trial.py").write_text(STUDY.replace("UPDATES", "400").replace("JOBS", jobs))
    runs = tmp_path / "runs" / "studies" / "trial" / "smoke" / "runs"
    first = reproduce(tmp_path)
    # As soon as the first arm is learning: after data and tuning.
    metrics = runs / "a-0" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_bytes().splitlines()) > 20, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    tuned = {path: path.stat().st_mtime_ns for path in runs.parent.glob("results/tuning/*.json")}
    assert len(tuned) == 4
    second = reproduce(tmp_path, "--json")
    out, err = second.communicate()
    assert second.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["verdict"] == "undecided", "one seed"
    assert {row["arm"] for row in told["table"]} >= {"a", "b", "copy_last"}
    assert {path: path.stat().st_mtime_ns for path in tuned} == tuned, "not tuned again"
    log = (runs / "a-0" / "log.txt").read_text()
    assert "stopped after update" in log, "orphaned, it saved and left"
    assert "resuming" in log
    stored = json.loads((tmp_path / told["results"] / "a-0.json").read_text())
    assert stored["updates"] == 400
    assert stored["tuning"]["rates"].keys() == {"0.001", "0.002"}
    updates = [point["update"] for point in stored["time"]]
    assert len(updates) == 8 and updates == sorted(updates) and updates[-1] == 400
    assert [path.name for path in (runs / "a-0" / "checkpoints").iterdir()] == ["400"]
    assert (tmp_path / told["page"]).read_text().startswith("<!doctype html>")


def wait_for(condition, process, seconds=300):
    begin = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() - begin < seconds
        time.sleep(0.05)
