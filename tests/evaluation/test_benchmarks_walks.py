"""TECO's walks through DMLab and Minecraft: videos with actions, on tiny files of their formats."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.test_benchmarks_video import Half, levels, value, write_video
from wm_jax.errors import UserError
from wm_jax.evaluation import distribution, i3d, outside
from wm_jax.evaluation.benchmarks import BENCHMARKS, page, teco
from wm_jax.evaluation.benchmarks.measures import UNMEASURED
from wm_jax.evaluation.benchmarks.scoring import judge_benchmark, open_clips, told_of
from wm_jax.evaluation.outside import Outside, write_contexts
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.summary import find


class Acted:
    """Paints the number of the action it is told, times 40."""

    conditions = ("actions",)

    def encode(self, frames, conditions):
        assert conditions["actions"].shape == (*frames.shape[:2], 6)
        return np.zeros((len(frames), *frames.shape[2:]))

    def step(self, state, conditions):
        number = conditions["actions"].argmax(-1)[:, None, None, None]
        return np.broadcast_to(number * 40 / 255, state.shape)

    def decode(self, state):
        return state


class Chosen(Acted):
    """The same, of one that is told which."""

    conditions = ("discrete_actions",)

    def encode(self, frames, conditions):
        assert conditions["discrete_actions"].shape == (*frames.shape[:2], 1)
        return np.zeros((len(frames), *frames.shape[2:]))

    def step(self, state, conditions):
        number = conditions["discrete_actions"][..., None, None]
        return np.broadcast_to(number * 40 / 255, state.shape)


@pytest.fixture
def mazes(tmp_path):
    """DMLab: the grey of a frame is the number of the action that led to it, times 40."""
    rng = np.random.default_rng(0)
    for number in (1, 0):
        actions = rng.integers(0, 4, 300)
        path = tmp_path / "test" / str(number) / "000000.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, video=levels(actions * 40), actions=actions.astype(np.int32))
    return tmp_path


def test_dmlab_tells_the_action_that_leads_to_a_frame(mazes):
    for name, context in (("dmlab", 36), ("dmlab_144", 144)):
        benchmark = BENCHMARKS[name]
        clips = open_clips(benchmark, mazes, 8)
        assert clips.frames.shape == (2, 300, 16, 16, 3) and benchmark.context == context
        first = np.load(mazes / "test" / "0" / "000000.npz")
        assert np.array_equal(clips.frames[0], first["video"])
        runs = {"acted": Outside("acted", Acted()), "half": Outside("half", Half())}
        runs["chosen"] = Outside("chosen", Chosen())
        result = judge_benchmark(benchmark, runs, clips, 8, "")
        assert value(result, "acted", "psnr", 1) == value(result, "acted", "psnr") == 100
        assert value(result, "chosen", "psnr") == 100
        assert value(result, "half", "psnr") < 30
        told = {name: about["told"] for name, about in result["models"].items()}
        assert told == {"acted": ["actions"], "half": [], "chosen": ["discrete_actions"]}
        assert ("fvd" in benchmark.metrics) == (context == 36)
    (row,) = (r for r in judge_rows(mazes, "fvd") if r["model"] == "acted")
    assert row["value"] is None and row["note"] == UNMEASURED["fvd"]


def judge_rows(folder, metric):
    benchmark = BENCHMARKS["dmlab"]
    clips = open_clips(benchmark, folder, 1)
    result = judge_benchmark(benchmark, {"acted": Outside("acted", Acted())}, clips, 1, "")
    return [row for row in result["rows"] if row["metric"] == metric]


def test_who_takes_other_actions_is_told_none(mazes):
    clips = open_clips(BENCHMARKS["dmlab"], mazes, 1)
    for takes, wanted in (
        ({"actions": 2}, ()),
        ({"actions": 6}, ("actions",)),
        ({"actions": 2, "discrete_actions": 1}, ("discrete_actions",)),
        (("discrete_actions", "light"), ("discrete_actions",)),
        ((), ()),
    ):
        model = SimpleNamespace(conditions=takes)
        assert told_of(Outside("x", model), clips) == wanted
    for takes, wanted in (("actions", ()), ("discrete_actions", ("discrete_actions",))):
        run = SimpleNamespace(settings=lambda takes=takes: {"model": {"modalities": (takes,)}})
        assert told_of(run, clips) == wanted
    assert told_of(outside.Videos(mazes), clips) == ("actions", "discrete_actions")
    count = write_contexts(clips, Protocol(context=36), mazes / "shown")
    shown = np.load(mazes / "shown" / "0000_0000.npz")
    assert count == 1 and shown["frames"].shape[0] == 36 and shown["actions"].shape == (300, 6)


def test_fvd_is_of_whole_clips_with_what_was_shown(mazes, tmp_path, monkeypatch):
    def features(net, frames):
        assert frames.shape == (1, 300, 16, 16, 3)
        grey = frames.mean((2, 3, 4))
        return np.stack([grey[:, :36].mean(1), grey[:, 36:].mean(1)], 1)

    monkeypatch.setattr(i3d, "load", lambda folder: None)
    monkeypatch.setattr(i3d, "logits", features)
    (tmp_path / i3d.FILE).touch()
    benchmark = BENCHMARKS["dmlab"]
    clips = open_clips(benchmark, mazes, 8)
    runs = {"acted": Outside("acted", Acted())}
    result = judge_benchmark(benchmark, runs, clips, 8, "", tmp_path)
    row = find(result["rows"], "acted", "fvd", 0)
    assert row["value"] == pytest.approx(0, abs=1e-6)
    assert (row["clips"], row["frames"]) == (2, 300)
    still = clips.frames.copy()
    still[:, 36:] = still[:, 35:36]
    pair = (np.concatenate([features(None, c[None]) for c in x]) for x in (clips.frames, still))
    wanted = distribution.frechet(*pair)
    assert value(result, "copy_last", "fvd") == pytest.approx(wanted, rel=1e-5) and wanted > 1
    assert "those frames included" in page.render(benchmark, result, runs)


def test_minecraft_reads_videos_and_the_actions_beside_them(tmp_path):
    actions = np.random.default_rng(0).integers(0, 4, 300)
    for name in ("a", "b"):
        write_video(tmp_path / "test" / "0" / f"{name}.mp4", levels(np.arange(301) % 256))
    np.savez(tmp_path / "test" / "0" / "b.npz", actions=actions)
    benchmark = BENCHMARKS["minecraft_144"]
    clips = open_clips(benchmark, tmp_path, 8)
    assert clips.frames.shape == (2, 300, 16, 16, 3)
    assert clips.frames[1, :, 3, 3, 1].tolist() == [t % 256 for t in range(300)]
    told = clips.conditions.actions
    assert not told.mask[0].any() and told.mask[1].tolist() == [True] * 299 + [False]
    assert np.array_equal(np.asarray(told.value)[1, :-1].argmax(-1), actions[1:])
    result = judge_benchmark(benchmark, {"half": Outside("half", Half())}, clips, 8, "")
    grey = np.arange(144, 300) % 256
    wanted = -20 * np.log10(np.maximum(np.abs(grey - 143.0), 1e-5) / 255)
    assert value(result, "copy_last", "psnr") == pytest.approx(wanted.mean(), abs=1e-3)


def test_what_is_wrong_with_walks_is_said(tmp_path):
    maze, craft = BENCHMARKS["dmlab"], BENCHMARKS["minecraft"]
    for benchmark, ending in ((maze, "npz"), (craft, "mp4")):
        with pytest.raises(UserError, match=f"has no test/FOLDER/NAME.{ending}"):
            open_clips(benchmark, tmp_path, 1)
    path = tmp_path / "test" / "0" / "x.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="x.npz is no file of arrays with video, actions"):
        open_clips(maze, tmp_path, 1)
    cases = (
        (levels(range(200)), np.zeros(300, int), "has 200 frames and a clip takes 300"),
        (levels([0] * 300)[..., 0], np.zeros(300, int), "not uint8 "),
        (levels([0] * 300), np.full(300, 6), "whole numbers from 0 to 5"),
        (levels([0] * 300), np.zeros(299, int), "must be at least 300"),
    )
    for video, actions, sentence in cases:
        np.savez(path, video=video, actions=actions)
        with pytest.raises(UserError, match=sentence):
            open_clips(maze, tmp_path, 1)
    np.savez(path, video=video)
    with pytest.raises(UserError, match="x.npz is no file of arrays with"):
        open_clips(maze, tmp_path, 1)
    np.savez(path, video=levels([0] * 300), actions=np.zeros(300, int))
    np.savez(path.with_name("y.npz"), video=levels([0] * 300, 8), actions=np.zeros(300, int))
    with pytest.raises(UserError, match=r"y.npz has frames of \(8, 16\) px and .*x.npz of"):
        open_clips(maze, tmp_path, 2)


def test_actions_move_to_the_frame_they_are_taken_at():
    signal = teco.signal([np.array([0, 3, 1]), None], 3)
    wanted = np.zeros((2, 3, 6))
    wanted[0, 0, 3] = wanted[0, 1, 1] = 1
    assert np.array_equal(signal.value, wanted)
    assert signal.mask.tolist() == [[True, True, False], [False] * 3]
