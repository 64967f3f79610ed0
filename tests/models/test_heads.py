"""Heads: what they predict, what they cost, and that they are only there when asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines import window
from tests.models.quick import quick_jit
from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.models.heads import Heads, VectorHead

B, T, SIZE, READ = 2, 4, 8, 3
RANDOM = np.random.default_rng(0)


def build(*heads, **changes):
    settings = {
        "model.resolution": SIZE,
        "model.patch": 4,
        "model.embed": 8,
        "model.dynamics.width": 8,
        "model.dynamics.hidden": 8,
        "model.decoder_hidden": 8,
        "model.heads": heads,
        "model.readout": READ if "readout" in heads else 0,
    }
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    return models.build(change(base_config("grid_gru"), settings).model)


def batch(**fields):
    conditions = shapes.no_conditions(B, T)
    if "audio" in fields:
        conditions = conditions._replace(audio=fields.pop("audio"))
    frames = jnp.asarray(RANDOM.integers(0, 256, (B, T, SIZE, SIZE, 3), np.uint8))
    is_first = jnp.zeros((B, T), bool).at[:, 0].set(True)
    return shapes.Batch(frames, is_first, jnp.ones((B, T), bool), conditions, **fields)


SOUND = shapes.Signal(
    jnp.asarray(RANDOM.normal(size=(B, T, 16)), jnp.float32),
    jnp.asarray(np.arange(T) < 2)[None].repeat(B, 0),
)
FULL = {
    "reward": jnp.asarray(RANDOM.normal(size=(B, T)), jnp.float32),
    "is_terminal": jnp.zeros((B, T), bool).at[0, -1].set(True),
    "readout": jnp.asarray(RANDOM.normal(size=(B, T, READ)), jnp.float32),
    "audio": SOUND,
}
ALL = ("reward", "continue", "audio", "readout")


@pytest.fixture(scope="module")
def made():
    model = build(*ALL)
    return model, quick_jit(model.init)(jax.random.key(0), batch(**FULL))


def test_parameters_are_there_only_when_asked_for(made):
    plain, reward = build(), build("reward")
    names = lambda model: jax.eval_shape(model.init, jax.random.key(0), batch(**FULL))  # noqa: E731
    assert "heads" not in names(plain)
    assert set(names(reward)["heads"]) == {"head_reward"}
    assert set(made[1]["heads"]) == {f"head_{name}" for name in ALL}
    rest = {k: v for k, v in made[1].items() if k != "heads"}
    shapes_of = lambda tree: jax.tree.map(lambda x: x.shape, tree)  # noqa: E731
    assert shapes_of(rest) == shapes_of(names(plain))  # so what was trained without them loads


def test_terms_and_readings(made):
    model, params = made
    total, terms = quick_jit(model.loss)(params, batch(**FULL), jax.random.key(1))
    for name in ALL:
        assert terms[f"head_{name}"].shape == (B, T)
    # The reward's distribution is uniform at first: ln 255 nats whatever the target.
    np.testing.assert_allclose(terms["head_reward"], np.log(255), rtol=1e-5)
    # Where there is no sound, nothing is compared.
    assert not np.any(terms["head_audio"][:, 2:]) and np.all(terms["head_audio"][:, :2] > 0)
    weighted = sum(getattr(model.weights, k) * v for k, v in terms.items())
    np.testing.assert_allclose(total, weighted.mean(), rtol=1e-5)
    read = model.read(params, model.initial(params, B))
    assert {k: v.shape for k, v in read.items()} == {
        "reward": (B,),
        "continue": (B,),
        "audio": (B, 16),
        "readout": (B, READ),
    }
    assert np.all(read["reward"] == 0) and np.all((read["continue"] > 0) & (read["continue"] < 1))
    assert build().read({}, model.initial(params, B)) == {}


def test_a_readout_changes_nothing_but_itself(made):
    model, params = made
    tokens = jax.random.normal(jax.random.key(2), (B, T, 4, 8))
    targets = model.net.heads.targets(batch(**FULL))

    def term(name):
        def loss(tokens):
            terms = model.net.heads.apply(
                {"params": params["heads"]}, tokens, targets, method="losses"
            )
            return terms[name].sum()

        return quick_jit(jax.grad(loss))(tokens)

    assert not np.any(term("head_readout"))
    assert np.any(term("head_audio")) and np.any(term("head_continue"))


def test_continue_is_one_until_the_end():
    """The loss is −ln p(goes on), and −ln (1 − p) where the episode terminates."""
    heads = Heads(("continue",))
    tokens = jax.random.normal(jax.random.key(2), (B, T, 4, 8))
    targets = {"continue": FULL["is_terminal"]}
    variables = heads.init(jax.random.key(0), tokens)
    p = heads.apply(variables, tokens)["continue"]
    term = heads.apply(variables, tokens, targets, method="losses")["head_continue"]
    want = -np.log(np.where(FULL["is_terminal"], 1 - p, p))
    np.testing.assert_allclose(term, want, rtol=1e-4)


def test_a_head_learns_a_linear_function_of_the_tokens():
    head = VectorHead(2, units=16)
    tokens = jax.random.normal(jax.random.key(0), (256, 3, 4))
    target = tokens.sum(1)[:, :2] / 2
    variables, optimizer = head.init(jax.random.key(1), tokens), optax.adam(1e-2)

    def loss(variables):
        return head.loss(head.apply(variables, tokens), target).mean()

    @quick_jit
    def fit(variables, state):
        def step(carry, _):
            variables, state = carry
            gradient = jax.grad(loss)(variables)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, updates), state), None

        return jax.lax.scan(step, (variables, state), None, 200)[0][0]

    assert loss(fit(variables, optimizer.init(variables))) < 0.2 * loss(variables)


def test_the_bands_of_a_sine():
    """A sine of amplitude A, k periods a frame, has |FFT|² = (A S / 2)² at k and 0 elsewhere."""
    samples, k, amplitude = 256, 28, 0.5
    time = np.arange(samples) / samples
    bands = window.log_bands((amplitude * np.sin(2 * np.pi * k * time))[None].astype(np.float32))
    edges = np.unique(np.geomspace(1, samples // 2 + 1, 17).round().astype(int))
    band = np.searchsorted(edges, k, side="right") - 1
    want = np.zeros(16)
    want[band] = np.log1p((amplitude * samples / 2) ** 2)
    np.testing.assert_allclose(bands[0], want, atol=1e-4)


def test_a_missing_field_is_named():
    with pytest.raises(UserError, match="has 'reward' and the batch has no reward"):
        build("reward").init(jax.random.key(0), batch())
    with pytest.raises(UserError, match="an episode lacks reward"):
        window.trim({"frames": np.zeros((2, 4, 4, 3), np.uint8), "is_first": [1, 0]}, ("reward",))


@pytest.mark.parametrize(
    "heads, changes, words",
    [
        (("rewards",), {}, "has 'rewards', which is no head; choose of reward, continue"),
        (("audio",), {"model__modalities": ("audio",)}, "both have 'audio'"),
        (("readout",), {"model__readout": 0}, "predicts model.readout numbers"),
        (("reward",), {"model__readout": 2}, "predicts model.readout numbers"),
    ],
)
def test_what_does_not_fit_is_refused(heads, changes, words):
    with pytest.raises(UserError, match=words):
        build(*heads, **changes)


@pytest.mark.slow
def test_heads_learn_from_twins_while_the_state_is_carried(tmp_path):
    """A run on episodes with sound: from records to terms, to weights on disk, to readings."""
    from data_pipelines.twins.generate import make_episode
    from wm_jax import checkpoint
    from wm_jax.train import train
    from wm_jax.writers import read_rows

    source = [make_episode("twins:full", seed, length=24, resolution=32) for seed in range(2)]
    sizes = {"resolution": 32, "patch": 16, "embed": 8, "decoder_hidden": 8}
    sizes |= {"dynamics.width": 8, "dynamics.hidden": 8}
    settings = {f"model.{key}": value for key, value in sizes.items()} | {
        "model.heads": ("continue", "audio"),
        "data.window": 8,
        "data.conditions": ("actions",),
        "train.carry_state": True,
        "train.window_doublings": (),
        "train.steps": 4,
        "train.batch_size": 2,
        "train.log_every": 1,
        "train.clip_every": 0,
    }
    config = change(base_config("grid_gru"), settings)
    train(config, tmp_path, source=source)
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if "train/loss/total" in r]
    assert len(rows) == 4
    assert all(row["train/loss/head_audio"] > 0 for row in rows)
    assert all(row["train/loss/head_continue"] > 0 for row in rows)
    params, saved, _ = checkpoint.restore_params(tmp_path)
    model = models.build(saved.model)
    read = model.read(params, model.initial(params, 1))
    assert read["audio"].shape == (1, 16) and set(read) == {"continue", "audio"}
