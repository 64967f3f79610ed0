"""The table of compiles: its targets exist, it goes on where it was, a refusal is a row."""

import json
import sys
from types import SimpleNamespace

import pytest

from experiments.benchmarks import pods
from experiments.configs import scale
from wm_jax.ahead.chips import topology

REPORT = {
    "mesh": {"data": 1, "fsdp": 4},
    "fits": True,
    "hbm_bytes_per_chip": 2**30,
    "roofline": {"step_seconds": 0.01, "mfu": 0.5, "exposed_share": 0.1},
}


def test_the_targets_are_those_of_the_issue_and_exist():
    for size in ("1b", "7b"):
        for name in ("v5p:4x4x4", "v5e:16x16", "v6e:16x16", "v5p:8x8x8"):
            assert (size, name) in {target[:2] for target in pods.TARGETS}
    for variant, name, *_ in pods.TARGETS:
        assert variant in scale.VARIANTS and topology(name).size > 0


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Runs the table into a file with a stand-in for the verb; returns the file's rows."""
    path, answers = tmp_path / "compile.json", []
    monkeypatch.setattr(pods.importlib.metadata, "version", lambda name: "0")
    monkeypatch.setattr(pods.subprocess, "run", lambda *_, **__: answers.pop(0))

    def run(*found, more=()):
        answers.extend(found)
        options = ["pods", "--only", "1b,v5p:2x2x1", "--out", str(path), *more]
        monkeypatch.setattr(sys, "argv", options)
        assert pods.main() == 0 and not answers
        return json.loads(path.read_text())["rows"]

    return run


def test_rows_are_kept_and_a_refusal_is_one(table, capsys):
    good = SimpleNamespace(returncode=0, stdout=json.dumps(REPORT), stderr="")
    bad = SimpleNamespace(returncode=2, stdout="", stderr="noise\nwm-jax compile: too large.\n")
    rows = table(good)
    rows = table(bad, more=("--mesh", "auto"))
    assert rows[0]["report"] == REPORT and rows[0]["variant"] == "1b"
    assert rows[0]["command"] == (
        "wm-jax compile --config experiments/configs/scale.py:1b --topology v5p:2x2x1 "
        "--batch 8 --no-largest --json"
    )
    assert "--mesh auto" in rows[1]["command"]
    assert rows[1]["error"] == "wm-jax compile: too large."
    assert "MFU  50.0 %" in capsys.readouterr().out
    assert table() == rows  # nothing is left to do


def test_a_batch_is_so_many_windows_a_chip():
    assert "--batch 1024" in " ".join(pods._command("7b", "v5p:8x8x8", 2, []))
    assert "--batch 8" in " ".join(pods._command("1b", "v5p:2x2x1", 2, []))


def test_the_table_of_what_is_there(table, capsys):
    wide = REPORT | {"topology": "v5p:2x2x1", "chips": 4, "batch_size": 8}
    wide |= {"hbm_bytes_limit": 95 * 2**30}
    table(SimpleNamespace(returncode=0, stdout=json.dumps(wide), stderr=""))
    capsys.readouterr()
    table(more=("--table",))
    assert capsys.readouterr().out.splitlines()[2] == (
        "| 1b | v5p:2x2x1 | 4 | 8 | fsdp 4 | 1.0 of 95 | 10 | 50 % | 10.0 % |"
    )
