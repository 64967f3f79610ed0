"""Truncated backpropagation: the state goes on from update to update, and through a resume."""

import dataclasses
import hashlib
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from data_pipelines.memory import MemoryLoader
from tests import tiny
from wm_jax import mesh as meshes
from wm_jax.checkpoint import Checkpoints
from wm_jax.config import validate
from wm_jax.errors import UserError
from wm_jax.optim import make_optimizer
from wm_jax.train_step import init_state

ON = {"train__carry_state": True, "train__window_doublings": (), "train__steps": 12}
ON |= {"train__checkpoint_every": 4, "train__log_every": 1, "data__window": 4}


@dataclasses.dataclass(frozen=True)
class Carries(tiny.TinyModel):
    """Hands over how bright the stream has been: a leaky sum, started anew where a stream is. Its
    mean is a term, so it is in the metrics, and it drives the loss."""

    def begin(self, batch_size):
        return {"seen": jnp.zeros(batch_size)}

    def loss_from(self, params, batch, key, step=None, before=None):
        _, terms = self.loss(params, batch, key, step)
        bright = batch.frames.astype(jnp.float32).mean((2, 3, 4))

        def body(seen, inputs):
            bright, is_first = inputs
            seen = 0.5 * jnp.where(is_first, 0.0, seen) + bright
            return seen, seen

        scanned = (bright.T, batch.is_first.T)
        seen, all_seen = jax.lax.scan(body, before["seen"], scanned)
        terms["seen"] = all_seen.T * (1 + params["dynamics"]["bias"].mean())
        mask = batch.mask.astype(jnp.float32)
        return (sum(terms.values()) * mask).sum() / mask.sum(), (terms, {"seen": seen})


def state(streams=4):
    settings = tiny.config(**ON)
    optimizer, devices = make_optimizer(settings.optim), meshes.make_mesh(settings.mesh)
    batch = meshes.to_batch(tiny.arrays())
    return init_state(Carries(), optimizer, batch, 0, devices, 0.9, streams)


def digest(workdir, step):
    """SHA-256 over every array, what is handed over too, and the data position."""
    restored = Checkpoints(workdir).restore(step, state())
    assert np.asarray(restored.state.handover["seen"]).any()
    out = hashlib.sha256(json.dumps(restored.position).encode())
    for leaf in jax.tree.leaves(restored.state):
        out.update(np.asarray(leaf).tobytes())
    return out.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    tiny.train(workdir, Carries(), **ON)
    return workdir


def test_the_state_goes_on_as_one_long_stream(whole):
    """What is handed over is the sum along each stream since it began, over all updates."""
    loader = MemoryLoader(tiny.episodes(), length=4, batch_size=4, seed=0, consecutive=True)
    seen, sums = np.zeros(4), []
    for _ in range(12):
        batch, trail = next(loader), []
        for t in range(4):
            bright = batch["frames"][:, t].astype(np.float32).mean((1, 2, 3))
            seen = 0.5 * np.where(batch["is_first"][:, t], 0, seen) + bright
            trail.append(seen)
        sums.append(np.mean(trail))
    restored = Checkpoints(whole).restore(12, state())
    np.testing.assert_allclose(restored.state.handover["seen"], seen, rtol=1e-5)
    rows = [row for row in tiny.rows(whole) if "train/loss/seen" in row]
    got = [row["train/loss/seen"] for row in rows]
    np.testing.assert_allclose(got[0], sums[0], rtol=1e-5)
    np.testing.assert_allclose(got, sums, rtol=0.05)  # but for the bias, which learns


def test_a_stopped_run_ends_in_the_same_state(tmp_path, whole, monkeypatch):
    """Between two checkpoints and in the middle of episodes; bit for bit."""
    served, serve = [0], MemoryLoader.__next__

    def watch(loader):
        served[0] += 1
        if served[0] == 8:  # the first batch is read once more, for its size
            os.kill(os.getpid(), signal.SIGTERM)
        return serve(loader)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryLoader, "__next__", watch)
        assert tiny.train(tmp_path, Carries(), **ON)["step"] == 7
    assert not tiny.train(tmp_path, Carries(), **ON)["stopped"]
    assert digest(tmp_path, 12) == digest(whole, 12)
    assert tiny.rows(tmp_path) == tiny.rows(whole)


def test_off_it_costs_nothing():
    """No leaf in the state, and none in a checkpoint."""
    plain = state(streams=0)
    assert plain.handover is None
    assert len(jax.tree.leaves(plain)) == len(jax.tree.leaves(state())) - 1


def test_what_is_handed_over_is_split_as_the_batch_is():
    assert state().handover["seen"].sharding.spec == PartitionSpec(("fsdp", "data"))


@pytest.mark.parametrize(
    "changes", [{"train__window_doublings": (0.5,)}, {"data__loader": "grain"}]
)
def test_what_cannot_go_on_is_refused(changes):
    with pytest.raises(UserError, match="window goes on from the one before only if none is cut"):
        validate(tiny.config(**(ON | changes)))
