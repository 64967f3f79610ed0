"""Models from outside land where the same thing inside does, and are told what they lack."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import twins_world
from wm_jax.errors import UserError
from wm_jax.evaluation import causal, cli, outside, suite
from wm_jax.evaluation import twins_world as twins_worlds
from wm_jax.evaluation.judge import judge, judge_temporal
from wm_jax.evaluation.protocol import CausalProtocol, Protocol, TemporalProtocol
from wm_jax.evaluation.summary import find
from wm_jax.evaluation.tracker import Instrument

ROOT = Path(__file__).parent.parent.parent

MINE = '''
class Mine:
    """Repeats the last frame, without this library and without jax."""

    def encode(self, frames, conditions):
        return {"last": frames[:, -1], "steps": 0}

    def step(self, state, conditions):
        return {**state, "steps": state["steps"] + 1}

    def decode(self, state):
        return state["last"] / 255


def load():
    return Mine()


def lame():
    return object()
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def scores(rows, model, metrics=("psnr", "ssim", "position_error", "identity")):
    return [(r["metric"], r["step"], r["value"]) for r in rows
            if r["model"] == model and r["metric"] in metrics]  # fmt: skip


def test_three_functions_score_as_the_same_baseline(world, protocol, mine):
    model = outside.load(f"{mine}:load")
    report, result = judge({"outside": model}, world, protocol, "wm-jax evaluate")
    assert scores(result["rows"], "outside") == scores(result["rows"], "copy_last")
    assert result["models"]["outside"]["workdir"].endswith("mine.py:load")
    assert find(report.rows, "outside", "position_error_difference", 5, "copy_last")["value"] == 0


def test_without_an_edit_it_has_the_oracle_of_copy_last(world, instrument, mine):
    rules = CausalProtocol(world=world.name, resolution=32, context=12, horizon=8)
    clips = world.clips("test", rules.length, (0,), 2)
    runner = outside.load(f"{mine}:load").causal_subject("outside", rules)
    rest = runner.observe(runner.encode(clips, 0), clips, 4, 0)
    assert rest.shape[1] == 4 and runner.edits == ()
    np.testing.assert_array_equal(rest[:, -1], clips.frames[:, 12 + 3])
    assert causal.samples_of(runner, clips, rules) == 1


def test_an_export_is_a_model_from_outside():
    """It sees and foresees as the run it came from does: to a fraction of a pixel at first."""
    small = twins_world("twins:motion", 64, episodes=2, length=30)
    rules = Protocol(world=small.name, episodes=2, starts=(0,), horizon=3)
    clips = small.clips("test", rules.length, rules.starts, rules.episodes)
    model = outside.load(str(ROOT / "experiments" / "pretrained" / "motion"))
    subject = suite.with_samples(model.subject("outside", rules), clips, rules)
    assert subject.samples == 1
    instrument = Instrument(small.palette, small.resolution)
    sums = suite.measure(subject, clips, rules, instrument)[0]["position_error"]
    assert sums.total[:, 0].sum() / sums.weight[:, 0].sum() < 1.0


def test_videos_need_no_code(world, tmp_path):
    rules = Protocol(world=world.name, resolution=32, episodes=2, starts=(0, 40), horizon=5)
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    shown, made = tmp_path / "contexts", tmp_path / "videos"
    assert outside.write_contexts(clips, rules, shown) == 4
    made.mkdir()
    for path in shown.iterdir():
        frames = np.load(path)["frames"]
        assert frames.shape == (16, 32, 32, 3)
        np.save(made / f"{path.stem}.npy", np.repeat(frames[-1:], 60, 0))
    videos = {"videos": outside.Videos(made)}
    rows = judge(videos, world, rules, "wm-jax evaluate")[1]["rows"]
    assert scores(rows, "videos") == scores(rows, "copy_last")
    long = TemporalProtocol(world=world.name, resolution=32, episodes=2, starts=(0, 40), horizon=5,
                            long_horizon=60)  # fmt: skip
    rows = judge_temporal(videos, world, long, "wm-jax evaluate")[1]["rows"]
    same = ("permanence", "flicker", "coherence")
    assert scores(rows, "videos", same) == scores(rows, "copy_last", same)
    (made / "0001_0040.npy").unlink()
    with pytest.raises(UserError, match=r"0001_0040\.npy is missing"):
        judge(videos, world, rules, "wm-jax evaluate")


def test_a_video_that_is_too_short_is_named(tmp_path):
    np.save(tmp_path / "0000_0000.npy", np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"0000_0000\.npy is uint8 \(3, 32, 32, 3\) and must"):
        outside.Videos(tmp_path)._read("0000_0000", (5, 32, 32, 3))


def test_what_decode_gives_is_checked(world, mine):
    rules = Protocol(world=world.name, resolution=32, episodes=1, starts=(0,), horizon=2)
    clips = world.clips("test", rules.length, rules.starts, 1)
    model = outside.load(f"{mine}:load")
    model.model.decode = lambda state: state["last"][..., :2] / 255
    with pytest.raises(UserError, match=r"decode gave \(1, 32, 32, 2\) and must give"):
        model.subject("outside", rules).predict(clips, 0)
    model.model.decode = lambda state: state["last"] * np.nan
    with pytest.raises(UserError, match="isn't finite"):
        model.subject("outside", rules).predict(clips, 0)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nowhere", "neither a folder that wm-jax export wrote nor FILE.py:FUNCTION"),
        ("nowhere.py:load", "there is no file nowhere.py"),
        ("{mine}:no", "has no function 'no'"),
        ("{mine}:lame", "has no function 'encode'; a model has encode, step, decode"),
    ],
)
def test_bad_models_are_one_sentence(mine, name, sentence):
    with pytest.raises(UserError, match=sentence):
        outside.load(name.format(mine=mine))


def test_the_verb_scores_them_side_by_side(monkeypatch, world, mine, tmp_path, capsys):
    monkeypatch.setattr(twins_worlds, "open_world", lambda *_: world)
    monkeypatch.setattr(twins_worlds, "resolution_of", lambda *_: 32)
    monkeypatch.setattr(twins_worlds, "modalities_of", lambda *_: ("actions", "light"))
    options = ["--data", "data", "--episodes", "1", "--horizon", "4"]
    assert cli.main([*options, "--contexts", str(tmp_path / "c")]) == 0
    assert "contexts of 16 frames" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["--model", f"{mine}:load", *options, *out]) == 0
    result = json.loads((tmp_path / "out" / "evaluation" / "pixel.json").read_text())
    assert list(result["models"]) == ["outside"]
    assert "outside" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--data", "d"], "name what to score"),
        (["--model", "m.py:load"], "--data must name"),
        (["--contexts", "c", "--workdir", "runs/a"], "--data must name"),
        (["--videos", "v", "--data", "d", "--suite", "causal"], "takes no edits"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        cli.main(options)
