"""Models from outside: three functions, a folder that `wm-jax export` wrote, or a folder of videos.

A model is any object with

    encode(frames, conditions) -> state      frames uint8 (b, t, h, w, 3), the context
    step(state, conditions) -> state         one frame on, imagined
    decode(state) -> frames                  float (b, h, w, 3) in [0, 1]

States are its own affair. ``conditions`` is a dict of float32 arrays, of the names in the model's
attribute ``conditions`` (none without one): (b, t, k) for `encode`, what was said with each of its
frames; (b, k) for `step`, aligned to the step (see `wm_jax.shapes`). More is optional:
``edits`` (a tuple of kinds) with ``edit(state, edits) -> state`` (see `wm_jax.edit`), for the
causal suite; ``tokens(state)``, float (b, n, d), what a read-out may look at, for the probes suite
(d numbers of each of n parts; n = 1 of a vector); and ``stochastic``, True of a model whose
`encode` and `step` take a ``key``, an integer, too.

A model in PyTorch, in a file ``mine.py``, scored by ``wm-jax evaluate --model mine.py:load``:

    class Mine:
        def encode(self, frames, conditions):
            return self.net.encode(torch.as_tensor(frames).float() / 255)
        def step(self, state, conditions):
            return self.net.step(state)
        def decode(self, state):
            return self.net.decode(state).detach().numpy()

    def load():
        return Mine()

A folder of videos needs no code. ``--contexts DIR`` writes what is shown, EPISODE_START.npz, each
with ``frames`` (t, h, w, 3) and the conditions; ``--videos DIR`` reads what was made of them,
EPISODE_START.npy: uint8 (horizon, h, w, 3), or more frames. The temporal suite also asks for long
ones of the clips that start at 0.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from wm_jax import shapes
from wm_jax.edit import TOLD
from wm_jax.errors import UserError
from wm_jax.evaluation.counterfactual import Stage
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.probe_states import Reader
from wm_jax.evaluation.protocol import CausalProtocol, ProbeProtocol, Protocol
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.world import Clips

FUNCTIONS = ("encode", "step", "decode")


def load(spec: str) -> Outside:
    """From an exported folder, or ``FILE.py:FUNCTION``, called without arguments. Raises
    `UserError` where there is nothing of that name or it lacks a function."""
    path, _, function = spec.partition(":")
    if (Path(path) / "load.py").is_file():
        model = _module(Path(path) / "load.py").load(path)
    elif path.endswith(".py") and function:
        if not Path(path).is_file():
            raise UserError(f"--model={spec}: there is no file {path}.")
        module = _module(Path(path))
        if not hasattr(module, function):
            raise UserError(f"--model={spec}: {path} has no function '{function}'.")
        model = getattr(module, function)()
    else:
        raise UserError(
            f"--model={spec} is neither a folder that wm-jax export wrote nor FILE.py:FUNCTION."
        )
    missing = [name for name in FUNCTIONS if not callable(getattr(model, name, None))]
    if missing:
        raise UserError(
            f"--model={spec} has no function '{missing[0]}'; a model has {', '.join(FUNCTIONS)}."
        )
    return Outside(spec, model)


def _module(path: Path) -> ModuleType:
    name = f"outside_{path.resolve().parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclasses.dataclass(frozen=True)
class Outside:
    """A model that nothing but its three functions is known of, as `judge` takes it."""

    spec: str
    model: Any
    seed: int | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """Modalities that it is told, of those the data can hold."""
        names = tuple(getattr(self.model, "conditions", ()))
        return tuple(name for name in names if name in shapes.CONDITION_SIZES)

    def about(self, samples: int) -> dict[str, Any]:
        return {"workdir": self.spec, "backbone": "outside", "samples": samples}

    def settings(self) -> dict[str, Any]:
        return {"model": self.spec}

    def subject(self, name: str, protocol: Protocol) -> Subject:
        runner = Runner(name, self, protocol)

        def predict(clips: Clips, sample: int) -> Prediction:
            return Prediction(runner.imagine(runner.encode(clips, sample), clips, (), sample))

        return Subject(name, predict)

    def causal_subject(self, name: str, protocol: CausalProtocol) -> Runner:
        return Runner(name, self, protocol)

    def readers(self, protocol: ProbeProtocol) -> dict[str | None, Reader]:
        """Its weights are its own affair, so there is no control with random ones. Raises
        `UserError` for a model that shows no state."""
        if not callable(getattr(self.model, "tokens", None)):
            raise UserError(
                f"{self.spec} has no function 'tokens', which the probes suite reads states by."
            )
        runner = Runner("outside", self, protocol)
        return {
            None: lambda clips: runner.states(clips, protocol, glimpse=False),
            "one_frame": lambda clips: runner.states(clips, protocol, glimpse=True),
        }


class Runner:
    """A model from outside as a subject of the causal suite; the others use a part of it."""

    def __init__(self, name: str, outside: Outside, protocol: Protocol):
        self.name, self.outside, self.protocol = name, outside, protocol
        self.edits = tuple(getattr(outside.model, "edits", ()))

    def hear(self, state, clips, sound, sample):
        return self.imagine(state, clips, (), sample) if "audio" in self.outside.told else None

    def encode(self, clips: Clips, sample: int) -> Any:
        return self._encode(clips, self.protocol.context, sample)

    def _encode(self, clips: Clips, frames: int, sample: int) -> Any:
        said = self._named(jax.tree.map(lambda x: np.asarray(x)[:, :frames], clips.conditions))
        return self.outside.model.encode(clips.frames[:, :frames], said, **self._key(sample))

    def imagine(
        self, state: Any, clips: Clips, stages: Sequence[Stage], sample: int
    ) -> UInt8[np.ndarray, "r t h w 3"]:
        told = shapes.conditions_for_steps(clips.conditions)
        told = jax.tree.map(lambda x: np.array(x)[:, self.protocol.context :], told)
        pictures = []
        for t in range(self.protocol.horizon):
            for stage in (stage for stage in stages if stage.at == t):
                kind = stage.changes.kind
                if kind in TOLD:
                    getattr(told, TOLD[kind]).value[:, t:] += stage.told[:, None]
                else:
                    state = self.outside.model.edit(state, stage.edits)
            said = self._named(shapes.at_time(told, t))
            state = self.outside.model.step(state, said, **self._key(sample))
            pictures.append(self._picture(state, clips))
        return np.stack(pictures, 1)

    def observe(self, state: Any, clips: Clips, count: int, sample: int):
        """Encodes anew, with the frames that are seen: all that three functions can."""
        seen = self.protocol.context + count
        later = dataclasses.replace(
            self.protocol, context=seen, horizon=self.protocol.horizon - count
        )
        runner = Runner(self.name, self.outside, later)
        return runner.imagine(self._encode(clips, seen, sample), clips, (), sample)

    def states(
        self, clips: Clips, protocol: ProbeProtocol, glimpse: bool
    ) -> Float[np.ndarray, "r s n d"]:
        """Tokens at every moment of the protocol; with ``glimpse`` after one frame in place of all
        those before. Every posterior is encoded anew."""
        told = shapes.conditions_for_steps(clips.conditions)
        tokens, state = [], None
        for look in protocol.looks:
            seen = slice(look - 1 if glimpse else 0, look)
            said = self._named(
                jax.tree.map(lambda x, s=seen: np.asarray(x)[:, s], clips.conditions)
            )
            state = self.outside.model.encode(clips.frames[:, seen], said, **self._key(0))
            tokens.append(self._tokens(state, clips))
        for step in range(protocol.ahead[-1] if protocol.ahead else 0):
            said = self._named(shapes.at_time(told, protocol.context + step))
            state = self.outside.model.step(state, said, **self._key(0))
            if step + 1 in protocol.ahead:
                tokens.append(self._tokens(state, clips))
        return np.stack(tokens, 1)

    def _tokens(self, state: Any, clips: Clips) -> Float[np.ndarray, "r n d"]:
        tokens = np.asarray(self.outside.model.tokens(state), np.float32)
        if tokens.ndim != 3 or len(tokens) != len(clips.frames) or not np.isfinite(tokens).all():
            raise UserError(
                f"{self.outside.spec}: tokens gave {tokens.shape} and must give finite numbers of "
                f"({len(clips.frames)}, n, d)."
            )
        return tokens

    def _picture(self, state: Any, clips: Clips) -> UInt8[np.ndarray, "r h w 3"]:
        picture = np.asarray(self.outside.model.decode(state))
        wanted = (len(clips.frames), *clips.frames.shape[2:])
        if picture.shape != wanted:
            raise UserError(
                f"{self.outside.spec}: decode gave {picture.shape} and must give {wanted}."
            )
        if not np.isfinite(picture).all():
            raise UserError(f"{self.outside.spec}: decode gave a number that isn't finite.")
        return np.asarray(np.round(np.clip(picture, 0, 1) * 255), np.uint8)

    def _named(self, conditions: shapes.Conditions) -> dict[str, np.ndarray]:
        named = {name: getattr(conditions, name) for name in self.outside.told}
        return {
            name: np.asarray(signal.value, np.float32)
            for name, signal in named.items()
            if np.asarray(signal.mask).any()
        }

    def _key(self, sample: int) -> dict[str, int]:
        return {"key": sample} if getattr(self.outside.model, "stochastic", False) else {}


@dataclasses.dataclass(frozen=True)
class Videos:
    """Predictions that somebody made elsewhere of the contexts that `write_contexts` wrote."""

    folder: Path
    seed: int | None = None

    def about(self, samples: int) -> dict[str, Any]:
        return {"workdir": str(self.folder), "backbone": "videos", "samples": samples}

    def settings(self) -> Mapping[str, Any]:
        return {"videos": str(self.folder)}

    def subject(self, name: str, protocol: Protocol) -> Subject:
        def predict(clips: Clips, _: int) -> Prediction:
            shape = (protocol.horizon, *clips.frames.shape[2:])
            return Prediction(np.stack([self._read(name, shape) for name in names(clips)]))

        return Subject(name, predict)

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            raise UserError(
                f"{path} is missing: a folder of videos holds one for every context that "
                "--contexts writes."
            )
        video = np.load(path)
        if video.dtype != np.uint8 or video.shape[1:] != shape[1:] or len(video) < shape[0]:
            raise UserError(
                f"{path} is {video.dtype} {video.shape} and must be uint8 of at least {shape}; ask "
                "for a shorter --horizon or --long-horizon, or predict more frames."
            )
        return video[: shape[0]]


def names(clips: Clips) -> list[str]:
    """EPISODE_START of each clip."""
    assert clips.start is not None
    return [f"{unit:04}_{start:04}" for unit, start in zip(clips.unit, clips.start, strict=True)]


def write_contexts(clips: Clips, protocol: Protocol, folder: Path) -> int:
    """What a maker of videos is shown; the number of files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names(clips)):
        told = {
            modality: np.asarray(signal.value)[number]
            for modality, signal in clips.conditions._asdict().items()
            if np.asarray(signal.mask)[number].any()
        }
        frames = clips.frames[number, : protocol.context]
        np.savez_compressed(folder / f"{name}.npz", frames=frames, **told)
    return len(clips.frames)
