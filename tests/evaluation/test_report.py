"""The page and the verb: self-contained, honest, and one sentence for bad input."""

import html.parser
import json
import re

import numpy as np
import pytest

from wm_jax.errors import UserError
from wm_jax.evaluation import cli, film, twins_world
from wm_jax.evaluation import judge as judging
from wm_jax.evaluation.report import render
from wm_jax.evaluation.suite import PAIRED
from wm_jax.evaluation.summary import (
    calibration_line,
    find,
    headline,
    models_of,
    terminal_table,
)
from wm_jax.models.baselines import CopyLast


class Page(html.parser.HTMLParser):
    """Counts elements and checks that they are closed in order."""

    VOID = {"meta", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.count, self.addresses = [], {}, []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside(judged):
    report, _ = judged
    text = render(report)
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.count["svg"] == 6
    assert page.count["input"] == 1
    assert page.count["details"] == 2
    clips, rows, steps = 3, 3, 6  # steps 1, 2, 5, 10, 20 and the last one, 30
    assert page.count["img"] == clips * rows + clips * (1 + rows * steps)
    assert report.command in text
    told = sum(
        find(report.rows, "default", f"{metric}_difference", step, control) is not None
        for metric in PAIRED
        for step in (1, 5, 10, 20)
        for control in models_of(report.rows)
    )
    assert f"These are {told} comparisons" in text


def test_a_failed_instrument_is_said_first(judged):
    report, _ = judged
    assert "The instrument holds" in render(report)
    text = render(report._replace(holds=False))
    assert "The instrument failed" in text
    assert 'class="verdict failed"' in text
    assert calibration_line(report.rows, report.protocol, report.holds).startswith(
        "The instrument holds: on true frames"
    )


def test_the_headline_holds_the_rows_own_numbers(judged):
    report, result = judged
    (row,) = (
        r
        for r in result["rows"]
        if (r["model"], r["metric"], r["step"]) == ("default", "position_error", 10)
    )
    sentence = headline(report)
    assert sentence.startswith("10 frames ahead, the model misplaces objects by")
    assert f"{row['value']:.1f} px ({row['low']:.1f}–{row['high']:.1f})" in sentence


def test_the_terminal_table_has_the_model_beside_each_baseline(judged):
    lines = terminal_table(judged[0]).splitlines()
    assert " ".join(lines[0].split()) == "position_error (px) step 1 step 5 step 10 step 20"
    assert [line.split()[0] for line in lines[1:7]] == [
        *("default", "copy_last", "mean_image", "context_median"),
        *("constant_velocity", "see_then_simulate"),
    ]
    assert all(len(line.split()) == 5 for line in lines[1:7])


def test_error_maps_go_from_black_to_pale_with_the_error():
    truth = np.zeros((5, 4, 4, 3), np.uint8)
    frames = truth + np.array([0, 40, 80, 120, 255], np.uint8)[:, None, None, None]
    light = film.error_map(truth, frames).sum(-1)[:, 0, 0].astype(int)
    assert (np.diff(light) > 0).all()
    assert light[0] < 60


@pytest.fixture
def copy_last_run(monkeypatch, world):
    """The verb on a run of copy-last, without training one."""

    def restore(workdirs, route=None):
        from wm_jax.config import base_config, change

        config = change(base_config(), {"model.resolution": 32})
        return {"default": judging.Run(workdirs[0], CopyLast((32, 32)), {}, config, 1)}

    monkeypatch.setattr(judging, "restore", restore)
    monkeypatch.setattr(twins_world, "open_world", lambda *_: world)


def test_the_verb_writes_both_files_and_prints_the_table(copy_last_run, tmp_path, capsys):
    options = ["--workdir", str(tmp_path), "--episodes", "2", "--horizon", "6"]
    assert cli.main(options) == 0
    result = json.loads((tmp_path / "evaluation" / "pixel.json").read_text())
    assert result["protocol"]["horizon"] == 6
    assert result["command"].startswith(f"wm-jax evaluate --workdir {tmp_path}")
    assert (tmp_path / "report" / "index.html").read_text().startswith("<!doctype html>")
    assert not list(tmp_path.rglob("*.part"))
    told = capsys.readouterr().out
    assert "position_error (px)" in told
    assert "report/index.html" in told
    assert cli.main([*options, "--json", "--out", str(tmp_path / "else")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == result["rows"], "the same clips give the same numbers"


@pytest.mark.parametrize("suites", ["temporal", "pixel,temporal"])
def test_suites_share_a_page(copy_last_run, tmp_path, capsys, suites):
    options = ["--workdir", str(tmp_path), "--episodes", "2", "--horizon", "6"]
    options += ["--suite", suites, "--long-horizon", "40"]
    assert cli.main(options) == 0
    for suite in suites.split(","):
        result = json.loads((tmp_path / "evaluation" / f"{suite}.json").read_text())
        assert {row["suite"] for row in result["rows"]} == {suite}
        assert len(result["protocol"]["digest"]) == 16
    page = (tmp_path / "report" / "index.html").read_text()
    assert "temporal suite" in page and page.count("<h1>") == 1
    assert "half-life" in capsys.readouterr().out
    assert cli.main([*options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "rows" in (told if suites == "temporal" else told["temporal"])


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--suite", "probe"], "no suite 'probe'"),
        (["--suite", "causal", "--causal-horizon", "4"], "must be at least 5"),
        (["--episodes", "0"], "at least 1"),
        (["--horizon", "0"], "at least 1"),
        (["--route", "trained"], "only --suite causal makes any"),
        (["--horizon", "5000"], "ask for a shorter --horizon"),
    ],
)
def test_bad_options_are_one_sentence(copy_last_run, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        cli.main(["--workdir", str(tmp_path), *options])


def test_a_folder_that_cannot_be_written_is_named(copy_last_run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="can't be written"):
        cli.main(["--workdir", str(tmp_path), "--horizon", "2", "--out", str(blocked)])


def test_a_workdir_without_a_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="train there first"):
        cli.main(["--workdir", str(tmp_path / "nowhere")])


def test_data_of_another_resolution_is_refused(tmp_path):
    plan = {"plan": {"world": "twins:motion", "resolution": 128}}
    (tmp_path / "build.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="128 px and the model takes 32 px"):
        twins_world.open_world(str(tmp_path), 32, ())


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    assert "example: wm-jax evaluate --workdir runs/a" in capsys.readouterr().out
