"""Published benchmarks of video prediction, by the protocol they were published with.

Files are read from a given folder, as their authors spread them. What others have published stands
beside what is measured, with its source; a number that nobody could check here is left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wm_jax import shapes
from wm_jax.errors import UserError
from wm_jax.evaluation import lpips, parts, pixel, report, statistics, suite
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.judge import Tested
from wm_jax.evaluation.protocol import Protocol, split_hash
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.summary import find, label
from wm_jax.evaluation.world import Clips, Truth
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress

UNITS = {"mse": "1/frame", "psnr": "dB", "psnr_of_mse": "dB", "ssim": "1", "lpips_vgg": "1"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Frames shown and predicted, what is scored, and what is known.

    read:      at most so many clips of a folder, uint8 (r, context + horizon, h, w, 3)
    files:     what the folder must hold, in words
    metrics:   mse is the sum over the pixels of a frame of squared errors of grey values in [0, 1];
               psnr_of_mse follows from it (that of the mean error, not a mean of PSNRs); psnr and
               ssim are means over frames
    published: method -> metric -> value, from ``source``
    """

    name: str
    about: str
    context: int
    horizon: int
    read: Callable[[Path, int, int], UInt8[np.ndarray, "r t h w 3"]]
    files: str
    metrics: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    source: str = ""


def _moving_mnist(folder: Path, length: int, clips: int) -> UInt8[np.ndarray, "r t h w 3"]:
    path = folder / "mnist_test_seq.npy"
    if not path.is_file():
        raise UserError(f"{folder} has no mnist_test_seq.npy, the test set of Moving MNIST.")
    try:
        frames = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{path} is not an array of NumPy ({error}).") from None
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != length:
        raise UserError(
            f"{path} is {frames.dtype} {frames.shape} and must be uint8 ({length}, clips, h, w)."
        )
    grey = np.moveaxis(np.asarray(frames[:, :clips]), 1, 0)
    return np.repeat(grey[..., None], 3, -1)


def _obj3d(folder: Path, length: int, clips: int) -> UInt8[np.ndarray, "r t h w 3"]:
    episodes = sorted(path for path in (folder / "test").glob("*") if path.is_dir())[:clips]
    if not episodes:
        raise UserError(f"{folder} has no folder 'test' with a folder of frames for each clip.")
    out = []
    for episode in episodes:
        files = sorted(episode.glob("*.png"), key=_number)[:length]
        if len(files) < length:
            raise UserError(f"{episode} has {len(files)} frames and a clip takes {length}.")
        out.append(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    return np.stack(out)


def _number(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    if not found:
        raise UserError(f"{path}: the name of a frame holds its number.")
    return int(found[-1])


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "moving_mnist",
            "Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681), 10 frames to 10",
            10,
            10,
            _moving_mnist,
            "mnist_test_seq.npy, uint8 (20, 10000, 64, 64)",
            ("mse", "psnr_of_mse", "ssim"),
            {
                "ConvLSTM-S": {"mse": 46.26, "ssim": 0.878},
                "PhyDNet": {"mse": 35.68, "ssim": 0.917},
                "SimVP": {"mse": 26.69, "ssim": 0.940},
                "PredRNN": {"mse": 25.04, "ssim": 0.944},
                "SimVP.V2": {"mse": 15.05, "ssim": 0.967},
            },
            "OpenSTL, docs/en/model_zoos/video_benchmarks.md. Its PSNR is left out: there 37.97 dB "
            "stands beside an MSE of 32.15 over 64x64 pixels, which is 21.05 dB. SSIM has other "
            "windows in other codebases; compare MSE first.",
        ),
        Benchmark(
            "obj3d",
            "OBJ3D (Lin et al. 2020, arXiv 2010.02054), as in SlotFormer: 6 frames to 44",
            6,
            44,
            _obj3d,
            "test/CLIP/NAME_NUMBER.png, 64x64, at least 50 frames a clip",
            ("psnr", "ssim", "lpips_vgg"),
        ),
    )
}


