"""The flow decoder: its path against closed forms, its noise, and what its loss leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.models import decoder_flow
from wm_jax.models.decoder_flow import CONTRAST, FINEST, FlowDecoder
from wm_jax.models.decoder_patch import PatchDecoder

CELLS, PATCH, SIZE = (2, 2), 4, 8
EXPECTED = 0.3
TOKENS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, 5)), jnp.float32)
FRAMES = jnp.asarray(np.random.default_rng(1).random((3, 2, SIZE, SIZE, 3)), jnp.float32)


def flow(steps=2):
    return FlowDecoder(PatchDecoder(CELLS, PATCH, 6), CELLS, PATCH, steps, width=8, depth=1)


@pytest.fixture(scope="module")
def variables():
    arguments = TOKENS, FRAMES, jax.random.key(0)
    return random_variables(flow(), *arguments, method="sharp_error")


def knows(monkeypatch, frame):
    """Puts a network in place that predicts what is missing to ``frame`` (…, h, w, 3), whatever it
    is given, and one that expects `EXPECTED` to be missing everywhere."""

    def network(self, x, t, size, plain, tokens):
        frames = jnp.asarray(frame).reshape(-1, *frame.shape[-3:])
        frames = frames if len(x) == len(frames) else frames[:1]
        return (frames - 0.5 - CONTRAST * plain) / EXPECTED

    monkeypatch.setattr(decoder_flow.PatchFlow, "__call__", network)
    expects = lambda self, plain, tokens: jnp.full(plain.shape, EXPECTED)  # noqa: E731
    monkeypatch.setattr(decoder_flow.PatchSpread, "__call__", expects)


def unexpected(variables, frames):
    """How far what is missing is from `EXPECTED`, squared and summed over a frame."""
    lacks = jnp.abs(frames - flow().apply(variables, TOKENS, True, method="plain_frames"))
    return jnp.square(lacks - EXPECTED).sum((-3, -2, -1))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_network_that_knows_the_frame_arrives_at_it(monkeypatch, variables, steps):
    """x_1 = x for any number of steps, from any noise: the paths are straight."""
    knows(monkeypatch, FRAMES)
    for key in (None, jax.random.key(3)):
        out = flow(steps).apply(variables, TOKENS, key=key)
        np.testing.assert_allclose(out, FRAMES, atol=1e-5)


def test_the_loss_is_the_velocity_error(monkeypatch, variables):
    """A network that knows the frame has none, at any size: v = x − ε is the same at both half
    steps. One that is wrong by e everywhere has e², summed, where the flow is taught.
    """
    frames = jnp.broadcast_to(FRAMES[0, 0], FRAMES.shape)
    key = jax.random.key(1)
    knows(monkeypatch, FRAMES[0, 0])
    error = flow().apply(variables, TOKENS, frames, key, method="sharp_error")
    assert error.shape == (3, 2)
    expected = unexpected(variables, frames)
    np.testing.assert_allclose(error, expected, rtol=1e-4)
    monkeypatch.setattr(decoder_flow, "BOOTSTRAPPED", 100)  # none of six frames
    knows(monkeypatch, FRAMES[0, 0] + 0.1)
    error = flow().apply(variables, TOKENS, frames, key, method="sharp_error")
    np.testing.assert_allclose(error - expected, SIZE * SIZE * 3 * 0.1**2, rtol=1e-3)


def test_a_large_step_is_taught_the_mean_of_two(variables):
    """`_two_steps` against its two steps written out with the network alone."""
    known = FRAMES[:, 0], TOKENS[:, 0]
    x = jax.random.normal(jax.random.key(0), FRAMES[:, 0].shape)
    size, t = jnp.array([1.0, 0.5, 0.25]), jnp.array([0.0, 0.5, 0.25])
    two = flow().apply(variables, x, t, size, known, method="_two_steps")
    network = lambda *a: flow().apply(variables, *a, *known, method=lambda m, *a: m.network(*a))  # noqa: E731
    a, b, c = ((1 - t - k * size / 2)[:, None, None, None] for k in range(3))
    first = x + (a - b) * (network(x, t, size / 2) - x) / a
    second = first + (b - c) * (network(first, t + size / 2, size / 2) - first) / b
    np.testing.assert_allclose(x + (a - c) * two, second, rtol=1e-4, atol=1e-4)


def test_times_are_whole_steps_and_large_steps_come_first():
    size, t = decoder_flow._times(jax.random.key(0), 400, 100)
    assert set(np.asarray(1 / size[100:])) == {FINEST}
    assert set(np.asarray(1 / size[:100])) == {2**k for k in range(FINEST.bit_length() - 1)}
    np.testing.assert_array_equal(t / size, np.round(t / size))
    assert np.all(t + size <= 1) and len(np.unique(t[100:])) == FINEST


def test_without_a_key_equal_tokens_are_equal_frames_and_with_one_they_differ(variables):
    run = quick_jit(lambda tokens, key: flow().apply(variables, tokens, key=key))
    same = jnp.broadcast_to(TOKENS[0, 0], TOKENS.shape)
    still = run(same, None)
    np.testing.assert_allclose(still, jnp.broadcast_to(still[0, 0], still.shape), atol=1e-5)
    np.testing.assert_allclose(run(same[:1, :1], None)[0, 0], still[0, 0], atol=1e-5)
    drawn = run(same, jax.random.key(0))
    np.testing.assert_array_equal(drawn, run(same, jax.random.key(0)))
    assert np.abs(drawn[0, 0] - drawn[1, 1]).max() > 1e-3
    assert np.abs(drawn - run(same, jax.random.key(1))).max() > 1e-3


def test_patches_agree_with_their_neighbours(variables):
    """The frame of a patch depends on the noise and the plain frame of the patch beside it."""
    known = FRAMES[:1, 0], TOKENS[:1, 0]
    x, one = FRAMES[:1, 1], jnp.ones(1)
    network = quick_jit(
        lambda x: flow().apply(
            variables, x, 0 * one, one, *known, method=lambda m, *a: m.network(*a)
        )
    )
    change = network(x.at[0, :4, :4].add(1.0)) - network(x)
    assert np.abs(change[0, :4, 4:]).max() > 1e-3


def test_no_gradient_of_the_flow_reaches_tokens_or_plain_decoder(variables):
    def loss(variables, tokens):
        return (
            flow().apply(variables, tokens, FRAMES, jax.random.key(0), method="sharp_error").sum()
        )

    weights, tokens = quick_jit(jax.grad(loss, (0, 1)))(variables, TOKENS)
    assert not np.any(tokens)
    assert not any(np.any(x) for x in jax.tree.leaves(weights["params"]["plain"]))
    assert all(np.any(x) for x in jax.tree.leaves(weights["params"]["network"]))
    assert all(np.any(x) for x in jax.tree.leaves(weights["params"]["spread"]))


def small(name, **changes):
    config = base_config(name)
    settings = {"model.resolution": 16, "model.sharp_steps": 2, "model.sharp_width": 8}
    return change(config, settings | {f"model.{k}": v for k, v in changes.items()}).model


def a_batch(frames):
    flags = jnp.ones(frames.shape[:2], bool)
    return shapes.Batch(frames, ~flags, flags, shapes.no_conditions(*frames.shape[:2]))


def test_a_model_has_both_frames_and_the_loss_both_terms():
    config = small("grid_gru", **{"dynamics.width": 8, "dynamics.hidden": 8})
    model = models.build(config)
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3)), jnp.uint8)
    params = quick_jit(model.init)(jax.random.key(0), a_batch(frames))
    _, terms = quick_jit(model.loss)(params, a_batch(frames), jax.random.key(1))
    assert terms["sharp"].shape == (2, 8)
    assert not np.any(terms["sharp"][:, 0]) and np.all(terms["sharp"][:, 1:] > 0)
    state = model.initial(params, 2)
    without = dict(params, decoder=params["decoder"]["plain"])
    config.sharp_steps = 0
    plain = models.build(config)
    np.testing.assert_array_equal(model.plain(params, state), plain.decode(without, state))
    np.testing.assert_array_equal(plain.plain(without, state), plain.decode(without, state))
    assert np.abs(model.decode(params, state) - model.plain(params, state)).max() > 1e-2


@pytest.mark.parametrize("name, changes", [("rssm", {}), ("grid_slots", {"patch": 1})])
def test_a_vector_or_slots_reach_the_flow_through_the_plain_frame(name, changes):
    model = models.build(small(name, **changes))
    batch = a_batch(jnp.zeros((2, 8, 16, 16, 3), jnp.uint8))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    total, terms = jax.eval_shape(model.loss, params, batch, jax.random.key(0))
    assert total.shape == () and terms["sharp"].shape == (2, 8)
    frames = jax.eval_shape(lambda p: model.decode(p, model.initial(p, 3)), params)
    assert frames.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("steps", [3, 16])
def test_step_counts_without_a_shortcut_are_refused(steps):
    with pytest.raises(UserError, match=f"sharp_steps={steps} is not 0 .* choose 1, 2 or 4"):
        models.build(small("grid_gru", sharp_steps=steps))
