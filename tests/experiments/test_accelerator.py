"""What a chip makes of a size, and many runs in one program: on this machine's own device."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
ROOT = FOLDER.parents[1]


@pytest.fixture
def script(monkeypatch):
    """A benchmark as it is when run by its path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize(
    "name, kind",
    [
        ("nvjet_sm90_tst_320x128_64x3_1x2_h_bz_coopB_NTT", "matrix products"),
        ("gemm_fusion_dot_138", "matrix products"),
        ("input_transpose_fusion_56", "copies"),
        ("input_reduce_slice_fusion_8", "reductions"),
        ("loop_add_fusion_8", "the rest, fused"),
        ("triton_softmax_15", "others"),
    ],
)
def test_kernels_are_told_apart(script, name, kind):
    assert script("accelerator")._kind(name) == kind


@pytest.mark.slow
@pytest.mark.ci
def test_a_debug_size_is_measured(script, monkeypatch, tmp_path):
    accelerator = script("accelerator")
    out = tmp_path / "rows.json"
    arguments = "--variant debug --cases 2:none,2:full --rounds 2 --updates 1 --matmul 64 --peak 1"
    arguments += f" --gradients 2 --out {out} --config.model.resolution=16 --config.data.window=4"
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *arguments.split()])
    assert accelerator.main() == 0
    first, plain, again, gradients = json.loads(out.read_text())
    assert first["bfloat16_teraflops"] > 0 and first["peak_teraflops"] == 1
    assert plain["done_teraflop"] == plain["model_teraflop"] == again["model_teraflop"]
    assert again["done_teraflop"] > again["model_teraflop"]  # what is computed anew
    for row in (plain, again):
        assert row["mfu"] == pytest.approx(row["model_teraflop"] / row["seconds"])
        assert row["frames_per_second"] == pytest.approx(2 * 4 / row["seconds"])
    assert gradients["chip, float32"]["largest"] == 0  # the chip is the CPU
    assert gradients["chip, bfloat16"] == gradients["cpu, bfloat16"]
    assert 1e-4 < gradients["cpu, bfloat16"]["median"] < 0.05


@pytest.mark.slow
@pytest.mark.ci
def test_many_runs_are_each_their_own(script, monkeypatch, tmp_path):
    many = script("many_runs")
    frames = np.stack([episode["frames"] for episode in tiny.episodes(4, 8, 16)])
    monkeypatch.setattr(many, "frames_of", lambda data, config: frames)
    monkeypatch.setattr(many, "CHUNK", 5)
    monkeypatch.chdir(ROOT)
    sizes = {
        "model.resolution": 16,
        "data.window": 4,
        "train.batch_size": 2,
        "model.dynamics.deter": 32,
        "model.dynamics.hidden": 16,
        "model.dynamics.stoch": 4,
    }
    arguments = "--config experiments/configs/twins.py:quickstart_rssm --data none --updates 10 "
    arguments += f"--rates 0,1e-3 --seeds 0,1 --out {tmp_path} "
    arguments += " ".join(f"--config.{key}={value}" for key, value in sizes.items())
    monkeypatch.setattr(sys, "argv", ["many_runs.py", *arguments.split()])
    assert many.main() == 0
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["updates"] == 10 and about["frames_an_update"] == 8
    assert [run["learning_rate"] for run in about["kept"]] == [0, 0, 1e-3, 1e-3]
    rows = json.loads((tmp_path / "losses.json").read_text())
    assert [row["update"] for row in rows] == [5, 10]
    still, moved = rows[-1]["train/update_norm"][:2], rows[-1]["train/update_norm"][2:]
    assert still == [0, 0] and min(moved) > 0
    weights = np.load(tmp_path / "params.npz")
    kernels = [weights[name] for name in weights.files if name.endswith("kernel")]
    assert all((kernel[0] != kernel[1]).any() for kernel in kernels[:1])  # seeds differ
    assert any((kernel[0] != kernel[2]).any() for kernel in kernels)  # and so do rates
