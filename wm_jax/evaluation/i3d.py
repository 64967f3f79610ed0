"""I3D, the network in whose features the Fréchet Video Distance is measured.

Carreira & Zisserman 2017, "Quo Vadis, Action Recognition?", arXiv 1705.07750, figure 3:
Inception-v1 with its filters inflated over time. FVD (Unterthiner et al. 2018, arXiv 1812.01717)
takes the 400 numbers before the softmax. Weights are the file ``i3d_pretrained_400.pt``, the
network trained on Kinetics-400 in its PyTorch port, which VideoGPT and others measure by; frames
are resized to 224 px without antialiasing and scaled to [-1, 1], as they do.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from wm_jax.errors import UserError
from wm_jax.evaluation import torch_files

FILE = "i3d_pretrained_400.pt"
FRAMES = 16  # of a clip: the first ones
SIZE = 224  # px
EPSILON = 1e-3  # of the normalisations

#: Layers in order: a convolution (name, stride), a pool (window, stride), or a block of branches.
LAYERS: tuple[tuple, ...] = (
    ("Conv3d_1a_7x7", (2, 2, 2)),
    ((1, 3, 3), (1, 2, 2)),
    ("Conv3d_2b_1x1", (1, 1, 1)),
    ("Conv3d_2c_3x3", (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ("Mixed_3b",),
    ("Mixed_3c",),
    ((3, 3, 3), (2, 2, 2)),
    *((f"Mixed_4{letter}",) for letter in "bcdef"),
    ((2, 2, 2), (2, 2, 2)),
    ("Mixed_5b",),
    ("Mixed_5c",),
)
BRANCHES = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("pool", "b3b"))
NORM = ("weight", "bias", "running_mean", "running_var")

Weights = dict[str, np.ndarray]


def units() -> list[str]:
    """Names of all convolutions with a normalisation."""
    out = []
    for name, *rest in LAYERS:
        if isinstance(name, str):
            each = [f"{name}.{u}" for branch in BRANCHES for u in branch if u != "pool"]
            out += [name] if rest else each
    return out


def load(folder: Path) -> Weights:
    """Raises `UserError` for a file that lacks a tensor."""
    found = torch_files.load(folder / FILE)
    wanted = [f"{unit}.conv3d.weight" for unit in units()]
    wanted += [f"{unit}.bn.{name}" for unit in units() for name in NORM]
    wanted += [f"logits.conv3d.{name}" for name in ("weight", "bias")]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{folder / FILE} is not I3D's: it has no '{missing[0]}'.")
    return {name: found[name].astype(np.float32) for name in wanted}


@jax.jit
def logits(weights: Weights, frames: UInt8[Array, "b t h w 3"]) -> Float[Array, "b k"]:
    """The numbers before the softmax, the mean over time; t at least 9."""
    x = frames.astype(jnp.float32) / 127.5 - 1
    shape = (*x.shape[:2], SIZE, SIZE, 3)
    x = jax.image.resize(x, shape, "linear", antialias=False)
    for name, *rest in LAYERS:
        if not isinstance(name, str):
            x = _pool(x, name, rest[0])
        elif rest:
            x = _unit(weights, name, x, rest[0])
        else:
            x = _mixed(weights, name, x)
    seven = (1, 2, 7, 7, 1)
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, seven, (1, 1, 1, 1, 1), "VALID") / 98
    kernel = weights["logits.conv3d.weight"][:, :, 0, 0, 0]
    return (x @ kernel.T + weights["logits.conv3d.bias"]).mean((1, 2, 3))


def _mixed(weights: Weights, name: str, x: Array) -> Array:
    parts = []
    for branch in BRANCHES:
        y = x
        for unit in branch:
            if unit == "pool":
                y = _pool(y, (3, 3, 3), (1, 1, 1))
            else:
                y = _unit(weights, f"{name}.{unit}", y, (1, 1, 1))
        parts.append(y)
    return jnp.concatenate(parts, -1)


def _unit(weights: Weights, name: str, x: Array, stride: tuple[int, int, int]) -> Array:
    kernel = jnp.transpose(weights[f"{name}.conv3d.weight"], (2, 3, 4, 1, 0))
    order = ("NDHWC", "DHWIO", "NDHWC")
    x = jax.lax.conv_general_dilated(x, kernel, stride, "SAME", dimension_numbers=order)
    scale, bias, mean, variance = (weights[f"{name}.bn.{field}"] for field in NORM)
    return jax.nn.relu((x - mean) * (scale / jnp.sqrt(variance + EPSILON)) + bias)


def _pool(x: Array, window: tuple, stride: tuple) -> Array:
    size, steps = (1, *window, 1), (1, *stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, size, steps, "SAME")
