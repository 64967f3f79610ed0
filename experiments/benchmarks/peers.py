"""Our RSSM beside other people's DreamerV3 world models: one training step each, in one run.

    python experiments/benchmarks/peers.py --json

64×64 px, 8×32 frames of the same noise, about the same number of parameters (each row says how
many; a contender that is further than 10 % from torchrl's is refused). Every contender is a process
of its own under the same allocator settings (``. launch/environment``), and only one works at a
time: a round is one chunk of updates of each, in turn. Numbers are medians over rounds, ``low`` and
``high`` a 95 % bootstrap interval. ``times_peer`` is the ratio to the fastest peer of that size,
taken within rounds. ``megaflops_per_frame`` counts matrix products and convolutions, forward and
backward, by each framework's own counter. ``rollout`` rows are imagined and decoded frames, batch
16, of the small RSSM and of the default.

torchrl lives in an environment of its own, or in this one (the extra ``peers``):

    python -m venv .venv-peers && .venv-peers/bin/pip install numpy torchrl==0.14.1
    python experiments/benchmarks/peers.py --torchrl .venv-peers/bin/python

A peer that is not on PyPI takes part as a checkout with a worker in it: ``--dreamerv3 PATH`` and
``--r2dreamer PATH`` run ``PATH/serve_step.py``, any other is ``--peer NAME=COMMAND``. A worker is
yours to write around that code's own loss and update: it gets the sizes as one argument of JSON and
speaks as `contender.serve` does, which it may import. Only torchrl's was ever run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contender import frames, median, serve

HERE = Path(__file__).parent
#: DreamerV3's own numbers for each size; every contender takes them as they are.
SIZES = {
    "small": {"deter": 512, "hidden": 64, "classes": 4, "depth": 4},
    "large": {"deter": 2048, "hidden": 256, "classes": 16, "depth": 16},
}
#: The patch stem of ours that makes as many parameters as DreamerV3's convolutions do.
STEM = {"small": (8, 64), "large": (24, 256)}  # features of a cell, of the decoder's hidden layer
#: Checkouts by option: the codebase, and a file that only it has.
CHECKOUTS = {
    "dreamerv3": ("DreamerV3", "dreamerv3/rssm.py"),
    "r2dreamer": ("r2dreamer", "dreamer.py"),
}
BATCH, HORIZON = 16, 64  # of rollouts
TOLERANCE = 0.1


class Contender:
    """A process that speaks as `contender.serve` does, and what it said and measured."""

    def __init__(self, name: str, task: str, size: str, command: Sequence[str]):
        self.name, self.task, self.size = name, task, size
        self.rates: list[float] = []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.about = json.loads(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise SystemExit(f"{self.name} ({self.size}) ended before it answered; see above.")
        return line

    def chunk(self, seconds: float) -> None:
        print(seconds, file=self._process.stdin, flush=True)
        self.rates.append(float(self._answer()))

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def ours(name: str, size: str) -> None:
    """Serves one of ours: a training step of the RSSM, or a rollout."""
    import jax
    import train_step

    about: dict[str, Any] = {}
    if name.startswith("rollout"):
        count = BATCH * HORIZON
        run, about["parameters"] = train_step.rollout(name.split("-")[1], BATCH, HORIZON)
    else:
        count = train_step.BATCH * train_step.WINDOW
        case = train_step.Case("rssm", changes(name, size))
        run, about["parameters"] = case.update, case.cost.parameters
        about["megaflops_per_frame"] = round(case.cost.flops / count / 1e6, 2)
    about["versions"] = {"python": platform.python_version(), "jax": jax.__version__}
    serve(lambda: jax.block_until_ready(run()), count, about)


def changes(name: str, size: str) -> dict[str, Any]:
    """Of the config ``small_rssm``."""
    sizes = dict(SIZES[size])
    depth = sizes.pop("depth")
    out: dict[str, Any] = {f"model.dynamics.{key}": value for key, value in sizes.items()}
    if name == "rssm-conv":
        return out | {"model.encoder": "conv", "model.decoder": "conv", "model.conv_depth": depth}
    embed, hidden = STEM[size]
    return out | {"model.embed": embed, "model.decoder_hidden": hidden}


def torchrl(size: str) -> None:
    from peers_torchrl import contender

    run, about = contender(frames(), **SIZES[size])
    serve(run, int(np.prod(frames().shape[:2])), about)


def checkout(name: str, path: Path) -> list[str]:
    """The command of the worker in a checkout; ends the run if it is none."""
    codebase, file = CHECKOUTS[name]
    if not (path / file).is_file():
        raise SystemExit(f"--{name} {path} is no checkout of {codebase}: it has no {file}.")
    if not (path / "serve_step.py").is_file():
        raise SystemExit(
            f"--{name} {path} has no serve_step.py: write one that times a training step of "
            f"{codebase} (see python {Path(__file__).name} --help)."
        )
    return [sys.executable, str(path / "serve_step.py")]


def start(options: argparse.Namespace, whole: contextlib.ExitStack) -> list[Contender]:
    """All contenders, compiled and warm, one after the other; they end with ``whole``."""
    me = str(Path(__file__))
    checkouts = {
        name: checkout(name, path) for name in CHECKOUTS if (path := getattr(options, name))
    }
    wanted = []
    for size in options.size:
        peers = {"torchrl": [options.torchrl, me, "--serve", "torchrl", size]}
        others = checkouts | {name: shlex.split(command) for name, command in options.peer}
        for name, command in others.items():
            peers[name] = [*command, json.dumps(SIZES[size])]
        for name in ("rssm", "rssm-conv"):
            peers[name] = [sys.executable, me, "--serve", name, size]
        wanted += [(name, "train", size, command) for name, command in peers.items()]
    for name in ("rssm", "default"):
        command = [sys.executable, me, "--serve", f"rollout-{name}", "small"]
        wanted.append((name, "rollout", "small", command))
    found = []
    for arguments in wanted:
        found.append(Contender(*arguments))
        whole.callback(found[-1].end)
    for size in options.size:
        same_size([one for one in found if (one.task, one.size) == ("train", size)])
    return found


def same_size(contenders: list[Contender]) -> None:
    """Ends the run if one has not about as many parameters as the first."""
    wanted = contenders[0].about["parameters"]
    for one in contenders:
        if abs(one.about["parameters"] / wanted - 1) > TOLERANCE:
            raise SystemExit(
                f"{one.name} ({one.size}) has {one.about['parameters']} parameters and "
                f"{contenders[0].name} {wanted}: more than {TOLERANCE:.0%} apart; change its sizes."
            )


def row(one: Contender, all_of_them: list[Contender]) -> dict[str, Any]:
    middle, low, high = (round(value, 1) for value in median(np.array(one.rates)))
    out = {
        "contender": one.name,
        "task": one.task,
        "size": one.size,
        **one.about,
        "frames_per_second": middle,
        "low": low,
        "high": high,
        "machine": machine(),
    }
    peers = [
        c
        for c in all_of_them
        if (c.task, c.size) == (one.task, one.size) and not c.name.startswith("rssm")
    ]
    if one.task == "train" and one not in peers:
        fastest = max(peers, key=lambda c: float(np.median(c.rates)))
        ratio = median(np.array(one.rates) / np.array(fastest.rates))
        out["times_peer"] = {"peer": fastest.name, "times": [round(value, 2) for value in ratio]}
    return out


def machine() -> str:
    """The processor's name and the number of cores that this process may use."""
    names = {
        line.partition(":")[2].strip()
        for path in [Path("/proc/cpuinfo")]
        if path.exists()
        for line in path.read_text().splitlines()
        if line.startswith("model name")
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{', '.join(sorted(names)) or platform.machine()}, {cores} cores"


def pair(text: str) -> tuple[str, str]:
    name, equals, command = text.partition("=")
    if not name or not equals or not command:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COMMAND")
    return name, command


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--size", action="append", choices=list(SIZES), help="default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="a chunk of updates")
    parser.add_argument("--torchrl", default=sys.executable, help="a Python that has torchrl")
    parser.add_argument("--peer", type=pair, action="append", default=[], metavar="NAME=COMMAND")
    for name, (codebase, _) in CHECKOUTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"{codebase}'s checkout")
    parser.add_argument("--json", action="store_true", help="print one JSON list of rows")
    parser.add_argument("--serve", nargs=2, metavar=("CONTENDER", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, size = options.serve
        torchrl(size) if name == "torchrl" else ours(name, size)
        return
    if "MALLOC_MMAP_MAX_" not in os.environ:
        print("not under the allocator settings of launch/environment", file=sys.stderr)
    options.size = options.size or list(SIZES)
    with contextlib.ExitStack() as whole:
        contenders = start(options, whole)
        for done in range(options.rounds):
            for one in contenders:
                one.chunk(options.seconds)
            print(f"round {done + 1}/{options.rounds}", file=sys.stderr, flush=True)
    rows = [row(one, contenders) for one in contenders]
    if options.json:
        print(json.dumps(rows))
        return
    for r in rows:
        print(
            f"{r['task']:>8} {r['size']:>6} {r['contender']:>10} {r['parameters']:>9,} parameters "
            f"{r['frames_per_second']:>8} frames/s ({r['low']}-{r['high']}) "
            f"{r.get('times_peer', {}).get('times', '')}"
        )


if __name__ == "__main__":
    main()
