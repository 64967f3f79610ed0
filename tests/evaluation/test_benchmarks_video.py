"""Benchmarks that come as videos, some with masks, on tiny files of their formats."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
import skimage.morphology
from PIL import Image

from tests.evaluation.test_likeness import weights as lpips_weights
from wm_jax.errors import UserError
from wm_jax.evaluation import cli, lpips
from wm_jax.evaluation.benchmarks import (
    BENCHMARKS,
    clevrer,
    filtered_cophy,
    measures,
    page,
)
from wm_jax.evaluation.benchmarks.measures import UNMEASURED
from wm_jax.evaluation.benchmarks.scoring import judge_benchmark, open_clips
from wm_jax.evaluation.benchmarks.spec import UNITS
from wm_jax.evaluation.benchmarks.video import read_video, shrink
from wm_jax.evaluation.outside import Outside
from wm_jax.evaluation.summary import find


def write_video(path, frames):
    """Without loss, so that every byte can be asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def levels(values, height=16, width=16):
    """A frame of one grey for each value."""
    grey = np.asarray(values, np.uint8)[:, None, None, None]
    return np.ascontiguousarray(np.broadcast_to(grey, (len(grey), height, width, 3)))


class Half:
    """Half grey, whatever is shown."""

    def encode(self, frames, conditions):
        return np.full((len(frames), *frames.shape[2:]), 128 / 255)

    def step(self, state, conditions):
        return state

    def decode(self, state):
        return state


def value(result, model, metric, step=0):
    return find(result["rows"], model, metric, step)["value"]


def test_every_benchmark_says_what_its_numbers_are():
    said = cli._parser().format_help().replace(",", " ").split()
    assert BENCHMARKS.keys() <= set(said)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and set(benchmark.metrics) <= UNITS.keys()
        assert all(metrics.keys() <= set(benchmark.metrics) and metrics
                   for metrics in benchmark.published.values())  # fmt: skip
        assert bool(benchmark.published) == bool(benchmark.source)
    assert UNITS.keys() - UNMEASURED.keys() == {"mse", "psnr", "psnr_of_mse", "ssim"}


def test_perceptual_distances_are_of_the_frames_that_were_predicted(tmp_path):
    lpips_weights(tmp_path, "vgg")
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 64, 64, 3), dtype=np.uint8)
    clips = SimpleNamespace(frames=frames, covered=None)
    found = measures.measures(BENCHMARKS["clevrer"], clips, tmp_path)
    assert list(found) == ["psnr", "ssim", "lpips_vgg"]
    own = np.repeat(frames[:, 2:3], 2, 1)
    scored = measures.by_frame(found["lpips_vgg"], clips, own, 3)
    pairs = zip(frames[:, 3:], own, strict=True)
    wanted = [lpips.lpips(lpips.load(tmp_path, "vgg"), "vgg", *pair) for pair in pairs]
    np.testing.assert_allclose(scored, wanted, rtol=1e-5)
    assert list(measures.measures(BENCHMARKS["clevrer"], clips, None)) == ["psnr", "ssim"]


def test_frames_of_a_video_are_the_ones_asked_for(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 24, 3), dtype=np.uint8)
    write_video(tmp_path / "x.mp4", frames)
    found = read_video(tmp_path / "x.mp4", range(3, 40, 6))
    assert np.array_equal(found, frames[3::6])
    with pytest.raises(UserError, match="x.mp4 has 40 frames and a clip takes 42"):
        read_video(tmp_path / "x.mp4", [0, 41])
    with pytest.raises(UserError, match="there is no video"):
        read_video(tmp_path / "y.mp4", [0])
    (tmp_path / "y.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="y.mp4 is not a video that can be read"):
        read_video(tmp_path / "y.mp4", [0])


def test_without_pyav_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"av is not installed.*pip install 'wm_jax\[video\]'"):
        read_video(tmp_path / "x.mp4", [0])


def test_shrinking_takes_the_nearest_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    wide = frames.astype(np.float64)
    # A third of the columns and half of the rows: the middle one, and the mean of two.
    wanted = wide[:, :, 1::3].reshape(2, 4, 2, 4, 3).mean(2)
    assert np.abs(shrink(frames, 4) - wanted).max() <= 0.5


@pytest.fixture
def collisions(tmp_path):
    """CLEVRER: 10000 must begin at frame 14, 10001 at 0, 10002 nowhere, and 10800 is broken."""
    for number, enters in ((10000, 20), (10001, None), (10002, 60), (10800, None)):
        folder, name = "video_10000-11000", f"video_{number}"
        write_video(tmp_path / "videos/val" / folder / f"{name}.mp4", levels(range(128), 32, 48))
        seen = [(True, enters is not None and t >= enters) for t in range(128)]
        trajectory = [
            {"objects": [{"object_id": n, "inside_camera_view": x} for n, x in enumerate(pair)]}
            for pair in seen
        ]
        path = tmp_path / "annotations/val/annotation_10000-11000" / f"annotation_{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number != 10800:
            path.write_text(json.dumps({"motion_trajectory": trajectory}))
    return tmp_path


