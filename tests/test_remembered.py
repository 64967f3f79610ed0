"""States that are followed once: the same losses as when every update follows them anew."""

import re
import shutil

import jax
import numpy as np
import pytest

from data_pipelines.memory import MemoryLoader
from data_pipelines.twins import make_group
from tests.models.quick import quick_jit
from wm_jax import mesh, models, remembered
from wm_jax.config import base_config, change, validate
from wm_jax.errors import UserError
from wm_jax.train import train
from wm_jax.writers import read_rows

BOTH = ("intervention", "text")
HEARS = {
    "model.resolution": 16,
    "model.patch": 1,
    "model.dynamics.slots": 3,
    "model.dynamics.foresight": 3,
    "model.dynamics.directions": 8,
    "model.modalities": BOTH,
    "model.told_width": 16,
    "model.loss.posterior": 0.0,
    "model.loss.prior": 0.0,
    "model.loss.place": 0.0,
    "model.loss.whole": 0.0,
    "data.conditions": BOTH,
    "data.window": 16,
    "train.batch_size": 2,
    "train.steps": 4,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "train.clip_every": 0,
    "train.window_doublings": (),
    "train.remember": True,
    "optim.only": ("conditioning", "dynamics/hearing"),
}


def config(**changes):
    return change(base_config(), HEARS | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(scope="module")
def episodes():
    group = make_group("twins:motion", 1, length=34, resolution=16, sound=False, twins=3)
    return group[1:]


def loader_of(episodes, **changes):
    settings = {"length": 16, "batch_size": 2, "seed": 0, "conditions": BOTH, "fixed": True}
    return MemoryLoader(episodes, **(settings | changes))


COARSE = {
    "model__dynamics__train_pool": 2,
    "model__dynamics__pool": 2,
    "model__dynamics__sight": 24,
}


@pytest.mark.parametrize("changes", [{}, COARSE])
def test_what_is_remembered_is_what_would_be_followed(episodes, changes):
    model = models.build(config(**changes).model)
    batch = mesh.to_batch(next(loader_of(episodes)))
    params = quick_jit(model.init)(jax.random.key(0), batch)
    kept = batch._replace(followed=quick_jit(model.remember)(params, batch))
    loss = quick_jit(lambda p, b: model.loss(p, b, jax.random.key(1))[0])
    anew, known = loss(params, batch), loss(params, kept)
    assert anew > 0
    np.testing.assert_allclose(known, anew, rtol=1e-5)
    fields = set(type(model.initial(params, 1).carry)._fields)
    assert set(kept.followed) == fields - {"stage", "past"}


def test_an_episode_gives_the_same_window_whenever_it_comes(episodes):
    loader, seen = loader_of(episodes), {}
    for batch in (next(loader) for _ in range(9)):
        for i, episode in enumerate(batch["episode"].tolist()):
            first = seen.setdefault(episode, batch["frames"][i])
            np.testing.assert_array_equal(first, batch["frames"][i])
            np.testing.assert_array_equal(first, loader.fixed_window(episode)["frames"])
    assert len(seen) == len(episodes)
    with pytest.raises(UserError, match="loader was memory, one window an episode and is memory"):
        loader_of(episodes, fixed=False).seek(loader.position())


def test_a_run_that_remembers_follows_once_resumes_and_learns_what_hears(
    episodes, tmp_path, capfd, monkeypatch
):
    followed = []
    fill = remembered.Remembering.fill
    monkeypatch.setattr(
        remembered.Remembering, "fill", lambda self, stop: followed.append(fill(self, stop)) or True
    )
    train(config(), tmp_path / "a", source=episodes)
    assert "follow 3/3 windows" in capfd.readouterr().err
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b/checkpoints/4")
    train(config(), tmp_path / "b", source=episodes)
    assert followed == [True] * 2
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in "ab"]
    losses = [[r["train/loss/total"] for r in each if "train/loss/total" in r] for each in rows]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert all("train/loss/said" in r and "train/loss/place" not in r for r in rows[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optim__only": ()}, "what objects are followed by would learn too"),
        ({"optim__only": ("dynamics",)}, "what objects are followed by would learn too"),
        ({"data__loader": "grain"}, "keeps whole windows in memory"),
        ({"train__window_doublings": (0.5,)}, "keeps whole windows in memory"),
        ({"train__carry_state": True}, "takes one window of an episode"),
        ({"model__loss__prior": 1.0}, "model.loss.prior=1.0 compares some; set it to 0"),
        (
            {"model__modalities": ("light", *BOTH), "model__loss__told_dropout": 0.4},
            "light would be dropped, by which objects are followed",
        ),
    ],
)
def test_what_would_not_stay_true_is_not_remembered(changes, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        validate(config(**changes))


def test_what_is_told_in_words_or_as_a_vector_needs_both():
    with pytest.raises(UserError, match="model.modalities lacks intervention; add it, or set 0"):
        validate(config(model__modalities=("text",), model__loss__told_in_words=0.6))


def test_a_backbone_without_slots_has_nothing_to_remember():
    plain = models.build(base_config("grid_gru").model)
    with pytest.raises(UserError, match="GridGRU has nothing to remember"):
        remembered.check(plain)
