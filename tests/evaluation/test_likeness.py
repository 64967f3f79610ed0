"""LPIPS from PyTorch's files, distances of sets of clips, and what is said where there are none."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import pytest
import scipy.linalg

from tests.evaluation import torch_file
from wm_jax.errors import UserError
from wm_jax.evaluation import cli, distribution, i3d, lpips, suite, torch_files
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.likeness import Likeness, coverage
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.tracker import Tracks

WIDTHS = {"alex": (4, 6, 8, 8, 6), "vgg": (4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8)}


def weights(folder, net, seed=0):
    """Narrow nets of the same layers, in PyTorch's files."""
    rng = np.random.default_rng(seed)
    file, layers = lpips.NETS[net]
    channels, taps, tensors, linear = 3, 0, {}, {}
    for layer, width in zip(layers, WIDTHS[net], strict=True):
        side = {0: 11, 3: 5}.get(layer.number, 3) if net == "alex" else 3
        kernel = rng.normal(size=(width, channels, side, side)) / np.sqrt(channels * side**2)
        tensors[f"features.{layer.number}.weight"] = kernel.astype(np.float32)
        tensors[f"features.{layer.number}.bias"] = rng.normal(size=width).astype(np.float32) * 0.1
        channels = width
        if layer.tap:
            linear[f"lin{taps}.model.1.weight"] = rng.uniform(size=(1, width, 1, 1)).astype("f4")
            taps += 1
    torch_file.save(folder / file, tensors)
    torch_file.save(folder / f"lpips_{net}.pth", linear, legacy=True)
    return tensors, linear


def convolve(x, kernel, bias, stride, pad):
    """(c, h, w) by sums over windows."""
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    side = kernel.shape[-1]
    seen = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    seen = seen[:, ::stride, ::stride]
    return np.maximum(np.einsum("chwij,ocij->ohw", seen, kernel) + bias[:, None, None], 0)


def pooled(x, size, stride):
    seen = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return seen[:, ::stride, ::stride].max((-1, -2))


def by_hand(tensors, linear, net, truth, frame):
    """Equation 1 of the paper, one pair, in float64."""
    features = []
    for picture in (truth, frame):
        x = np.moveaxis(picture / 127.5 - 1, -1, 0)
        x = (x - lpips.SHIFT[:, None, None]) / lpips.SCALE[:, None, None]
        taps = []
        for layer in lpips.NETS[net][1]:
            x = pooled(x, *layer.pool) if layer.pool else x
            kernel, bias = (tensors[f"features.{layer.number}.{n}"] for n in ("weight", "bias"))
            x = convolve(x, kernel.astype(np.float64), bias, layer.stride, layer.pad)
            if layer.tap:
                taps.append(x / (np.linalg.norm(x, axis=0) + 1e-10))
        features.append(taps)
    total = 0.0
    for number, (a, b) in enumerate(zip(*features, strict=True)):
        line = linear[f"lin{number}.model.1.weight"].reshape(-1)
        total += np.einsum("chw,c->hw", (a - b) ** 2, line).mean()
    return total


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_sum_over_layers_that_the_paper_writes(tmp_path, net):
    tensors, linear = weights(tmp_path, net)
    assert lpips.available(tmp_path) == [net]
    rng = np.random.default_rng(1)
    truth, frames = rng.integers(0, 256, (2, 2, 64, 64, 3), dtype=np.uint8)
    found = np.asarray(lpips.lpips(lpips.load(tmp_path, net), net, truth, frames))
    wanted = [by_hand(tensors, linear, net, *pair) for pair in zip(truth, frames, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=2e-4)
    same = lpips.lpips(lpips.load(tmp_path, net), net, truth, truth)
    assert np.abs(np.asarray(same)).max() < 1e-6


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_both_kinds_are_read_to_the_last_bit(tmp_path, legacy):
    rng = np.random.default_rng(0)
    tensors = {
        "a.weight": rng.normal(size=(2, 3)).astype("f4"),
        "b": rng.normal(size=4).astype("f2"),
    }
    torch_file.save(tmp_path / "x.pth", tensors, legacy)
    found = torch_files.load(tmp_path / "x.pth")
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def test_a_file_that_is_something_else_is_refused(tmp_path, capsys):
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(Harm()))
    for content in (path.read_bytes(), b"", b"nothing of the kind"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a file of PyTorch weights"):
            torch_files.load(path)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="there are no weights in"):
        torch_files.load(tmp_path / "y.pth")
    tensors, _ = weights(tmp_path, "alex")
    torch_file.save(tmp_path / "alexnet.pth", {"features.0.weight": tensors["features.0.weight"]})
    with pytest.raises(UserError, match="is not torchvision's: 'features.0.bias' does not fit"):
        lpips.load(tmp_path, "alex")
    args = cli._parser().parse_args(["--workdir", "x", "--weights", str(tmp_path / "none")])
    with pytest.raises(UserError, match="is no folder"):
        cli._check(args)


def test_frechet_is_what_the_matrix_root_says():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) @ rng.normal(size=(5, 5)) + 0.3
    cov = [np.cov(z, rowvar=False) for z in (x, y)]
    off = np.square(x.mean(0) - y.mean(0)).sum()
    wanted = off + np.trace(cov[0] + cov[1] - 2 * np.real(scipy.linalg.sqrtm(cov[0] @ cov[1])))
    assert distribution.frechet(x, y) == pytest.approx(wanted, rel=1e-6)
    assert distribution.frechet(x, x) == pytest.approx(0, abs=1e-8)
    twice = distribution.frechet(np.concatenate([x, x[:50]]), y)
    weighted = distribution.frechet(x, y, 1.0 + (np.arange(200) < 50), np.ones(150))
    assert weighted == pytest.approx(twice)