def open_clips(benchmark: Benchmark, folder: Path, episodes: int) -> Clips:
    """Clips without a truth but their frames. Raises `UserError` for what is missing or wrong."""
    length = benchmark.context + benchmark.horizon
    frames = benchmark.read(folder, length, episodes)
    count = len(frames)
    none = np.zeros((count, length, 0))
    truth = Truth(
        none.astype(int), none.astype(int), none.astype(bool), none.astype(np.float32),
        np.zeros((count, length, 0, 2), np.float32), none.astype(bool), none.astype(bool),
    )  # fmt: skip
    empty = none.astype(np.float32)
    said = shapes.no_conditions(count, length)
    start = np.zeros(count, int)
    return Clips(frames, said, np.arange(count), truth, empty, empty, None, start)


def protocol_of(benchmark: Benchmark, clips: Clips, episodes: int) -> Protocol:
    """The benchmark's lengths, and which clips of it were used."""
    return Protocol(
        suite=benchmark.name,
        world=benchmark.about,
        split_hash=split_hash(clips.frames),
        resolution=clips.frames.shape[2],
        episodes=episodes,
        starts=(0,),
        context=benchmark.context,
        horizon=benchmark.horizon,
        reduction=str(Benchmark.__doc__),
    )


def page(benchmark: Benchmark, result: Mapping[str, Any], runs: Mapping[str, Tested]) -> str:
    """HTML: the table of what was measured and what is published."""
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    names = [*models, *(name for name in benchmark.published)]
    head = "<th></th>" + "".join(
        f"<th>{metric}, {UNITS[metric]}</th>" for metric in benchmark.metrics
    )
    body = ""
    for name in names:
        cells = ""
        for metric in benchmark.metrics:
            row = find(result["rows"], name, metric, 0)
            told = benchmark.published.get(name, {}).get(metric)
            cells += parts.cell(row, ".3f") if told is None else f"<td>{told:g}</td>"
        kind = ' class="tested"' if name in runs else ""
        who = name if name in benchmark.published else label(name)
        note = " (published)" if name in benchmark.published else ""
        body += f'<tr{kind}><th scope="row">{escape(who)}{note}</th>{cells}</tr>'
    table = f'<table class="numbers"><tr>{head}</tr>{body}</table>'
    source = (
        f'<p class="note">Published: {escape(benchmark.source)}</p>' if benchmark.source else ""
    )
    title = f"{label(models[0])} on {benchmark.name}"
    command = f"<pre>{escape(result['command'])}</pre>"
    protocol = parts.fold("Protocol", result["protocol"])
    about = f"<p>{escape(benchmark.about)}</p>"
    pieces = [f"<h1>{escape(title)}</h1>", about, f'<div class="scroll">{table}</div>', source]
    return report.page(title, [*pieces, protocol, command])


def terminal_table(benchmark: Benchmark, result: Mapping[str, Any]) -> str:
    """The table as text, published figures below."""
    lines = [f"{benchmark.name:<24}" + "".join(f"{metric:>14}" for metric in benchmark.metrics)]
    for name in dict.fromkeys(row["model"] for row in result["rows"]):
        found = [find(result["rows"], name, metric, 0) for metric in benchmark.metrics]
        cells = (f"{'–' if r is None else format(r['value'], '.3f'):>14}" for r in found)
        lines.append(f"  {name:<22}" + "".join(cells))
    for name, values in benchmark.published.items():
        cells = (f"{values.get(metric, '–'):>14}" for metric in benchmark.metrics)
        lines.append(f"  {name + ' (published)':<22}" + "".join(cells))
    return "\n".join(lines)


