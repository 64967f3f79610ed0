"""Rendered scripts at work, with the clients of a cluster played by a few lines of bash."""

import subprocess
import time

import pytest
import yaml

from tests.launch.rendering import GPU, TPU, bash, bucket, changed, parses, pretend, render

#: What `srun` does: takes the place of the processes, and leaves as they would.
SRUN = """\
echo "$@" >>srun.calls
env | grep -E '^(WM_JAX|JAX_LOCAL|NOTE)' | sort >srun.environment
trap 'exit 75' TERM
echo $$ >started
for _ in $(seq "$BUSY"); do sleep 0.05; done
exit "$STATUS"
"""

SCONTROL = """\
case "$1" in
  show) echo "   JobState=$STATE Reason=None" ;;
  *) echo "$@" >>requeued ;;
esac
"""


@pytest.fixture
def cluster(tmp_path):
    """A cluster's clients and a checkout; ``run(**environment)`` runs the batch script there."""
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    (checkout / "launch").mkdir(parents=True)
    (checkout / "launch/environment").touch()
    pretend(programs, "srun", SRUN)
    pretend(programs, "scancel", 'echo "$@" >>scancel.calls; kill -TERM "$(cat started)"')
    pretend(programs, "scontrol", SCONTROL)
    changes = [("/shared/wm_jax", str(checkout)), ("module load cuda", "export NOTE=mine")]
    script = tmp_path / "job.sbatch"
    script.write_text(render("slurm", changed(tmp_path, GPU, *changes)))

    def run(**environment):
        fixed = {"SLURM_JOB_ID": "7", "STATE": "RUNNING", "BUSY": "0", "STATUS": "0"}
        return bash(script, tmp_path, programs, **fixed | environment)

    run.checkout, run.script, run.programs = checkout, script, programs
    return run


def test_the_batch_script_is_bash_and_asks_for_a_second_life():
    text = render("slurm", GPU)
    assert parses(text)
    asked = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH " in line]
    for option in ("--requeue", "--signal=B:TERM@120", "--nodes=2", "--time=1-23:30:00"):
        assert option in asked
    head = text.partition("set -euo")[0].splitlines()
    assert all(line.startswith("#") for line in head)  # sbatch reads no further than a command


def test_a_finished_run_is_not_queued_again(cluster):
    done = cluster(STATUS="0")
    assert done.returncode == 0, done.stderr
    assert not (cluster.checkout / "requeued").exists()
    call = (cluster.checkout / "srun.calls").read_text()
    assert "--config.data.directory=/shared/data/with space" in call
    assert "--stopped-status 75" in call
    told = (cluster.checkout / "srun.environment").read_text().split("\n")
    assert "WM_JAX_CLUSTER=slurm" in told and "NOTE=it's mine" in told
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7" in told


def test_a_crash_keeps_its_status(cluster):
    assert cluster(STATUS="3").returncode == 3
    assert not (cluster.checkout / "requeued").exists()


def test_a_stopped_run_is_queued_again_unless_it_was_cancelled(cluster):
    assert cluster(STATUS="75").returncode == 0
    assert (cluster.checkout / "requeued").read_text() == "requeue 7\n"
    assert cluster(STATUS="75", STATE="CANCELLED").returncode == 75
    assert (cluster.checkout / "requeued").read_text() == "requeue 7\n"


def test_the_warning_before_the_limit_stops_the_processes_and_queues_again(cluster):
    environment = {"SLURM_JOB_ID": "7", "STATE": "RUNNING", "BUSY": "600", "STATUS": "1"}
    path = f"{cluster.programs}:/usr/bin:/bin"
    process = subprocess.Popen(
        ["bash", str(cluster.script)], env=environment | {"PATH": path, "HOME": "/"}
    )
    while not (cluster.checkout / "started").exists():
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 0
    assert (cluster.checkout / "scancel.calls").read_text() == "--signal=TERM 7\n"
    assert (cluster.checkout / "requeued").read_text() == "requeue 7\n"


GCLOUD = """\
echo "$@" | head -n 1 >>calls
case "$4" in
  describe) [ "$STATE" ] || exit 1; echo "$STATE" ;;
  ssh)
    for argument in "$@"; do
      case "$argument" in --command=*) echo "${argument#*=}" >worker.sh ;; esac
    done ;;
esac
"""


@pytest.fixture
def tpu(tmp_path):
    """``run(verb, state)`` runs the script with a gcloud that notes what it is asked."""
    programs, script = tmp_path / "programs", tmp_path / "job.sh"
    pretend(programs, "gcloud", GCLOUD)
    pretend(programs, "git", "true")
    script.write_text(render("tpu_vm", TPU))

    def run(verb, state=""):
        (tmp_path / "calls").unlink(missing_ok=True)
        done = bash(script, tmp_path, programs, *verb.split(), STATE=state)
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done, [line.removeprefix("compute tpus tpu-vm ") for line in lines]

    run.folder = tmp_path
    return run


def test_a_slice_is_made_once_and_anew_after_preemption(tpu):
    create = (
        "create motion --accelerator-type=v5p-32 --version=v2-alpha-tpuv5 --spot --zone=us-east5-a"
    )
    for state, made in (("", [create]), ("READY", [])):
        done, calls = tpu("create", state)
        assert done.returncode == 0, done.stderr
        assert calls[0].startswith("describe motion") and calls[1:] == made
    _, calls = tpu("create", "PREEMPTED")
    assert [call.split()[0] for call in calls] == ["describe", "delete", "create"]


@pytest.mark.parametrize("verb", ["install", "run"])
def test_all_workers_get_the_same_script_and_it_is_bash(tpu, verb):
    done, calls = tpu(verb)
    assert done.returncode == 0, done.stderr
    assert calls[-1].startswith("ssh motion --worker=all --command=")
    worker = (tpu.folder / "worker.sh").read_text()
    assert parses(worker)
    if verb == "run":
        assert "export WM_JAX_CLUSTER=gcetpu" in worker
        assert "exec timeout \\\n  --kill-after=120 86400 \\\n  .venv/bin/wm-jax train" in worker


def test_the_script_tells_how_to_use_it(tpu):
    done, calls = tpu("")
    assert done.returncode == 2 and not calls
    assert "bash motion.tpu-vm.sh all" in done.stdout and "set -" not in done.stdout


def test_skypilot_tells_each_host_who_it_is(tmp_path):
    task = yaml.safe_load(render("skypilot", bucket(tmp_path)))
    assert parses(task["run"])
    (tmp_path / ".venv").mkdir()
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/environment").touch()
    pretend(tmp_path / ".venv/bin", "wm-jax", 'env | grep ^JAX_ | sort; echo "$@"')
    told = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    script = tmp_path / "run.sh"
    script.write_text(task["run"])
    done = bash(script, tmp_path, tmp_path, SKYPILOT_NODE_RANK="1", **told)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "CACHE" not in line]
    assert "JAX_COORDINATOR_ADDRESS=10.0.0.1:8476" in lines
    assert "JAX_NUM_PROCESSES=2" in lines and "JAX_PROCESS_ID=1" in lines
    assert lines[-1].startswith("train --config") and lines[-1].endswith("--stopped-status 75")