def test_the_kernel_distance_is_the_unbiased_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(5, 3)) + 1
    k = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    within = [np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])
              for z in (x, y)]  # fmt: skip
    across = np.mean([k(a, b) for a in x for b in y])
    assert distribution.kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across)
    draws = [distribution.kernel_distance(*rng.normal(size=(2, 20, 3))) for _ in range(300)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)


def test_fvd_needs_all_of_its_network(tmp_path):
    """That its numbers are right is told beside PyTorch: `test_against_torch.py`."""
    torch_file.save(tmp_path / i3d.FILE, {"logits.conv3d.weight": np.zeros((2, 3), "f4")})
    with pytest.raises(UserError, match="is not I3D's: it has no 'Conv3d_1a_7x7.conv3d.weight'"):
        i3d.load(tmp_path)
    assert len(i3d.units()) == 3 + 9 * 6
    rng, channels, tensors = np.random.default_rng(0), 3, {}
    for unit in i3d.units():
        last = unit.split(".")[-1]
        side = int(unit[-1]) if unit == last else 3 if last in ("b1b", "b2b") else 1
        wide = 2 if side == 3 and unit != last else channels
        tensors[f"{unit}.conv3d.weight"] = rng.normal(size=(2, wide, side, side, side)).astype("f4")
        for name in i3d.NORM:
            tensors[f"{unit}.bn.{name}"] = np.ones(2, "f4")
        channels = 2 if unit == last else 8 if last == "b3b" else channels
    tensors["logits.conv3d.weight"] = rng.normal(size=(5, 8, 1, 1, 1)).astype("f4")
    tensors["logits.conv3d.bias"] = np.zeros(5, "f4")
    torch_file.save(tmp_path / i3d.FILE, tensors)
    frames = rng.integers(0, 256, (1, 16, 32, 32, 3), dtype=np.uint8)
    found = np.asarray(i3d.logits(i3d.load(tmp_path), frames))
    assert found.shape == (1, 5) and np.isfinite(found).all()


def test_rows_of_what_is_and_of_what_is_not_measured(world, protocol, clips, instrument, tmp_path):
    weights(tmp_path, "alex")
    likeness = Likeness(clips, protocol, instrument, tmp_path)
    future = clips.frames[:, protocol.context :]
    last = clips.frames[:, protocol.context - 1 : protocol.context]
    still = np.repeat(last, protocol.horizon, 1)
    for name, frames in (("truth", future), ("still", still)):
        subject = Subject(
            name, lambda batch, _, frames=frames: Prediction(frames[: len(batch.unit)])
        )
        suite.measure(subject, clips, protocol, instrument, watch=likeness.watch(name))
    rows = likeness.rows(3, ["still"])
    value = {(r["model"], r["metric"], r["step"]): r["value"] for r in rows}
    for metric in ("motion_distance", "motion_kernel_distance"):
        assert abs(value["truth", metric, 0]) < 0.05 < value["still", metric, 0]
    assert value["truth", "lpips_alex", 5] < 1e-5 < value["still", "lpips_alex", 5]
    missing = [r for r in rows if r["metric"] in ("lpips_vgg", "fvd")]
    assert len(missing) == 4
    assert all(r["value"] is None and r["note"].startswith("not measured") for r in missing)
    sets = [r for r in rows if r["metric"].startswith("motion")]
    assert all((r["clips"], r["frames"]) == (len(clips.unit), protocol.horizon) for r in sets)


def test_samples_from_the_truths_own_distribution_cover_it_as_often_as_they_must(clips, protocol):
    """Seven times in nine with eight samples; hardly ever if they all say nearly the same."""
    truth = jax.tree.map(lambda x: x[:, protocol.context :], clips.truth)
    rng = np.random.default_rng(0)
    shape = (*truth.hue.shape[:2], 9)

    def tracks(spread, off):
        position = np.full((*shape, 2), np.nan, np.float32)
        present = np.zeros(shape, bool)
        at = np.nonzero(truth.present & (truth.visible >= protocol.visible_share))
        where = at[0], at[1], truth.hue[at]
        present[where] = True
        position[where] = truth.centroid[at] + off[at] + rng.normal(0, spread, (len(at[0]), 2))
        none = np.zeros(shape, int)
        return Tracks(present, position, none.astype(np.float32), none, none)

    off = rng.normal(0, 2.0, (*truth.hue.shape, 2))
    for spread, low, high in ((2.0, 0.75, 0.81), (0.1, 0.0, 0.2)):
        total, count = coverage([tracks(spread, off) for _ in range(8)], truth, protocol)
        assert low < total.sum() / count.sum() < high
    gone = tracks(2.0, off)._replace(present=np.zeros(shape, bool))
    assert coverage([gone, gone], truth, protocol)[1].sum() == 0


def test_only_a_stochastic_model_has_a_coverage(world, protocol, clips, instrument):
    likeness = Likeness(clips, protocol, instrument)
    future = clips.frames[:, protocol.context :]

    def noisy(batch, sample):
        return Prediction(np.roll(future[: len(batch.unit)], sample - 1, axis=3))

    for name, samples in (("one", 1), ("three", 3)):
        subject = Subject(name, noisy, samples)
        suite.measure(subject, clips, protocol, instrument, watch=likeness.watch(name))
    rows = [r for r in likeness.rows(None, []) if r["metric"] == "coverage"]
    assert {r["model"] for r in rows} == {"three"} and len(rows) == protocol.horizon
    assert all(r["nominal"] == 0.5 for r in rows)
    assert 0.3 < np.mean([r["value"] for r in rows]) <= 1
