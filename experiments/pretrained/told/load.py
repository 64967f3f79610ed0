"""Runs an exported world model; needs jax, flatbuffers, numpy and safetensors, and no wm_jax.

    import load
    model = load.load("exported/a")                  # the folder that this file lies in
    state = model.encode(frames)                     # uint8 (b, t, h, w, 3), t frames of context
    for _ in range(30):
        state = model.step(state)                    # one frame on, imagined
        picture = model.decode(state)                # float32 (b, h, w, 3) in [0, 1]

A state is a dict of arrays: keep it, copy it, save it with numpy. With the same state, conditions
and key the future is the same.

Conditions are a dict from name to values; those left out are absent. ``model.conditions`` lists
the names and their widths. Time: ``frames[t]`` is rendered, then ``actions[t]`` and ``text[t]`` act
until ``t + 1``. `encode` takes what belongs to each of its frames, (b, t, k). A `step` to frame
``t`` takes ``actions`` and ``text`` of ``t - 1``, and ``audio``, ``camera``, ``light`` of ``t``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import flatbuffers  # noqa: F401, jax.export reads with it
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

FORMAT = 1
#: Conditions that act after the frame they are given with, hence on the next step.
ACT_LATER = ("actions", "text")


class LoadError(ValueError):
    """The folder or an input does not fit; the message is one sentence that says what to do."""


def load(folder: str | Path | None = None) -> Model:
    """The model in ``folder`` (by default the one this file lies in).

    Raises `LoadError` where a file is missing, was changed, or asks for a newer jax.
    """
    folder = Path(__file__).parent if folder is None else Path(folder)
    manifest = _manifest(folder)
    contents = {name: _verified(folder / name, sha) for name, sha in manifest["sha256"].items()}
    functions = {}
    for name in manifest["functions"]:
        try:
            functions[name] = jax.export.deserialize(bytearray(contents[f"{name}.stablehlo"]))
        except Exception as error:
            raise LoadError(
                f"jax {jax.__version__} cannot read {folder}/{name}.stablehlo, which jax "
                f"{manifest['jax']} wrote: use that version or one up to six months newer."
            ) from error
    weights = safetensors.numpy.load(contents["model.safetensors"])
    return Model(manifest, functions, weights)


def weights(folder: str | Path) -> dict:
    """Its weights alone, float32 by name. Raises `LoadError` as `load` does."""
    folder, name = Path(folder), "model.safetensors"
    content = _verified(folder / name, _manifest(folder)["sha256"][name])
    return {k: _widened(v) for k, v in safetensors.numpy.load(content).items()}


def _manifest(folder: Path) -> dict:
    if not (folder / "manifest.json").is_file():
        raise LoadError(f"{folder} holds no exported model: it has no manifest.json.")
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != FORMAT:
        raise LoadError(
            f"{folder} is of export format {manifest['format']} and this loader reads {FORMAT}: "
            "use the load.py that lies in the folder."
        )
    return manifest


def _verified(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise LoadError(f"{path} is missing: copy the whole folder again.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise LoadError(f"{path} was changed since the export: copy the whole folder again.")
    return content


class Model:
    """A world model: `encode`, `step`, `decode`, and `rollout` for many steps at once.

    context:     frames that `encode` was compiled for; other lengths work too
    frame:       (height, width, 3)
    conditions:  name -> width of its vector
    stochastic:  whether a ``key`` changes anything; without one the likeliest future is taken
    """

    def __init__(self, manifest: dict, functions: dict, weights: dict):
        self.context: int = manifest["context"]
        self.frame: tuple[int, int, int] = tuple(manifest["frame"])
        self.conditions: dict[str, int] = manifest["conditions"]
        self.stochastic: bool = manifest["stochastic"]
        self.manifest = manifest
        self._state = manifest["state"]
        self._weights = {k: jnp.asarray(_widened(v)) for k, v in weights.items()}
        self._call = {name: jax.jit(function.call) for name, function in functions.items()}

    def encode(self, frames, conditions: dict | None = None, key=None) -> dict:
        """Context frames, uint8 (b, t, h, w, 3), to the state after the last of them."""
        frames = np.asarray(frames)
        self._check_frames(frames, "frames", 5, "(b, t, {}, {}, {})")
        batch, time = frames.shape[:2]
        told = self._told(conditions, (batch, time))
        if time == self.context:
            return self._run("encode", key, frames, told)
        state = self._call["initial"](self._weights, np.zeros(batch, np.uint8))
        told = {name: _later(x) if name in self._late else x for name, x in told.items()}
        for t in range(time):
            told_t = {name: x[:, t] for name, x in told.items()}
            state = self._run("observe", _fold(key, t), state, frames[:, t], told_t)
        return state

    def step(self, state: dict, conditions: dict | None = None, frame=None, key=None) -> dict:
        """One frame on: imagined, or observed where ``frame``, uint8 (b, h, w, 3), is given."""
        self._check_state(state)
        told = self._told(conditions, (state["step"].shape[0],))
        if frame is None:
            return self._run("step", key, state, told)
        frame = np.asarray(frame)
        self._check_frames(frame, "frame", 4, "(b, {}, {}, {})")
        return self._run("observe", key, state, frame, told)

    def decode(self, state: dict) -> jax.Array:
        """The state as a picture, float32 (b, h, w, 3) in [0, 1]."""
        self._check_state(state)
        return self._call["decode"](self._weights, state)

    def rollout(self, state: dict, steps: int, conditions: dict | None = None, key=None) -> tuple:
        """``steps`` imagined frames: (last state, float32 (b, steps, h, w, 3) in [0, 1]).

        ``conditions`` are (b, steps, k), aligned to the steps as `step` takes them.
        """
        self._check_state(state)
        told = self._told(conditions, (state["step"].shape[0], steps))
        frames = []
        for t in range(steps):
            told_t = {name: x[:, t] for name, x in told.items()}
            state = self._run("step", _fold(key, t), state, told_t)
            frames.append(self._call["decode"](self._weights, state))
        return state, jnp.stack(frames, axis=1)

    @functools.cached_property
    def _late(self) -> set[str]:
        return {f"{name}{end}" for name in ACT_LATER for end in ("", "_mask")}

    def _run(self, name: str, key, *inputs):
        if self.stochastic:
            raw = np.zeros(2, np.uint32) if key is None else _raw(key)
            inputs = (*inputs, raw, np.asarray(key is not None))
        return self._call[name](self._weights, *inputs)

    def _told(self, conditions: dict | None, lead: tuple[int, ...]) -> dict:
        """The full tree of conditions; what is not given is absent (masked)."""
        given = conditions or {}
        for name in given:
            if name not in self.conditions:
                known = ", ".join(self.conditions)
                raise LoadError(f"unknown condition '{name}': this model has {known}.")
        told = {}
        for name, width in self.conditions.items():
            value = np.asarray(given.get(name, np.zeros((*lead, width))), np.float32)
            if value.shape != (*lead, width):
                raise LoadError(
                    f"condition '{name}' has shape {value.shape}; it must be {(*lead, width)}."
                )
            told[name] = value
            told[f"{name}_mask"] = np.full(lead, name in given)
        return told

    def _check_frames(self, frames, name: str, rank: int, shape: str) -> None:
        if frames.dtype != np.uint8 or frames.ndim != rank or frames.shape[-3:] != self.frame:
            raise LoadError(
                f"{name} must be uint8 {shape.format(*self.frame)}; got {frames.dtype} "
                f"{frames.shape}."
            )

    def _check_state(self, state: dict) -> None:
        if not isinstance(state, dict) or state.keys() != self._state.keys():
            raise LoadError("this is not a state of this model: take one from `encode` or `step`.")


def _widened(array: np.ndarray) -> np.ndarray:
    """Stored as float16, computed in float32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _later(x: np.ndarray) -> np.ndarray:
    """One frame later along axis 1; the first is absent."""
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def _key(key):
    """A jax key from a seed, a key, or a key's two words."""
    if isinstance(key, int):
        return jax.random.key(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32))


def _raw(key) -> jax.Array:
    return jax.random.key_data(_key(key))


def _fold(key, t: int):
    return None if key is None else jax.random.fold_in(_key(key), t)
