"""The launchers: quickstart from end to end with a small budget, and what they refuse."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*argv, **environment):
    return subprocess.run(
        argv, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture
def name():
    """A name for runs/ and exported/ that nobody else uses; both are removed afterwards."""
    name = f"test-{os.getpid()}"
    yield name
    for folder in ("runs", "exported"):
        shutil.rmtree(ROOT / folder / name, ignore_errors=True)


def files(*folders):
    """Every file below with the time it was written; of the logs, which a finished run opens
    again, the size. TensorBoard starts a new file each time."""
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {
        path: path.stat().st_size if path.suffix == ".jsonl" else path.stat().st_mtime_ns
        for path in found
        if "tfevents" not in path.name
    }


@pytest.mark.slow
@pytest.mark.ci
def test_quickstart_ends_with_a_table_and_a_page_and_repeats_nothing(name):
    budget = ["--config.train.steps=20", "--config.optim.warmup=5", "--config.train.clip_every=10"]
    argv = ["./launch/quickstart", "--name", name, *budget]
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    runs, exported = ROOT / "runs" / name, ROOT / "exported" / name
    page = (runs / "report/index.html").read_text()
    assert "<html" in page and not re.search(r'(src|href)="http', page)
    assert done.stdout.rstrip().endswith(f"runs/{name}/report/index.html")
    table = done.stdout.partition("[5/5]")[2]
    for model in ("default", "copy_last", "mean_image", "constant_velocity", "see_then_simulate"):
        assert f"\n  {model} " in table
    assert (exported / "load.py").is_file()
    assert "| copy_last |" in (exported / "MODEL_CARD.md").read_text()
    before = files(runs, exported, ROOT / "data/quickstart")
    again = run(*argv)
    assert again.returncode == 0, again.stderr
    assert table.partition("position_error")[2] in again.stdout
    after = files(runs, exported, ROOT / "data/quickstart")
    assert after == before


def test_help_says_how_to_use_it():
    done = run("./launch/quickstart", "--help")
    assert done.returncode == 0
    assert "--minutes N" in done.stdout
    assert "set -" not in done.stdout


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--fast"], "unknown option '--fast'; see ./launch/quickstart --help"),
        (["--minutes", "soon"], "--minutes soon is not a number of minutes"),
        (["--minutes"], "--minutes needs a number"),
    ],
)
def test_quickstart_refuses_what_it_does_not_know(argv, sentence):
    done = run("./launch/quickstart", *argv)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_install_without_a_fit_python_says_what_to_do(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    old = tmp_path / "python-too-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "launch/install"],
        env=os.environ | {"PYTHON": str(old)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or later" in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(not shutil.which("getconf"), reason="no glibc here")
def test_environment_sets_the_allocator_and_keeps_what_is_set():
    show = (
        '. launch/environment; echo "$MALLOC_MMAP_MAX_ $GLIBC_TUNABLES $JAX_COMPILATION_CACHE_DIR"'
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC", "GLIBC", "JAX"))}
    done = subprocess.run(["bash", "-c", show], cwd=ROOT, env=clean, capture_output=True, text=True)
    if "gnu" in sys.implementation._multiarch:
        assert done.stdout.startswith("0 glibc.malloc.hugetlb=1 ")
    mine = {"GLIBC_TUNABLES": "glibc.malloc.check=1", "JAX_COMPILATION_CACHE_DIR": "/cache"}
    done = subprocess.run(
        ["bash", "-c", show], cwd=ROOT, env=clean | mine, capture_output=True, text=True
    )
    assert done.stdout.endswith("glibc.malloc.check=1 /cache\n")