def judge_benchmark(
    benchmark: Benchmark,
    runs: Mapping[str, Tested],
    clips: Clips,
    episodes: int,
    command: str,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Scores models and the two baselines that need no world; the result as JSON."""
    protocol = protocol_of(benchmark, clips, episodes)
    tested = [run.subject(name, protocol) for name, run in runs.items()]
    tested = [suite.with_samples(subject, clips, protocol) for subject in tested]
    size = (protocol.resolution,) * 2
    copy_last = suite.model_subject("copy_last", CopyLast(size), {}, protocol)
    subjects = [*tested, copy_last, Subject("context_median", _median(protocol))]
    net = lpips.load(weights, "vgg") if "vgg" in lpips.available(weights) and weights else None
    rows: list[Row] = []
    with Progress(len(subjects) * len(clips.frames), benchmark.name, "clips") as progress:
        for number, subject in enumerate(subjects):
            sums: dict[str, list[np.ndarray]] = {}
            for index in suite.batches(clips):
                batch = suite.take(clips, index)
                each = [
                    _scores(subject.predict(batch, sample).frames, batch, protocol, net)
                    for sample in range(subject.samples)
                ]
                for name in each[0]:
                    sums.setdefault(name, []).append(np.mean([e[name] for e in each], 0))
                progress.update(number * len(clips.frames) + int(index[-1]) + 1, model=subject.name)
            seed = runs[subject.name].seed if subject.name in runs else None
            rows += _rows(benchmark, subject.name, sums, clips, protocol, seed)
    return {
        "protocol": protocol.to_dict(),
        "models": {
            name: run.about(subject.samples)
            for (name, run), subject in zip(runs.items(), tested, strict=True)
        },
        "published": {"source": benchmark.source, "values": benchmark.published},
        "command": command,
        "rows": rows,
    }


def _median(protocol: Protocol):
    def predict(clips: Clips, _: int) -> Prediction:
        middle = np.round(np.median(clips.frames[:, : protocol.context], axis=1)).astype(np.uint8)
        return Prediction(np.repeat(middle[:, None], protocol.horizon, 1))

    return predict


def _scores(
    predicted: UInt8[np.ndarray, "r t h w 3"],
    clips: Clips,
    protocol: Protocol,
    net: lpips.Weights | None,
) -> dict[str, np.ndarray]:
    """Each metric per clip and step."""
    truth = clips.frames[:, protocol.context :]
    grey = (x.astype(np.float64).mean(-1) / 255 for x in (truth, predicted))
    first, second = grey
    out = {
        "mse": np.square(first - second).sum((2, 3)),
        "psnr": np.asarray(pixel.psnr(truth, predicted), np.float64),
        "ssim": np.asarray(pixel.ssim(truth, predicted), np.float64),
    }
    if net is not None:
        flat = (x.reshape(-1, *x.shape[2:]) for x in (truth, predicted))
        out["lpips_vgg"] = np.asarray(lpips.lpips(net, "vgg", *flat)).reshape(truth.shape[:2])
    return out


def _rows(
    benchmark: Benchmark,
    model: str,
    sums: Mapping[str, list[np.ndarray]],
    clips: Clips,
    protocol: Protocol,
    seed: int | None,
) -> list[Row]:
    """Of every metric step 0, all steps together, and each step."""
    rows: list[Row] = []
    pixels = clips.frames.shape[2] * clips.frames.shape[3]
    for metric in benchmark.metrics:
        source = "mse" if metric == "psnr_of_mse" else metric
        steps = list(range(protocol.horizon + 1))
        if source not in sums:
            none = np.full(1, np.nan)
            nothing = statistics.Estimate(none, none, none, np.zeros(1, int))
            made = make_rows(
                nothing, protocol, model=model, metric=metric, unit="1", seed=seed, steps=[0]
            )
            rows += [{**row, "note": "not measured: --weights lacks its files"} for row in made]
            continue
        value = np.concatenate(sums[source])
        value = np.concatenate([value.mean(1, keepdims=True), value], 1)
        estimate = statistics.estimate(Sums(value, np.ones_like(value)), protocol.seed)
        if metric == "psnr_of_mse":
            low, mean, high = (
                -10 * np.log10(np.maximum(x / pixels, 1e-10))
                for x in (estimate.high, estimate.value, estimate.low)
            )
            estimate = statistics.Estimate(mean, low, high, estimate.n)
        rows += make_rows(
            estimate, protocol, model=model, metric=metric, unit=UNITS[metric], seed=seed,
            steps=steps,
        )  # fmt: skip
    return rows
