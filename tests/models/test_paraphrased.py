"""Words are learned from the vector that says the same, and the vector not from them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.memory import MemoryLoader
from data_pipelines.twins import make_group, paraphrases
from tests.models.quick import quick_jit
from tests.test_remembered import BOTH, config
from wm_jax import mesh, models, shapes, words
from wm_jax.config import validate
from wm_jax.errors import UserError
from wm_jax.train import train
from wm_jax.writers import read_rows

KINDS = ("push", "remove")


@pytest.fixture(scope="module")
def episodes():
    return make_group("twins:motion", 1, length=34, resolution=16, sound=False, twins=2)[1:]


@pytest.fixture(scope="module")
def model():
    return models.build(config(model__loss__paraphrase=2.0).model)


@pytest.fixture(scope="module")
def batch(episodes):
    told = {"length": 8, "batch_size": 2, "seed": 0, "conditions": BOTH}
    return mesh.to_batch(next(MemoryLoader(episodes, **told, paraphrases=KINDS)))


@pytest.fixture(scope="module")
def params(model, batch):
    return quick_jit(model.init)(jax.random.key(0), batch)


def error(model, params, pairs):
    return model.net.apply({"params": params}, pairs, method="paraphrased")


def drawn(seed, count=96):
    """Pairs whose words say all that the vector does: nothing is left to guess."""
    said, vectors = paraphrases.made_up(np.random.default_rng(seed), KINDS, count, 16, plain=0.0)
    ids = np.stack([words.encode(sentence) for sentence in said])
    return shapes.Paraphrases(jnp.asarray(ids)[None], jnp.asarray(vectors)[None])


def test_it_is_a_term_of_the_loss_where_there_are_pairs(model, params, batch):
    loss = quick_jit(lambda b: model.loss(params, b, jax.random.key(1)))
    total, terms = loss(batch)
    bare, without = loss(batch._replace(paraphrases=None))
    assert set(terms) - set(without) == {"paraphrase"}
    assert terms["paraphrase"].shape == batch.mask.shape
    np.testing.assert_allclose(total - bare, 2.0 * terms["paraphrase"].mean(), rtol=1e-4)
    assert (terms["paraphrase"] > 0).all()
    at = error(model, params, batch.paraphrases)
    np.testing.assert_allclose(at, terms["paraphrase"], rtol=1e-4)


def test_the_vector_is_not_changed_by_the_words(model, params, batch):
    def mean(params):
        return error(model, params, batch.paraphrases).mean()

    grads = jax.tree_util.tree_leaves_with_path(quick_jit(jax.grad(mean))(params))
    moved = {jax.tree_util.keystr(path): np.abs(g) for path, g in grads if np.abs(g).any()}
    assert moved and all("conditioning" in name for name in moved), moved.keys()
    assert any("['text']" in name for name in moved)
    rows = moved["['conditioning']['said']['Dense_0']['kernel']"].max(1)
    assert not rows[:25].any() and rows[25:].all(), "24 numbers and a flag, then the words"


def test_words_that_were_never_said_come_to_mean_it(model, params):
    """Learned from some pairs, told of others."""
    optimizer = optax.adam(3e-3)

    @quick_jit
    def update(params, state, pairs):
        grads = jax.grad(lambda p: error(model, p, pairs).mean())(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    tested, state = drawn(999), optimizer.init(params)
    before = error(model, params, tested).mean()
    for seed in range(150):
        params, state = update(params, state, drawn(seed))
    after = error(model, params, tested).mean()
    assert after < 0.2 < 0.8 < before


def test_a_run_learns_by_it_and_goes_on_where_it_was(episodes, tmp_path):
    told = {"data__paraphrases": KINDS, "model__loss__paraphrase": 1.0}
    train(config(train__steps=2, **told), tmp_path, source=episodes)
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if "train/loss/total" in r]
    assert len(rows) == 2 and all(r["train/loss/paraphrase"] > 0 for r in rows)
    with pytest.raises(UserError, match="data.paraphrases is .* there and .* here"):
        train(config(train__steps=2), tmp_path, source=episodes)


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"model__modalities": ("text",)}, "model.modalities lacks intervention"),
        ({"model__text": "vectors"}, "model.text is not 'words'"),
    ],
)
def test_what_is_told_in_one_way_has_no_pairs(changes, lacks):
    with pytest.raises(UserError, match=re.escape(f"{lacks}; change that, or set it to ()")):
        validate(config(data__paraphrases=KINDS, **changes))
