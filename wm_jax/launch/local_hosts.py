"""Several processes on this machine as the hosts of one run: ``launch/local_hosts N -- COMMAND``.

What a cluster would do, on localhost: tells each process who it is, shows what each says behind its
number, hands signals on, and leaves with the first bad exit status after stopping the others.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from wm_jax.errors import UserError
from wm_jax.launch.job import Job
from wm_jax.launch.shell import comment, folded

#: Seconds that processes have to leave after SIGTERM before they are killed.
GRACE = 30.0

_EXAMPLES = """\
examples:
  launch/local_hosts 2 -- wm-jax train --config experiments/configs/twins.py:debug --workdir runs/a
  launch/local_hosts 2 --devices 4 -- wm-jax train …    each process with four devices of the CPU
"""


def render(job: Job) -> dict[str, str]:
    """``NAME.local.sh``."""
    if job.accelerator != "cpu":
        raise UserError(
            f"accelerator = {job.accelerator}: local_hosts shares this machine's cores out; set "
            'accelerator = "cpu" to try a job here.'
        )
    if job.bucket:
        raise UserError("local_hosts mounts no bucket; leave it out, and name a local workdir.")
    file = f"{job.name}.local.sh"
    start = ["launch/local_hosts", str(job.hosts), "--devices", str(job.devices)]
    start += ["--grace", str(job.grace), "--"]
    run = folded(start, job.command(stopped=0))
    head = comment(f"{job.says}. From a checkout of wm_jax, run it with: bash {file}")
    return {file: f"#!/usr/bin/env bash\n{head}set -euo pipefail\n{job.exports()}exec {run}\n"}


def submit(job: Job, folder: Path) -> list[str]:
    return ["bash", str(folder / f"{job.name}.local.sh")]


def environments(
    count: int, devices: int | None, port: int, base: Mapping[str, str]
) -> list[dict[str, str]]:
    """What each process is told. ``devices``: of the CPU, in each; None leaves the platform be."""
    out = []
    for index in range(count):
        told = dict(base) | {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        if devices is not None:
            flag = f"--xla_force_host_platform_device_count={devices}"
            told["JAX_PLATFORMS"] = "cpu"
            told["XLA_FLAGS"] = f"{base.get('XLA_FLAGS', '')} {flag}".strip()
        out.append(told)
    return out


class Hosts:
    """The processes of one run."""

    def __init__(self, grace: float):
        self._grace, self._lock = grace, threading.Lock()
        self._kill_at = float("inf")
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []

    def start(self, command: Sequence[str], told: Sequence[Mapping[str, str]]) -> None:
        """Starts a process for each environment in ``told``."""
        try:
            for index, environment in enumerate(told):
                self._start(index, command, environment)
        except OSError as error:
            self.stop()
            self.wait()
            raise UserError(f"cannot start {command[0]}: {error.strerror}.") from error

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Hands the signal on; what is still there after the grace time is killed by `wait`."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
        self._kill_at = min(self._kill_at, time.monotonic() + self._grace)

    def wait(self) -> int:
        """Until all have left. Their first status that is not 0, in the order in which they left;
        128 + number for a signal."""
        status, left = 0, set(range(len(self._processes)))
        while left:
            for index in sorted(left):
                code = self._processes[index].poll()
                if code is None:
                    continue
                left.remove(index)
                if code and not status:
                    status = code if code > 0 else 128 - code
                    if left and self._kill_at == float("inf"):
                        self._tell(f"process {index} left with {status}; stopping the others.")
                        self.stop()
            if time.monotonic() > self._kill_at:
                for index in left:
                    self._processes[index].kill()
            time.sleep(0.05)
        for reader in self._readers:
            reader.join()
        return status

    def _start(self, index: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C reaches us alone, and we hand it on
        )
        self._processes.append(process)
        for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            reader = threading.Thread(target=self._show, args=(index, source, sink), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _show(self, index: int, source: TextIO, sink: TextIO) -> None:
        for line in source:
            with self._lock:
                sink.write(f"[{index}] {line.rstrip()}\n")
                sink.flush()

    def _tell(self, text: str) -> None:
        with self._lock:
            print(f"local_hosts: {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str], count: int, devices: int | None, grace: float = GRACE) -> int:
    """Runs ``command`` in ``count`` processes; returns the exit status of the whole."""
    told = environments(count, devices, free_port(), os.environ)
    hosts = Hosts(grace)
    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, lambda *_: hosts.stop())
    try:
        hosts.start(command, told)
        return hosts.wait()
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def free_port() -> int:
    """A port of localhost on which no one listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> int:
    """``launch/local_hosts``."""
    parser = argparse.ArgumentParser(
        prog="launch/local_hosts",
        usage="launch/local_hosts N [--devices N] [--grace SECONDS] -- COMMAND …",
        description="Run a command in N processes of this machine that form one run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hosts", type=int, metavar="N", help="processes")
    parser.add_argument("--devices", type=int, help="devices of the CPU in each process")
    parser.add_argument("--grace", type=float, default=GRACE, help="s to leave after SIGTERM")
    argv = list(sys.argv[1:] if argv is None else argv)
    own = argv[: argv.index("--")] if "--" in argv else argv
    options = parser.parse_args(own)
    command = argv[len(own) + 1 :]
    if not command:
        raise UserError("name the command after --, as: launch/local_hosts 2 -- wm-jax train …")
    if options.hosts < 1 or (options.devices is not None and options.devices < 1):
        raise UserError("there must be at least one process, with at least one device.")
    return run(command, options.hosts, options.devices, options.grace)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as problem:
        print(f"launch/local_hosts: {problem}", file=sys.stderr)
        sys.exit(2)
