"""What the README says works: its commands, its Python, its backbone, its file tree."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()

#: Long commands, made short. The longest start that fits counts.
SHORT = {
    "wm-jax data build": "--train 5 --validation 4 --test 2",
    "wm-jax data inspect": "",
    "wm-jax train": "--config.train.minutes=0 --config.train.steps=2 --config.optim.warmup=1 "
    "--config.train.batch_size=2 --config.train.clip_every=0",
    "wm-jax evaluate": "--episodes 2 --horizon 3 --long-horizon 40 --causal-horizon 5",
    "wm-jax compare": "--episodes 2 --horizon 3",
    "wm-jax edit": "",
    "wm-jax imagine": "--steps 3",
    "wm-jax launch": "",
    "wm-jax export": "",
    "wm-jax reproduce": "--dry-run",
}
#: Commands that something else runs.
ELSEWHERE = {
    "./launch/quickstart": "test_launch.py",
    "./launch/test": "continuous integration runs this file by it",
    "pip install -c constraints.txt -e '.[export,tensorboard]'": "launch/install runs it",
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands():
    lines = "".join(blocks("console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def test_every_command_is_run_by_some_test():
    assert len(commands()) >= 8
    for command in commands():
        assert command in ELSEWHERE or command.startswith(tuple(SHORT)), command


@pytest.mark.slow
@pytest.mark.ci
def test_commands_and_python_work_in_order(tmp_path):
    for name in ("experiments", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in commands():
        if command in ELSEWHERE:
            continue
        extra = next(more for start, more in SHORT.items() if command.startswith(start))
        argv = [sys.executable, "-m", "wm_jax", *shlex.split(command)[1:], *shlex.split(extra)]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "runs/a/report/index.html").stat().st_size > 10_000
    snippets = [block for block in blocks("python") if "class " not in block]
    assert len(snippets) == 4
    for snippet in snippets:
        script = [sys.executable, "-W", "error", "-c", snippet]
        done = subprocess.run(
            script, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"


def backbone():
    (source,) = (block for block in blocks("python") if "class " in block)
    return source


def test_the_backbone_has_the_lines_it_promises():
    lines = backbone().partition("class ")[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 15


@pytest.mark.slow
@pytest.mark.ci
def test_the_backbone_keeps_the_contract(tmp_path):
    (tmp_path / "leaky.py").write_text(backbone())
    (tmp_path / "register.py").write_text(
        "import leaky\nfrom wm_jax.models.dynamics import DYNAMICS\n"
        "DYNAMICS['leaky'] = leaky.Leaky\n"
    )
    contract = "tests/models/test_dynamics_contract.py"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "register", contract]
        + ["-k", "leaky"],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d\d passed", done.stdout)


def tree():
    """Paths of the README's file tree, from its indentation."""
    (block,) = re.findall(r"## What is where\n.*?```\n(.*?)```", TEXT, re.DOTALL)
    parents, paths = [], []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0]
        for name in names.split(", "):
            paths.append("".join([*parents[:depth], name]))
        parents[depth:] = [names]
    return paths


def test_the_file_tree_is_true():
    for path in tree():
        found = ROOT / path
        assert found.is_dir() if path.endswith("/") else found.is_file(), path


def test_the_file_tree_is_whole():
    shown = set(tree())
    for package in ("wm_jax", "data_pipelines", "experiments", "launch"):
        for path in (ROOT / package).iterdir():
            if path.name.startswith(("_", ".")) or path.suffix == ".pyc":
                continue
            name = str(path.relative_to(ROOT)) + ("/" if path.is_dir() else "")
            assert name in shown, f"the README's tree does not show {name}"


def test_relative_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
