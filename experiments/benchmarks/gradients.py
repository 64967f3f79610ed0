"""Every mesh computes what one device does: gradients and losses, for each backbone and mesh.

    gradients=experiments/benchmarks/gradients.py
    python $gradients                                     gradients of all pairs, into the table
    python $gradients --only s5:2x2x2,rssm:4 --out /tmp/some.json
    python $gradients --only grid_gru:2x2x2 --updates 100 --double      a loss curve, in float64
    python $gradients --only grid_gru:2,grid_gru:ulp --updates 100 --double --optimizer muon

Eight fake devices of a CPU; a mesh is named data[xfsdp[xtensor[xcells]]]. Models have size 'debug'
and 16 px, weights are random (a start has zeros, which could hide a mistake), products are of the
highest precision and the noise is the same on every mesh. What is said of a pair is the largest

- ``‖g − g₁‖ / ‖g₁‖`` of its tensors, g₁ the gradient on one device without any mesh;
- with ``--updates``, ``|l − l₁| / |l₁|`` of its losses, l₁ those of a mesh of one device. The
  "mesh" ``ulp`` is a control: one device, and every weight moved by its last bit.

A pair that is in the table stays there; delete the file to measure anew. In float64 what is left of
an error is no rounding.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from wm_jax import mesh as meshes
from wm_jax import optim, train_step
from wm_jax.config import base_config, change
from wm_jax.models import build
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.shapes import CONDITION_SIZES

OUT = Path("experiments/results/gradients.json")
MESHES = ("1", "2", "4", "8", "2x2", "4x2", "2x2x2", "1x1x1x2", "2x2x1x2")
ULP = "ulp"
TOLD = ("actions", "camera", "light")
BATCH, FRAMES, SIDE = 8, 6, 16  # windows, frames of each, px
#: LLVM's optimiser is off: most of the time is compiling.
QUICK = {"xla_backend_optimization_level": 0}


def config_of(name: str) -> ConfigDict:
    """Of a backbone, so small that it compiles in seconds."""
    changes = {"model.name": name, "model.size": "debug", "model.resolution": SIDE}
    return change(base_config(), changes | {"model.modalities": TOLD, "data.window": FRAMES})


def mesh_of(name: str) -> Mesh:
    """The mesh named ``data[xfsdp[xtensor[xcells]]]``, over the first devices."""
    sizes = [int(size) for size in name.split("x")] + [1, 1, 1]
    section = ConfigDict(dict(zip(meshes.AXES, sizes, strict=False)))
    return meshes.make_mesh(section, jax.devices()[: math.prod(sizes)])


def windows() -> dict[str, np.ndarray]:
    """A batch of noise that tells the model something; one stream is cut, one is short."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (BATCH, FRAMES, SIDE, SIDE, 3), np.uint8)
    first, mask = np.zeros((BATCH, FRAMES), bool), np.ones((BATCH, FRAMES), bool)
    first[:, 0] = first[1, FRAMES // 2] = True
    mask[2, -2:] = False
    out = {"frames": frames, "is_first": first, "mask": mask}
    for told in TOLD:
        value = random.normal(size=(BATCH, FRAMES, CONDITION_SIZES[told]))
        out |= {told: value.astype(np.float32), f"{told}_mask": mask}
    return out


def weights(model: Any) -> Any:
    """Random ones of the model's shapes: kernels with variance 1 / fan-in, scales about 1."""
    random = np.random.default_rng(1)
    with jax.enable_x64(False):  # initialisers that mix both widths
        shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), meshes.to_batch(windows()))

    def draw(path, leaf):
        x = random.normal(size=leaf.shape)
        x *= leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.1
        return (x + (path[-1].key == "scale")).astype(jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def gradient_errors(name: str) -> Callable[[str], dict[str, float]]:
    """For a mesh, the error of every tensor by its name; of one that must be zero, its norm."""
    model = build(config_of(name).model)
    params = weights(model)

    def loss(params, batch):
        return model.loss(params, batch, jax.random.PRNGKey(2), jnp.int32(5))[0]

    derivative = jax.grad(loss)
    one = jax.jit(derivative, compiler_options=QUICK)
    want = jax.device_get(one(params, meshes.to_batch(windows())))

    def error(got, want):
        size = float(np.linalg.norm(want.astype(np.float64)))
        return float(np.linalg.norm(got.astype(np.float64) - want)) / (size or 1.0)

    def errors(shape: str) -> dict[str, float]:
        mesh = mesh_of(shape)
        split = meshes.param_shardings(params, meshes.axes_by_shape(params), mesh)
        compute = jax.jit(
            meshes.on_mesh(derivative, mesh), out_shardings=split, compiler_options=QUICK
        )
        got = compute(jax.device_put(params, split), meshes.shard_batch(windows(), mesh))
        found = jax.tree.map(error, jax.device_get(got), want)
        leaves = jax.tree_util.tree_leaves_with_path(found)
        return {jax.tree_util.keystr(p, simple=True, separator="/"): e for p, e in leaves}

    return errors


def nudged(params: Any) -> Any:
    """With every number moved by its last bit, up or down."""
    random = np.random.default_rng(3)

    def nudge(leaf):
        x = np.asarray(leaf)
        towards = np.where(random.random(x.shape) < 0.5, -np.inf, np.inf).astype(x.dtype)
        return jnp.asarray(np.nextafter(x, towards))

    return jax.tree.map(nudge, params)


def loss_errors(name: str, updates: int, optimizer_name: str) -> Callable[[str], dict[str, float]]:
    """For a mesh, the error of the loss before every update."""
    config = change(config_of(name), {"optim.name": optimizer_name})
    model, optimizer = build(config.model), optim.make_optimizer(config.optim)

    def curve(shape: str) -> np.ndarray:
        mesh, params = mesh_of("1" if shape == ULP else shape), weights(model)
        params = nudged(params) if shape == ULP else params
        key = jax.random.PRNGKey(2)
        state = train_step.TrainState(jnp.int32(0), key, params, optimizer.init(params))
        split = train_step.state_shardings(state, model, optimizer, mesh)
        state, batch = jax.device_put(state, split), meshes.shard_batch(windows(), mesh)
        step = train_step.make_train_step(model, optimizer)
        step, losses = train_step.jit_train_step(step, state, mesh), []
        for _ in range(updates):
            state, metrics = step(state, batch, np.float32(config.optim.learning_rate))
            losses.append(float(metrics["train/loss/total"]))
        return np.array(losses)

    want = curve("1")

    def errors(shape: str) -> dict[str, float]:
        found = np.abs(curve(shape) - want) / np.abs(want)
        return {f"update {i}": float(error) for i, error in enumerate(found)}

    return errors


def measure(
    name: str, shapes: list[str], updates: int, optimizer: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mesh, the largest error on it, and of what. A NaN is larger than anything."""
    errors = loss_errors(name, updates, optimizer) if updates else gradient_errors(name)
    for shape in shapes:
        begin = time.monotonic()
        found = errors(shape)
        worst = max(found, key=lambda key: (not np.isfinite(found[key]), found[key]))
        seconds = time.monotonic() - begin
        print(f"{name:<15}{shape:<9}{found[worst]:.1e}  {worst}  ({seconds:.0f} s)", flush=True)
        yield shape, {"error": found[worst], "of": worst}


def main() -> int:
    args = _parser().parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_default_matmul_precision", "highest")
    if args.double:
        jax.config.update("jax_enable_x64", True)
        jnp.float32 = jnp.float64  # type: ignore[misc]  # what layers keep float32 whatever comes
    every = [f"{name}:{shape}" for shape in MESHES for name in DYNAMICS]
    asked: dict[str, list[str]] = {}
    for pair in args.only.split(",") if args.only else every:
        name, _, shape = pair.partition(":")
        asked.setdefault(name, []).append(shape)
    what = "gradients"
    if args.updates:
        what = f"losses of {args.updates} updates, {args.optimizer}"
    kind = f"{what}, {'float64' if args.double else 'float32'}, jax {jax.__version__}"
    table = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name, shapes in asked.items():
        there = table.setdefault(kind, {}).setdefault(name, {})
        left = [shape for shape in shapes if shape not in there]
        for shape, found in measure(name, left, args.updates, args.optimizer) if left else ():
            there[shape] = found
            args.out.write_text(json.dumps(table, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="BACKBONE:MESH,…", help="these pairs, not all")
    parser.add_argument("--updates", type=int, default=0, help="losses of so many, not gradients")
    parser.add_argument("--optimizer", default="adamw", help="of --updates (default %(default)s)")
    parser.add_argument("--double", action="store_true", help="in float64")
    parser.add_argument("--out", type=Path, default=OUT, help="default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
