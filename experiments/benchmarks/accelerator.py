"""What a GPU makes of a size: seconds an update, MFU, memory, where the time goes, its gradients.

    python experiments/benchmarks/accelerator.py --variant 200m --json
    python experiments/benchmarks/accelerator.py --cases 8:none,16:dots --profile --gradients

Configs are those of experiments/configs/scale.py, batches noise. A case is windows an update and
what the gradient keeps (``model.remat``); one that does not fit in memory says so and counts not.
A third part, as in 8:none:cpu, has layers take the form that they have on another chip.

- ``mfu`` is the arithmetic of the model's matrix products, forward and backward, none of it counted
  twice where it is computed anew, over the seconds of an update and the chip's ``peak`` (from its
  data sheet, bf16 without sparsity, or ``--peak``); ``of_matmul`` the same over the rate of one
  bf16 product of 8192³ random numbers, measured in the same process. Updates are chained, and
  ``seconds`` is the median of rounds, ``low`` and ``high`` the 95 % interval of that.
- ``profile`` has shares of the device's busy time by kind of kernel, and the dearest kernels.
- ``gradients`` compares, by ‖g − g₁‖ / ‖g₁‖ of every tensor, with g₁ of float32 on the CPU of the
  same machine: the chip in float32 and in bfloat16, and the CPU in bfloat16, which says what
  rounding alone does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contender import median

from wm_jax import flops, optim, train_step
from wm_jax import mesh as meshes
from wm_jax.config import change, load
from wm_jax.models import build
from wm_jax.nn.compute import made_for

CONFIGS = Path(__file__).parent.parent / "configs" / "scale.py"
#: bf16 FLOP/s without sparsity, NVIDIA's data sheets of the SXM parts.
PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
#: Kinds of kernels by what their names have in them, in this order.
KINDS = {
    "matrix products": ("gemm", "cutlass", "xmma", "nvjet", "cublas", "dot", "splitk"),
    "copies": ("memcpy", "memset", "copy", "transpose"),
    "reductions": ("reduce",),
    "the rest, fused": ("fusion",),
}


def noise(batch: int, frames: int, side: int) -> dict[str, np.ndarray]:
    """Windows of noise, all of it real."""
    shape = (batch, frames, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    first = np.broadcast_to(np.arange(frames) == 0, shape[:2]).copy()
    return {"frames": images, "is_first": first, "mask": np.ones(shape[:2], bool)}


def matmul_rate(size: int, dtype: Any, seconds: float = 1.0) -> float:
    """FLOP/s of one product of random square matrices."""
    keys = jax.random.split(jax.random.PRNGKey(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        jax.block_until_ready([product(a, b) for _ in range(10)])
        count += 10
    return 2.0 * size**3 * count / (time.perf_counter() - begin)


class Case:
    """A config's update, compiled, and a state that its updates carry on."""

    def __init__(self, variant: str, batch: int, remat: str, changes: dict[str, str]):
        config = load(f"{CONFIGS}:{variant}")
        self.config = change(
            config, {"train.batch_size": batch, "model.remat": remat, "mesh.fsdp": 1} | changes
        )
        self.name, frames = f"{batch}:{remat}", self.config.data.window
        model, optimizer = build(self.config.model), optim.make_optimizer(self.config.optim)
        mesh = meshes.make_mesh(self.config.mesh, jax.devices()[:1])
        self.frames = batch * frames
        self._batch = meshes.shard_batch(noise(batch, frames, self.config.model.resolution), mesh)
        self._state = train_step.init_state(model, optimizer, self._batch, 0, mesh)
        function = train_step.make_train_step(model, optimizer)
        self._update, self.cost = train_step.compile_train_step(
            function, self._state, self._batch, mesh
        )
        # Without what is computed anew.
        plain = change(self.config.copy_and_resolve_references(), {"model.remat": "none"})
        function = train_step.make_train_step(build(plain.model), optimizer)
        traced = jax.jit(function).trace(self._state, self._batch, np.float32(0))
        self.flops = flops.matmul_cost(traced.jaxpr.jaxpr)[0]

    def seconds(self, updates: int) -> float:
        """Of one update, over a chain of so many."""
        begin = time.perf_counter()
        for _ in range(updates):
            self._state, metrics = self._update(self._state, self._batch, np.float32(1e-5))
        jax.block_until_ready((self._state, metrics))
        return (time.perf_counter() - begin) / updates


def update_row(case: Case, rounds: int, updates: int, peak: float, product: float) -> dict:
    """See the module's docstring."""
    case.seconds(3)
    middle, low, high = median(np.array([case.seconds(updates) for _ in range(rounds)]))
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "what": "update",
        "case": case.name,
        "parameters": case.cost.parameters,
        "seconds": middle,
        "low": low,
        "high": high,
        "frames_per_second": case.frames / middle,
        "model_teraflop": case.flops / 1e12,
        "done_teraflop": case.cost.flops / 1e12,
        "mfu": case.flops / middle / peak,
        "of_matmul": case.flops / middle / product,
        "compile_seconds": case.cost.compile_seconds,
        "program_gigabytes": case.cost.memory_bytes / 1e9,
        "peak_gigabytes_so_far": memory.get("peak_bytes_in_use", 0) / 1e9,
    }


