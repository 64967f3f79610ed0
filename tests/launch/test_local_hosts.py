"""Several processes of this machine: told who they are, shown, stopped, and their status kept."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.rendering import GPU, changed, parses, render
from wm_jax.errors import UserError
from wm_jax.launch import local_hosts

ROOT = Path(__file__).parent.parent.parent


def start(count, script, *options, **environment):
    command = [sys.executable, "-m", "wm_jax.launch.local_hosts", str(count), *options]
    return subprocess.Popen(
        [*command, "--", sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_process_is_told_who_it_is_and_shown_behind_its_number():
    script = """
import os
names = ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_PLATFORMS", "XLA_FLAGS")
print(*(os.environ[name] for name in names), os.environ["JAX_COORDINATOR_ADDRESS"])
"""
    out, err = (process := start(2, script, "--devices", "3", XLA_FLAGS="--a")).communicate()
    assert process.returncode == 0, err
    flags = "--a --xla_force_host_platform_device_count=3"
    first, second = sorted(out.splitlines())
    assert first.startswith(f"[0] 0 2 cpu {flags} 127.0.0.1:")
    assert second.startswith(f"[1] 1 2 cpu {flags} 127.0.0.1:")
    assert first.split(":")[-1] == second.split(":")[-1]


def test_without_devices_the_platform_is_left_alone():
    (told,) = local_hosts.environments(1, None, 5, {"PATH": "/bin"})
    assert set(told) == {
        "PATH", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID",
    }  # fmt: skip


def test_the_first_bad_status_wins_and_the_others_are_stopped():
    script = """
import os, signal, sys, time
def leave(*_):
    print("asked to leave", flush=True)
    sys.exit(9)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
if os.environ["JAX_PROCESS_ID"] == "1":
    time.sleep(1.5)
    sys.exit(5)
time.sleep(60)
"""
    begin = time.monotonic()
    out, err = (process := start(3, script)).communicate()
    assert process.returncode == 5
    assert "process 1 left with 5; stopping the others" in err
    assert out.count("asked to leave") == 2
    assert time.monotonic() - begin < 50


def test_one_that_does_not_leave_is_killed_after_the_grace_time():
    script = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
if os.environ["JAX_PROCESS_ID"] == "1":
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
    begin = time.monotonic()
    process = start(2, script, "--grace", "0.5")
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert time.monotonic() - begin < 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_as_sigterm(number):
    script = """
import signal, sys, time
def leave(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(60)
"""
    process = start(2, script)
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert sorted(lines) == ["[0] ready\n", "[1] ready\n"]
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["2"], "name the command after --"),
        (["2", "--"], "name the command after --"),
        (["0", "--", "true"], "at least one process"),
        (["2", "--devices", "0", "--", "true"], "at least one device"),
        (["2", "--", "no-such-program"], "cannot start no-such-program: No such file"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        local_hosts.main(arguments)


def test_the_script_finds_python_or_says_what_to_do(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "wm_jax").symlink_to(ROOT / "wm_jax")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    command = [str(tmp_path / "launch/local_hosts"), "2", "--", "sh", "-c", "echo $JAX_PROCESS_ID"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert done.returncode == 2 and "run launch/install first" in done.stderr
    done = subprocess.run(
        command, env=clean | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["[0] 0", "[1] 1"]


def test_a_job_becomes_a_script(tmp_path):
    text = render("local_hosts", changed(tmp_path, GPU, ('"h100"', '"cpu"')))
    assert parses(text)
    assert "exec launch/local_hosts 2 \\\n  --devices 8" in text
    assert "'--config.data.directory=/shared/data/with space'" in text
    assert "--stopped-status" not in text
