"""A world model of three dense layers, small enough to train in a test, with known behaviour."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import mesh, shapes
from wm_jax.checkpoint import Checkpoints
from wm_jax.config import base_config, change
from wm_jax.optim import make_optimizer
from wm_jax.train import train as train_run
from wm_jax.train_step import init_state


@dataclasses.dataclass(frozen=True)
class TinyModel:
    """tokens' = tanh(W tokens) or, where a frame is seen, E frame; frame = D tokens."""

    resolution: int = 8
    width: int = 16

    def init(self, key, batch):
        pixels = self.resolution**2 * 3
        e, w, d = jax.random.split(key, 3)
        return {
            "encoder": {"kernel": jax.random.normal(e, (pixels, self.width)) * 0.1},
            "dynamics": {
                "kernel": jax.random.normal(w, (self.width, self.width)) * 0.1,
                "bias": jnp.zeros(self.width),
            },
            "decoder": {"kernel": jax.random.normal(d, (self.width, pixels)) * 0.1},
        }

    def logical_axes(self, params):
        return {
            "encoder": {"kernel": ("inputs", "outputs")},
            "dynamics": {"kernel": ("inputs", "outputs"), "bias": None},
            "decoder": {"kernel": ("inputs", "outputs")},
        }

    def initial(self, params, batch_size):
        tokens = jnp.zeros((batch_size, 1, self.width))
        return shapes.LatentState(tokens, tokens, None, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None):
        if frame is None:
            layer = params["dynamics"]
            tokens = jnp.tanh(state.tokens @ layer["kernel"] + layer["bias"])
        else:
            tokens = (frame.reshape(len(frame), 1, -1) - 0.5) @ params["encoder"]["kernel"]
        return shapes.LatentState(tokens, tokens, None, state.step + 1)

    def decode(self, params, state):
        flat = state.tokens[:, 0] @ params["decoder"]["kernel"] + 0.5
        return flat.reshape(-1, self.resolution, self.resolution, 3)

    def loss(self, params, batch, key, step=None):
        """Predicts every next frame, with a little noise so that the key matters."""
        frames = batch.frames.astype(jnp.float32) / 255
        flat = frames.reshape(*frames.shape[:2], -1) - 0.5
        tokens = flat @ params["encoder"]["kernel"]
        tokens += 0.01 * jax.random.normal(key, tokens.shape)
        layer = params["dynamics"]
        ahead = jnp.tanh(tokens @ layer["kernel"] + layer["bias"])
        error = jnp.square(ahead[:, :-1] @ params["decoder"]["kernel"] - flat[:, 1:]).mean(-1)
        error = jnp.pad(error, ((0, 0), (1, 0)))
        mask = batch.mask.astype(jnp.float32)
        return (error * mask).sum() / jnp.maximum(mask.sum(), 1), {"next_frame": error}


def episodes(count: int = 12, frames: int = 24, resolution: int = 8) -> list[dict]:
    """A bright square that walks to the right, from a row and a column of its own."""
    out = []
    for i in range(count):
        image = np.zeros((frames, resolution, resolution, 3), np.uint8)
        for t in range(frames):
            image[t, i % resolution, (i + t) % resolution] = 255
        out.append({"frames": image, "is_first": np.arange(frames) == 0})
    return out


def arrays(batch: int = 8, frames: int = 4, resolution: int = 8, seed: int = 0) -> dict:
    """A batch as loaders yield it, of noise."""
    rng = np.random.default_rng(seed)
    first = np.broadcast_to(np.arange(frames) == 0, (batch, frames))
    shape = (batch, frames, resolution, resolution, 3)
    return {
        "frames": rng.integers(0, 256, shape, np.uint8),
        "is_first": np.array(first),
        "mask": np.ones((batch, frames), bool),
    }


def config(**changes):
    """A config for `TinyModel` on `episodes`; keys with ``__`` for the dot."""
    settings = {
        "model.resolution": 8,
        "model.patch": 4,
        "data.window": 6,
        "data.conditions": (),
        "train.batch_size": 4,
        "train.window_doublings": (0.6,),
        "train.steps": 40,
        "train.log_every": 5,
        "train.checkpoint_every": 10,
        "train.clip_every": 0,
        "train.ema": 0.9,
        "optim.warmup": 5,
        "eval.context": 4,
        "eval.horizon": 6,
    }
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    return change(base_config(), settings)


def train(workdir, model=None, source=None, **changes):
    """`wm_jax.train.train` of the tiny model."""
    return train_run(
        config(**changes),
        workdir,
        model=model or TinyModel(),
        source=episodes() if source is None else source,
        validation=episodes(3),
    )


def digest(workdir, step: int) -> str:
    """SHA-256 over every array, and the data position, of a checkpoint."""
    model, settings = TinyModel(), config()
    state = init_state(
        model,
        make_optimizer(settings.optim),
        mesh.to_batch(arrays()),
        0,
        mesh.make_mesh(settings.mesh),
        ema=0.9,
    )
    restored = Checkpoints(workdir).restore(step, state)
    out = hashlib.sha256(json.dumps(restored.position).encode())
    for leaf in jax.tree.leaves(restored.state):
        out.update(np.asarray(leaf).tobytes())
    return out.hexdigest()


def rows(workdir) -> list[dict]:
    """Rows of metrics.jsonl without the timings."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith("time/")}
        for line in lines
    ]
