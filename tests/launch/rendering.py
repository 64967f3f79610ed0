"""Jobs to render in tests, and bash to run what was rendered."""

import os
import subprocess
from pathlib import Path

from wm_jax.launch import cli

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden/launch"
#: A TPU slice with a bucket, and a cluster of GPUs.
TPU, GPU = ROOT / "launch/job.toml", GOLDEN / "cluster.toml"


def render(target, path):
    """The text of a job for one place."""
    _, files = cli.render(target, str(path))
    (text,) = files.values()
    return text


def changed(tmp_path, source, *changes):
    """A copy of a job's file with pieces of text replaced."""
    text = source.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "changed.toml"
    path.write_text(text)
    return path


def bucket(tmp_path):
    """The job of GPUs with a bucket instead of a shared disk."""
    storage = 'bucket = "gs://lab"\nworkdir = "/storage/'
    return changed(tmp_path, GPU, ('workdir = "/shared/', storage))


def pretend(folder, name, script):
    """A command of that name, to be found before the real one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def bash(script, cwd, programs, *arguments, **environment):
    """Runs a script with ``programs`` first in the path."""
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(script), *arguments],
        cwd=cwd,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def parses(text):
    """Whether bash can read it."""
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    return done.returncode == 0 and not done.stderr
