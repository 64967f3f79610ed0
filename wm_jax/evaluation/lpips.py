"""LPIPS, a distance of pictures in the features of a classifier.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv
1801.03924, equation 1, version 0.1 with the linear weights of its authors. The classifier is
AlexNet or VGG16 of torchvision. Weights are read from PyTorch's files (`torch_files`), of a folder:

    alexnet.pth  lpips_alex.pth         vgg16.pth  lpips_vgg.pth

torchvision's ``state_dict`` of the classifier, and the authors' ``weights/v0.1/{alex,vgg}.pth``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from wm_jax.errors import UserError
from wm_jax.evaluation import torch_files

#: What LPIPS makes of pictures in [-1, 1] before the classifier sees them.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with a ReLU; ``pool`` (size, stride) comes before it. ``tap``: its output is
    compared."""

    number: int  # torchvision's, in ``features``
    stride: int = 1
    pad: int = 1
    pool: tuple[int, int] | None = None
    tap: bool = False


NETS: dict[str, tuple[str, tuple[Layer, ...]]] = {
    "alex": (
        "alexnet.pth",
        (
            Layer(0, stride=4, pad=2, tap=True),
            Layer(3, pad=2, pool=(3, 2), tap=True),
            Layer(6, pool=(3, 2), tap=True),
            Layer(8, tap=True),
            Layer(10, tap=True),
        ),
    ),
    "vgg": (
        "vgg16.pth",
        (
            Layer(0),
            Layer(2, tap=True),
            Layer(5, pool=(2, 2)),
            Layer(7, tap=True),
            Layer(10, pool=(2, 2)),
            Layer(12),
            Layer(14, tap=True),
            Layer(17, pool=(2, 2)),
            Layer(19),
            Layer(21, tap=True),
            Layer(24, pool=(2, 2)),
            Layer(26),
            Layer(28, tap=True),
        ),
    ),
}

Weights = dict[str, np.ndarray]


def available(folder: Path | None) -> list[str]:
    """Nets whose two files are in the folder."""
    if folder is None:
        return []
    return [
        net
        for net, (file, _) in NETS.items()
        if (folder / file).is_file() and (folder / f"lpips_{net}.pth").is_file()
    ]


def load(folder: Path, net: str) -> Weights:
    """Both files of a net. Raises `UserError` for a tensor that is missing or of another shape."""
    file, layers = NETS[net]
    found = torch_files.load(folder / file)
    linear = torch_files.load(folder / f"lpips_{net}.pth")
    weights: Weights = {}
    channels, taps = 3, 0
    for layer in layers:
        for name in ("weight", "bias"):
            key = f"features.{layer.number}.{name}"
            if key not in found or (name == "weight" and found[key].shape[1] != channels):
                raise UserError(f"{folder / file} is not torchvision's: '{key}' does not fit.")
            weights[key] = found[key].astype(np.float32)
        channels = weights[f"features.{layer.number}.weight"].shape[0]
        if layer.tap:
            key = f"lin{taps}.model.1.weight"
            if key not in linear or linear[key].size != channels:
                raise UserError(f"{folder / f'lpips_{net}.pth'} is not LPIPS's: '{key}' is wrong.")
            weights[f"lin{taps}"] = linear[key].reshape(-1).astype(np.float32)
            taps += 1
    return weights


def lpips(
    weights: Weights,
    net: str,
    truth: UInt8[np.ndarray, "b h w 3"],
    frames: UInt8[np.ndarray, "b h w 3"],
) -> Float[Array, " b"]:
    """Of each pair of frames; 0 where they are equal."""
    return _distance(net, weights, jnp.asarray(truth), jnp.asarray(frames))


def _features(net: str, weights: Weights, frames: Array) -> list[Array]:
    x = (frames.astype(jnp.float32) / 127.5 - 1 - SHIFT) / SCALE
    taps = []
    for layer in NETS[net][1]:
        if layer.pool:
            size, stride = layer.pool
            window, steps = (1, size, size, 1), (1, stride, stride, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, steps, "VALID")
        kernel = jnp.transpose(weights[f"features.{layer.number}.weight"], (2, 3, 1, 0))
        x = jax.lax.conv_general_dilated(
            x, kernel, (layer.stride,) * 2, [(layer.pad,) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x = jax.nn.relu(x + weights[f"features.{layer.number}.bias"])
        if layer.tap:
            taps.append(x)
    return taps


def _unit(x: Array) -> Array:
    return x / (jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + 1e-10)


def _distance_of(net: str, weights: Weights, truth: Array, frames: Array) -> Array:
    total = jnp.zeros(len(truth))
    both = (_features(net, weights, x) for x in (truth, frames))
    for number, (a, b) in enumerate(zip(*both, strict=True)):
        off = jnp.square(_unit(a) - _unit(b)) @ weights[f"lin{number}"]
        total = total + off.mean((1, 2))
    return total


_distance = jax.jit(_distance_of, static_argnums=0)
