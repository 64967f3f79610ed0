"""Runs beside each other: the same clips, and what one is worth more than the other."""

import dataclasses
import json

import pytest

from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.evaluation import compare, judge, twins_world
from wm_jax.models.baselines import CopyLast


@dataclasses.dataclass(frozen=True)
class Black(CopyLast):
    """Shows nothing."""

    def decode(self, params, state):
        return 0 * super().decode(params, state)


@pytest.fixture
def two_runs(monkeypatch, world):
    def restore(workdirs, route=None):
        config = change(base_config(), {"model.resolution": 32})
        models = {"default": CopyLast((32, 32)), "black": Black((32, 32))}
        return {
            name: judge.Run(workdir, model, {}, config, 1)
            for workdir, (name, model) in zip(workdirs, models.items(), strict=True)
        }

    monkeypatch.setattr(judge, "restore", restore)
    monkeypatch.setattr(twins_world, "open_world", lambda *_: world)


def test_the_difference_of_two_runs_is_paired_and_has_an_interval(two_runs, tmp_path, capsys):
    runs = [str(tmp_path / name) for name in "ab"]
    options = [*runs, "--episodes", "2", "--horizon", "6", "--out", str(tmp_path / "out")]
    assert compare.main(options) == 0
    said = capsys.readouterr().out
    assert "beside default: negative is better" in said and "black: step 1: +" in said
    rows = json.loads((tmp_path / "out" / "pixel.json").read_text())["rows"]
    (row,) = (
        r for r in rows
        if (r["metric"], r["model"], r["control"], r["step"])
        == ("position_error_difference", "black", "default", 5)
    )  # fmt: skip
    assert row["low"] > 0, "to show nothing is worse"
    assert "<!doctype html>" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    "runs, sentence", [(["runs/a"], "at least two runs"), (["runs/a", "runs/b/../a"], "twice")]
)
def test_bad_runs_are_one_sentence(runs, sentence):
    with pytest.raises(UserError, match=sentence):
        compare.main(runs)