def profile_row(case: Case, updates: int = 3) -> dict[str, Any]:
    """Shares of busy time, by kind and of the dearest kernels."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            seconds = case.seconds(updates)
        [path] = Path(folder).rglob("*.xplane.pb")
        spent: Counter[str] = Counter()
        for name, nanoseconds in _kernels(path):
            spent[name] += nanoseconds
    busy = sum(spent.values()) or 1
    kinds: Counter[str] = Counter()
    for name, nanoseconds in spent.items():
        kinds[_kind(name)] += nanoseconds
    return {
        "what": "profile",
        "case": case.name,
        "busy": busy / 1e9 / updates / seconds,
        "shares": {name: round(ns / busy, 4) for name, ns in kinds.most_common()},
        "dearest": [[name[:120], round(ns / busy, 4)] for name, ns in spent.most_common(25)],
    }


def _kernels(path: Path) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of what ran on a GPU's streams."""
    data: Any = jax.profiler.ProfileData.from_file(str(path))
    for plane in data.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                yield from ((event.name, event.duration_ns) for event in line.events)


def _kind(name: str) -> str:
    low = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in low for p in parts)), "others")


def gradients_row(variant: str, frames: int, changes: dict[str, str]) -> dict[str, Any]:
    """One window of so many frames, weights random where a start has zeros."""
    config = change(load(f"{CONFIGS}:{variant}"), {"model.remat": "none"} | changes)
    batch = noise(1, frames, config.model.resolution)
    chip, host = jax.devices()[0], jax.devices("cpu")[0]

    def weights() -> Any:
        model = build(config.model)
        shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), meshes.to_batch(batch))
        random = np.random.default_rng(1)

        def draw(path, leaf):
            x = random.standard_normal(leaf.shape, np.float32)
            x *= leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.1
            return x + np.float32(path[-1].key == "scale")

        return jax.tree_util.tree_map_with_path(draw, shapes)

    params = weights()

    def gradient(device: Any, dtype: str) -> Any:
        model = build(change(config.copy_and_resolve_references(), {"model.dtype": dtype}).model)

        def loss(params, batch):
            return model.loss(params, batch, jax.random.PRNGKey(2), jnp.int32(5))[0]

        with jax.default_device(device):
            put = jax.device_put((params, meshes.to_batch(batch)), device)
            return jax.device_get(jax.jit(jax.grad(loss))(*put))

    want = gradient(host, "float32")
    ways: dict[str, Callable[[], Any]] = {
        "chip, float32": lambda: gradient(chip, "float32"),
        "chip, bfloat16": lambda: gradient(chip, "bfloat16"),
        "cpu, bfloat16": lambda: gradient(host, "bfloat16"),
    }
    row: dict[str, Any] = {"what": "gradients", "variant": variant, "frames": frames}
    for name, way in ways.items():
        errors = jax.tree.map(_error, way(), want)
        leaves = jax.tree_util.tree_leaves_with_path(errors)
        worst, error = max(leaves, key=lambda leaf: leaf[1])
        row[name] = {
            "median": float(np.median([e for _, e in leaves])),
            "largest": error,
            "of": jax.tree_util.keystr(worst, simple=True, separator="/"),
            "tensors": len(leaves),
        }
        print(name, row[name], file=sys.stderr, flush=True)
    return row


def _error(got: np.ndarray, want: np.ndarray) -> float:
    size = float(np.linalg.norm(want.astype(np.float64)))
    return float(np.linalg.norm(got.astype(np.float64) - want)) / (size or 1.0)


def measure(options: argparse.Namespace, changes: dict[str, str]) -> Iterator[dict[str, Any]]:
    device = jax.devices()[0]
    known = [rate for name, rate in PEAKS.items() if name in device.device_kind]
    product = matmul_rate(options.matmul, jnp.bfloat16)
    peak = options.peak * 1e12 if options.peak else (known or [product])[0]
    yield {
        "what": "matmul",
        "device": device.device_kind,
        "jax": jax.__version__,
        "variant": options.variant,
        "peak_teraflops": peak / 1e12,
        "bfloat16_teraflops": product / 1e12,
        "float32_teraflops": matmul_rate(options.matmul // 2, jnp.float32) / 1e12,
    }
    best: tuple[float, str] = (0.0, "")
    for name in options.cases.split(","):
        batch, remat, *form = name.split(":")
        try:
            with made_for(form[0]) if form else contextlib.nullcontext():
                case = Case(options.variant, int(batch), remat, changes)
            case.name = name
            row = update_row(case, options.rounds, options.updates, peak, product)
        except jax.errors.JaxRuntimeError as error:
            yield {"what": "update", "case": name, "failed": str(error).split("\n")[0][:200]}
            continue
        yield row
        if options.profile and row["mfu"] > best[0]:
            best = row["mfu"], name
            yield profile_row(case)
        del case
    if options.gradients:
        yield gradients_row(options.variant, options.gradients, changes)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="200m", help="of experiments/configs/scale.py")
    parser.add_argument("--cases", default="8:none,16:dots,16:full", metavar="BATCH:REMAT,…")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=5, help="chained, a round")
    parser.add_argument("--matmul", type=int, default=8192, help="side of the product's matrices")
    parser.add_argument("--peak", type=float, help="TFLOP/s, in place of the data sheet's")
    parser.add_argument("--profile", action="store_true", help="of every best case so far")
    parser.add_argument("--gradients", type=int, default=0, metavar="FRAMES", help="of a window")
    parser.add_argument("--json", action="store_true", help="print one JSON list of rows")
    parser.add_argument("--out", metavar="FILE", help="also write the rows so far there")
    options, overrides = parser.parse_known_args()
    changes = dict(override.removeprefix("--config.").split("=", 1) for override in overrides)
    rows = []
    for row in measure(options, changes):
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if options.out:
            Path(options.out).write_text(json.dumps(rows))
    if options.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
