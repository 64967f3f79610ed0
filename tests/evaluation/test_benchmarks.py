"""Published benchmarks, on tiny files of their formats."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from wm_jax.errors import UserError
from wm_jax.evaluation import cli, outside, pixel
from wm_jax.evaluation.benchmarks import BENCHMARKS, page
from wm_jax.evaluation.benchmarks.scoring import judge_benchmark, open_clips
from wm_jax.evaluation.summary import find

MINE = '''
import numpy as np


class Mine:
    """Half grey, whatever is shown."""

    def encode(self, frames, conditions):
        return np.full((len(frames), *frames.shape[2:]), 0.5)

    def step(self, state, conditions):
        return state

    def decode(self, state):
        return state
'''


@pytest.fixture
def mnist(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", frames)
    return tmp_path


@pytest.fixture
def obj3d(tmp_path):
    rng = np.random.default_rng(0)
    for clip in ("0", "1"):
        (tmp_path / "test" / clip).mkdir(parents=True)
        for t in range(52):
            frame = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            frame[0, 0] = t
            Image.fromarray(frame).save(tmp_path / "test" / clip / f"test_{t}.png")
    return tmp_path


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return outside.load(f"{tmp_path / 'mine.py'}:Mine")


def test_moving_mnist_is_scored_by_sums_over_pixels(mnist, mine):
    benchmark = BENCHMARKS["moving_mnist"]
    clips = open_clips(benchmark, mnist, 2)
    assert clips.frames.shape == (2, 20, 64, 64, 3)
    result = judge_benchmark(benchmark, {"outside": mine}, clips, 2, "wm-jax evaluate")
    grey = np.load(mnist / "mnist_test_seq.npy")[10:, :2] / 255
    wanted = np.square(grey - 128 / 255).sum((2, 3))
    rows = result["rows"]
    assert find(rows, "outside", "mse", 0)["value"] == pytest.approx(wanted.mean(), rel=1e-6)
    assert find(rows, "outside", "mse", 3)["value"] == pytest.approx(wanted[2].mean(), rel=1e-6)
    psnr = -10 * np.log10(wanted.mean() / 64**2)
    assert find(rows, "outside", "psnr_of_mse", 0)["value"] == pytest.approx(psnr, rel=1e-6)
    last = np.square(grey - np.load(mnist / "mnist_test_seq.npy")[9, :2] / 255).sum((2, 3)).mean()
    assert find(rows, "copy_last", "mse", 0)["value"] == pytest.approx(last, rel=1e-6)
    assert result["published"]["values"]["SimVP"]["mse"] == 26.69
    assert result["protocol"]["context"] == result["protocol"]["horizon"] == 10
    assert result["protocol"]["reduction"].startswith("mse is the sum over the pixels")
    html = page.render(benchmark, result, {"outside": mine})
    assert "SimVP (published)" in html and "OpenSTL" in html
    assert "PhyDNet (published)" in page.terminal_table(benchmark, result)


def test_obj3d_frames_come_in_the_order_of_their_numbers(obj3d, mine):
    benchmark = BENCHMARKS["obj3d"]
    clips = open_clips(benchmark, obj3d, 8)
    assert clips.frames.shape == (2, 50, 64, 64, 3)
    assert clips.frames[1, :, 0, 0, 0].tolist() == list(range(50))
    result = judge_benchmark(benchmark, {"outside": mine}, clips, 8, "wm-jax evaluate")
    half = np.full_like(clips.frames[:, 6:], 128)
    wanted = np.asarray(pixel.psnr(clips.frames[:, 6:], half)).mean()
    assert find(result["rows"], "outside", "psnr", 0)["value"] == pytest.approx(wanted, rel=1e-5)
    (row,) = (r for r in result["rows"] if (r["model"], r["metric"]) == ("outside", "lpips_vgg"))
    assert row["value"] is None and row["note"].startswith("not measured")


def test_the_verb_scores_a_folder_of_videos(mnist, tmp_path, capsys):
    base = ["--benchmark", "moving_mnist", "--data", str(mnist)]
    assert cli.main([*base, "--contexts", str(tmp_path / "shown")]) == 0
    for path in (tmp_path / "shown").glob("*.npz"):
        last = np.load(path)["frames"][-1:]
        np.save(tmp_path / f"{path.stem}.npy", np.repeat(last, 10, 0))
    out = tmp_path / "out"
    assert cli.main([*base, "--videos", str(tmp_path), "--out", str(out)]) == 0
    result = json.loads((out / "evaluation" / "moving_mnist.json").read_text())
    values = [find(result["rows"], model, "mse", 0)["value"] for model in ("videos", "copy_last")]
    assert values[0] == values[1]
    assert "published" in capsys.readouterr().out
    assert (out / "report" / "index.html").is_file()


def test_what_is_missing_or_wrong_is_said(tmp_path, mnist):
    mnist_test, other = BENCHMARKS["moving_mnist"], BENCHMARKS["obj3d"]
    with pytest.raises(UserError, match="is no folder; --data must hold mnist_test_seq.npy"):
        open_clips(mnist_test, tmp_path / "none", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no mnist_test_seq.npy"):
        open_clips(mnist_test, tmp_path / "empty", 2)
    np.save(mnist / "mnist_test_seq.npy", np.zeros((19, 3, 64, 64), np.uint8))
    with pytest.raises(UserError, match=r"is uint8 \(19, 3, 64, 64\) and must be"):
        open_clips(mnist_test, mnist, 2)
    with pytest.raises(UserError, match="has no folder 'test'"):
        open_clips(other, tmp_path, 2)
    (tmp_path / "test" / "0").mkdir(parents=True)
    with pytest.raises(UserError, match="has 0 frames and a clip takes 50"):
        open_clips(other, tmp_path, 2)
    base = ["--benchmark", "moving_mnist", "--data", "x", "--videos", "y"]
    for option in (["--horizon", "60"], ["--suite", "pixel"], ["--split", "test"]):
        with pytest.raises(UserError, match=f"its own rules; leave out {option[0]}"):
            cli.main([*base, *option])
    args = cli._parser().parse_args(["--benchmark", "mnist", "--data", "x", "--videos", "y"])
    with pytest.raises(UserError, match="moving_mnist"):
        cli.evaluate_benchmark(args, "")
