"""The curve of control: what is kept of evaluations, what is drawn, and what is refused."""

import json
import sys

import numpy as np
import pytest

from experiments.benchmarks import control_curve as curve


def row(model, metric, step, value, control=None, intervention=None):
    return {
        "model": model,
        "metric": metric,
        "step": step,
        "control": control,
        "intervention": intervention,
        "value": value,
        "low": value - 1,
        "high": value + 1,
        "n": 7,
    }


@pytest.fixture
def files(tmp_path):
    pixel, causal = tmp_path / "pixel.json", tmp_path / "causal.json"
    rows = [row("a", "position_error", 20, 8.0), row("b", "position_error", 20, 2.0)]
    rows += [row("a", "position_error", 5, 3.0), row("copy_last", "position_error", 20, 9.0)]
    pixel.write_text(json.dumps({"rows": rows}))
    rows = [row("b", "edit_success", 20, 0.5, intervention="push")]
    rows += [row("b", "edit_success", 20, 0.7, "oracle", "push")]
    causal.write_text(json.dumps({"rows": rows}))
    return [str(pixel), str(causal)]


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["control_curve.py", *argv])
    curve.main()


A, B = ("--point", "a", "100", "1000"), ("--point", "b", "100", "4000")


def test_what_the_models_themselves_make_is_kept(monkeypatch, capsys, files):
    run(monkeypatch, *files, *A, *B, "--json")
    rows = json.loads(capsys.readouterr().out)["rows"]
    got = [(r["model"], r["scenes"], r["frames"], r["score"], r["value"]) for r in rows]
    assert got == [
        ("a", 100, 1000, "position error at 20, px", 8.0),
        ("b", 100, 4000, "position error at 20, px", 2.0),
        ("b", 100, 4000, "edit success at 20: push", 0.5),
    ]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["n"]) == (7.0, 9.0, 7)


def test_a_stored_table_shows_and_draws_the_same(monkeypatch, capsys, files, tmp_path):
    run(monkeypatch, *files, *A, *B, "--json")
    table = tmp_path / "table.json"
    table.write_text(capsys.readouterr().out)
    run(monkeypatch, *files, *A, *B)
    fresh = capsys.readouterr().out
    run(monkeypatch, "--table", str(table), "--plot", str(tmp_path / "curve.png"))
    assert capsys.readouterr().out == fresh
    assert "1000 frames  position error at 20, px" in fresh and "8.00 7.00 to 9.00" in fresh

    page = np.asarray(curve.Image.open(tmp_path / "curve.png"))
    chart = sys.modules["chart"]
    line = (page[:, : chart.PANEL[0] - chart.MARGIN[1]] == chart.COLOURS[0]).all(-1)
    y, x = np.nonzero(line)
    assert y[x == x.max()].mean() - y[x == x.min()].mean() > 30  # the error falls


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--point", "c", "100", "1000"), "the files have no scores of c"),
        (("--point", "a", "many", "1000"), "--point takes a name and two whole numbers"),
        (("nowhere.json", *A), "there is no file nowhere.json"),
        ((), "there is nothing to show"),
    ],
)
def test_what_cannot_be_shown_is_said(monkeypatch, capsys, files, more, says):
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, *files, *more)
    assert left.value.code == 2 and says in capsys.readouterr().err