def test_clevrer_takes_every_second_frame_from_where_nothing_enters(collisions):
    benchmark = BENCHMARKS["clevrer"]
    clips = open_clips(benchmark, collisions, 8)
    assert clips.frames.shape == (2, 48, 64, 64, 3)
    assert clips.frames[0, :, 0, 0, 0].tolist() == list(range(14, 110, 2))
    assert clips.frames[1, :, 9, 9, 2].tolist() == list(range(0, 96, 2))
    assert len(open_clips(benchmark, collisions, 1).frames) == 1
    result = judge_benchmark(benchmark, {"half": Outside("half", Half())}, clips, 8, "")
    wanted = [-20 * np.log10(2 * k / 255) for k in range(1, 43)]
    assert value(result, "copy_last", "psnr", 3) == pytest.approx(wanted[2], abs=1e-4)
    assert value(result, "copy_last", "psnr") == pytest.approx(np.mean(wanted), abs=1e-4)
    html = page.render(benchmark, result, {})
    assert "SlotFormer (published)" in html and "49.42" in html
    assert "49.42" in page.terminal_table(benchmark, result)
    assert clevrer.first_start([20], 94) == 14 and clevrer.first_start([6], 94) == 0
    assert clevrer.first_start([7], 94) == 1 and clevrer.first_start([60], 94) is None


def test_what_is_wrong_with_clevrer_is_said(collisions, tmp_path):
    benchmark = BENCHMARKS["clevrer"]
    with pytest.raises(UserError, match="is no folder; --data must hold videos/val"):
        open_clips(benchmark, tmp_path / "none", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no videos/val"):
        open_clips(benchmark, tmp_path / "empty", 1)
    path = collisions / "annotations/val/annotation_10000-11000/annotation_10000.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="is not an annotation of CLEVRER"):
        open_clips(benchmark, collisions, 1)
    path.unlink()
    with pytest.raises(UserError, match="it says when an object enters video_10000.mp4"):
        open_clips(benchmark, collisions, 1)


@pytest.fixture
def counterfactuals(tmp_path):
    """CollisionCF: a white square on grey, that moves down in AB and to the right in CD."""
    for number in (3, 7, 11):
        for part in ("ab", "cd"):
            frames = levels([100] * 75, 32, 32)
            for t, frame in enumerate(frames):
                corner = (2 + t // 4, number) if part == "ab" else (number, 2 + t // 4)
                frame[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = 250
            write_video(tmp_path / str(number) / part / "rgb.mp4", frames)
    (tmp_path / "collisionCF_test").write_text("7\n3\n")
    (tmp_path / "backgrounds").mkdir()
    for scene, grey in enumerate((0, 60, 100, 200)):
        picture = Image.fromarray(levels([grey], 32, 32)[0])
        picture.save(tmp_path / "backgrounds" / f"plane_{scene}.png")
    return tmp_path


def test_cophy_shows_ab_then_c_and_asks_for_d(counterfactuals):
    benchmark = BENCHMARKS["cophy_collision"]
    clips = open_clips(benchmark, counterfactuals, 8)
    assert benchmark.context == 76 and benchmark.horizon == 74
    assert clips.frames.shape == (2, 150, 32, 32, 3)
    # The first experiment of the list is 7: B's last frame, then C, then D.
    places = [np.argwhere(clips.frames[0, t, ..., 0] == 250).min(0).tolist() for t in (74, 75, 149)]
    assert places == [[20, 7], [7, 2], [7, 20]]
    assert not clips.covered[:, :75].any() and (clips.covered[:, 75:].sum((2, 3)) == 64).all()
    result = judge_benchmark(benchmark, {"half": Outside("half", Half())}, clips, 8, "")
    inside, outside_it = 64 * (250 - 128) ** 2, (1024 - 64) * (100 - 128) ** 2
    for metric, total in (("l_psnr", inside), ("psnr", inside + outside_it)):
        wanted = -10 * np.log10(total / 1024 / 255**2)
        assert value(result, "half", metric) == pytest.approx(wanted, abs=1e-4)
        assert value(result, "half", metric, 74) == pytest.approx(wanted, abs=1e-4)
    assert "CoDy (2N) (published)" in page.render(benchmark, result, {})


def test_cophy_without_backgrounds_leaves_its_local_score_out(counterfactuals):
    benchmark = BENCHMARKS["cophy_collision"]
    (counterfactuals / "backgrounds" / "plane_2.png").unlink()
    with pytest.raises(UserError, match="plane_2.png is missing: backgrounds/ holds 4"):
        open_clips(benchmark, counterfactuals, 1)
    (counterfactuals / "backgrounds").rename(counterfactuals / "other")
    clips = open_clips(benchmark, counterfactuals, 1)
    result = judge_benchmark(benchmark, {"half": Outside("half", Half())}, clips, 1, "")
    rows = [row for row in result["rows"] if row["metric"] == "l_psnr"]
    assert [row["value"] for row in rows] == [None] * 3
    assert rows[0]["note"] == UNMEASURED["l_psnr"]
    (counterfactuals / "7" / "cd" / "rgb.mp4").unlink()
    with pytest.raises(UserError, match="there is no video .*7/cd/rgb.mp4"):
        open_clips(benchmark, counterfactuals, 1)
    (counterfactuals / "collisionCF_test").unlink()
    with pytest.raises(UserError, match="has no collisionCF_test.txt, the list of test"):
        open_clips(benchmark, counterfactuals, 1)


def test_a_foreground_is_what_differs_from_the_nearest_scene_closed_by_one_pixel():
    rng = np.random.default_rng(0)
    there = rng.uniform(size=(5, 12, 12)) < 0.3
    frames = np.where(there[..., None], np.uint8(250), levels([100] * 5, 12, 12))
    scenes = levels([0, 100], 12, 12) / 255
    wanted = np.stack([skimage.morphology.closing(frame) for frame in there])
    assert (wanted != there).any()
    assert np.array_equal(filtered_cophy.foreground(frames, scenes), wanted)
    with pytest.raises(UserError, match=r"pictures of \(12, 12\) px and the videos have \(8, 12\)"):
        filtered_cophy.foreground(frames[:, :8], scenes)
