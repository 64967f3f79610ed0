"""The benchmark of shifted test sets: which rows it keeps, and what it says where none are."""

import sys

from experiments.benchmarks import shifted
from wm_jax.evaluation.summary import CEILING


def row(metric, model, step, control=None):
    return {"metric": metric, "model": model, "step": step, "control": control, "value": 0.5}


def test_rows_are_the_model_s_and_those_that_say_what_is_possible():
    wanted = [
        row("position_error", "mine", 5),
        row("matched_share", CEILING, 40),
        row("edit_success", "mine", 20),
        row("edit_success", "mine", 20, "shuffled"),
        row("edit_success", "mine", 20, "oracle"),
        row("edit_success", CEILING, 20),
        row("locality", "mine", 20),
        row("onset_within", "mine", 0),
    ]
    others = [
        row("position_error", "mine", 10),
        row("position_error", "mean_image", 5),
        row("edit_success", "copy_last", 20, "shuffled"),
        row("locality", CEILING, 20),
        row("edit_success", CEILING, 20, "shuffled"),
        row("psnr", "mine", 5),
    ]
    assert shifted.kept(wanted + others, "mine") == wanted


def test_what_is_not_there_is_said_in_a_sentence(monkeypatch, capsys, tmp_path):
    argv = ["shifted.py", "--model", "experiments/pretrained/motion", "--data", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    assert shifted.main() == 2
    assert str(tmp_path) in capsys.readouterr().err
