"""The watchdog: a process that hangs ends with its stacks told; any other is left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HANGS = """
import sys, threading, time
from pathlib import Path
from wm_jax.watchdog import Watchdog

def waits_for_ever():
    threading.Lock().acquire() and time.sleep(1000)

with Watchdog(2.0, Path(sys.argv[1]), lambda: print("told", flush=True)) as watchdog:
    for _ in range(3):
        watchdog.beat()
        time.sleep(0.1)
    print("ready", flush=True)
    waits_for_ever()
"""
BEATS = """
import sys, time
from pathlib import Path
from wm_jax.watchdog import Watchdog

with Watchdog(float(sys.argv[2]), Path(sys.argv[1]), lambda: print("told", flush=True)) as watchdog:
    print("ready", flush=True)
    for _ in range(30):
        watchdog.beat()
        time.sleep(0.1)
time.sleep(0.5)
print("done", flush=True)
"""
TRAINS = """
import sys, time
from pathlib import Path
from data_pipelines.memory import MemoryLoader
from tests import tiny

served, serve = 0, MemoryLoader.__next__
def hang_in_the_loader(loader):
    global served
    served += 1
    if served == 15:
        time.sleep(1000)
    return serve(loader)
MemoryLoader.__next__ = hang_in_the_loader
tiny.train(Path(sys.argv[1]), train__hang_minutes=0.2)
"""


def start(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_hangs_ends_with_its_stacks(tmp_path):
    out, words = (process := start(HANGS, tmp_path / "stacks")).communicate()
    assert process.returncode == 75
    assert out.split() == ["ready", "told"]
    for text in (words, (tmp_path / "stacks").read_text()):
        assert "waits_for_ever" in text and "watchdog" in text


@pytest.mark.parametrize("seconds", [2.0, 0.0])
def test_a_process_that_goes_on_is_left_alone(tmp_path, seconds):
    out, _ = (process := start(BEATS, tmp_path / "stacks", seconds)).communicate()
    assert process.returncode == 0 and out.split() == ["ready", "done"]
    assert not (tmp_path / "stacks").exists()


def test_a_process_that_was_stopped_did_not_hang(tmp_path):
    process = start(BEATS, tmp_path / "stacks", 2.0)
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate()
    assert process.returncode == 0 and out.split() == ["done"]


@pytest.mark.slow
@pytest.mark.ci
def test_a_training_that_hangs_says_so_and_the_same_command_goes_on(tmp_path):
    process = start(TRAINS, tmp_path)
    _, words = process.communicate()
    assert process.returncode == 75, words
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert rows[-1]["event"] == "hung" and rows[-1]["seconds"] == 12
    assert "hang_in_the_loader" in Path(rows[-1]["stacks"]).read_text()
    assert f"stacks are in {rows[-1]['stacks']}" in words
