"""A NaN or a spike: the run goes back, skips the data, and is the same run however it is killed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.memory import MemoryLoader
from tests import tiny
from tests.test_warm_start import fresh
from wm_jax import checkpoint, recover
from wm_jax.errors import UserError
from wm_jax.train import TrainingDiverged

POISON = 77  # a grey level that no episode has
BATCH = 17  # the batch that has it, from 0


@dataclasses.dataclass(frozen=True)
class Sensitive(tiny.TinyModel):
    """Its loss is ``times`` as large for a batch with poison in it."""

    times: float = float("nan")

    def loss(self, params, batch, key, step=None):
        total, terms = super().loss(params, batch, key, step)
        factor = jnp.where((batch.frames == POISON).any(), self.times, 1.0)
        return total * factor, {name: term * factor for name, term in terms.items()}


class Killed(Exception):
    """Stands for a kill: nothing is saved, no handler runs."""


def poison(monkeypatch, die_at=None):
    """Batch `BATCH` of the data gets poison; the loader dies at its ``die_at``-th call."""
    served, serve = [0], MemoryLoader.__next__

    def poisoned(loader):
        served[0] += 1
        if served[0] == die_at:
            raise Killed
        number = loader.position()["batches"]
        batch = serve(loader)
        if number == BATCH:
            batch["frames"][0, 0, 0, 0] = POISON
        return batch

    monkeypatch.setattr(MemoryLoader, "__next__", poisoned)


def train(workdir, times=float("nan"), **changes):
    return tiny.train(workdir, Sensitive(times=times), train__window_doublings=(), **changes)


def events(workdir, kind):
    lines = (workdir / "events.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == kind]


@pytest.fixture(scope="module")
def gone_back(tmp_path_factory):
    """A run that met the poison and got over it."""
    workdir = tmp_path_factory.mktemp("gone_back")
    with pytest.MonkeyPatch.context() as monkeypatch:
        poison(monkeypatch)
        assert train(workdir)["step"] == 40
    return workdir


def test_a_nan_is_left_behind_with_the_data_that_led_to_it(gone_back):
    (found,) = events(gone_back, "not_finite")
    assert (found["step"], found["metric"]) == (18, "train/loss/next_frame")
    (back,) = events(gone_back, "went_back")
    assert (back["step"], back["after"], back["tries"]) == (10, 18, 1)
    params, _, _ = checkpoint.restore_params(gone_back)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    steps = [row["step"] for row in tiny.rows(gone_back)]
    assert steps == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    # Noticed while update 19 ran: what came after batch 10 is skipped, nine batches in all.
    restored = checkpoint.Checkpoints(gone_back).restore(40, fresh())
    assert restored.position["batches"] == 40 + 9


@pytest.mark.parametrize("die_at", [22, 26])
def test_killed_after_going_back_it_skips_the_same_data(tmp_path, monkeypatch, gone_back, die_at):
    """Two and six batches after it went back: not one checkpoint knows of that yet."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        poison(patch, die_at)
        train(tmp_path)
    assert events(tmp_path, "went_back") and max(checkpoint.steps(tmp_path / "checkpoints")) == 10
    poison(monkeypatch)
    train(tmp_path)
    assert len(events(tmp_path, "went_back")) == 1
    assert tiny.digest(tmp_path, 40) == tiny.digest(gone_back, 40)
    assert tiny.rows(tmp_path) == tiny.rows(gone_back)


def test_before_the_first_checkpoint_it_goes_back_to_the_start(tmp_path, monkeypatch):
    poison(monkeypatch)
    train(tmp_path, train__checkpoint_every=30)
    assert events(tmp_path, "went_back")[0]["step"] == 0


def test_without_tries_it_stops(tmp_path, monkeypatch):
    poison(monkeypatch)
    with pytest.raises(TrainingDiverged, match="nan at update 18, so the run stopped; the last"):
        train(tmp_path, train__recover_tries=0)
    assert not events(tmp_path, "went_back")


def test_a_spike_is_left_behind_if_a_rule_is_set(tmp_path, monkeypatch):
    monkeypatch.setattr(recover, "LEAST", 10)
    poison(monkeypatch)
    train(tmp_path / "with", times=1e3, train__spike_factor=20.0)
    (found,) = events(tmp_path / "with", "spike")
    assert (found["step"], found["metric"]) == (18, "train/loss/total")
    assert len(events(tmp_path / "with", "went_back")) == 1
    train(tmp_path / "without", times=1e3)
    assert not events(tmp_path / "without", "went_back")


def test_a_spike_is_told_by_the_median_of_recent_losses():
    spikes = recover.Spikes(3.0)
    assert not any(spikes.found(1.0) for _ in range(recover.LEAST - 1))
    assert not spikes.found(100.0)  # too few to judge by; and one of them does not move a median
    assert not spikes.found(2.9)
    assert spikes.found(3.1)
    again = recover.Spikes(3.0)
    again.seek(spikes.position()["recent_losses"])
    assert again.found(3.1) and not again.found(2.9)
    assert recover.Spikes(0.0).position() == {}
    below_zero = recover.Spikes(3.0)
    assert not any(below_zero.found(loss) for loss in [-1.0] * 50 + [5.0])


def test_returns_to_later_updates_are_forgotten(tmp_path):
    trouble = recover.Trouble("spike", 28, "train/loss/total", 9.0)
    there = recover.Recoveries(tmp_path, 30, writes=True)
    there.add(10, trouble, {"batches": 12})
    there.add(20, trouble, {"batches": 33})
    there.add(20, trouble, {"batches": 44})
    again = recover.Recoveries(tmp_path, 20, writes=True)
    assert again.tries(20) == 2 and again.position(20) == {"batches": 44}
    assert recover.Recoveries(tmp_path, 10, writes=True).position(10) == {"batches": 12}
    gone = recover.Recoveries(tmp_path, 30, writes=True)
    assert gone.tries(20) == 0 and gone.position(20) is None and gone.tries(10) == 1


def test_what_to_skip_must_be_readable(tmp_path):
    (tmp_path / "recoveries.json").write_text("[{")
    with pytest.raises(UserError, match="cannot be read, and it says what data to skip"):
        recover.Recoveries(tmp_path, 0, writes=True)
