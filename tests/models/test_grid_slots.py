"""Slots find what moves, keep it while it is hidden, and let no prediction fade it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.models.decoder_slots import SlotDecoder
from wm_jax.models.dynamics.grid_slots import GridSlots

SIZE, TIME = 32, 8
SMALL = {
    "model.resolution": SIZE,
    "model.patch": 1,
    "model.decoder_hidden": 8,
    "model.dynamics.hidden": 8,
    "model.dynamics.width": 8,
    "model.dynamics.slots": 3,
    "model.dynamics.foresight": 3,
}
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)


def draw(spots, bar=None):
    """A grey frame with 6 px squares centred at (x, y, colour), behind a dark bar of columns."""
    frame = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    for x, y, colour in spots:
        frame[y - 3 : y + 3, x - 3 : x + 3] = colour
    if bar:
        frame[:, slice(*bar)] = 0.2
    return (frame * 255).astype(np.uint8)


def clip(bar=None):
    """Red goes right by a pixel a frame, blue stays where it is from frame 0 on."""
    return np.stack([draw([(8 + t, 8, RED), (20, 24, BLUE)], bar) for t in range(TIME)])[None]


@pytest.fixture(scope="module")
def model():
    return models.build(change(base_config(), SMALL).model)


@pytest.fixture(scope="module")
def params(model):
    frames = jnp.asarray(clip())
    first = jnp.zeros((1, TIME), bool).at[:, 0].set(True)
    batch = shapes.Batch(frames, first, jnp.ones((1, TIME), bool), shapes.no_conditions(1, TIME))
    return quick_jit(model.init)(jax.random.key(0), batch)


@pytest.fixture(scope="module")
def encode(model):
    return quick_jit(lambda params, frames: shapes.encode(model, params, frames))


def test_without_training_what_moves_or_rests_in_the_open_becomes_a_slot(params, encode):
    """Red moves and blue rests; each is one slot with its place, colour and speed."""
    scene = encode(params, jnp.asarray(clip())).carry
    there = np.flatnonzero(scene.present[0, :, 0] > 0.5)
    assert len(there) == 2
    red, blue = sorted(there, key=lambda slot: -scene.colour[0, slot, 0])
    ends = {red: ((8 + TIME - 1) / SIZE, 8 / SIZE), blue: (20 / SIZE, 24 / SIZE)}
    for slot, colour in ((red, RED), (blue, BLUE)):
        np.testing.assert_allclose(scene.place[0, slot], ends[slot], atol=0.05)
        np.testing.assert_allclose(scene.colour[0, slot] / 10, colour, atol=0.1)
    assert scene.speed[0, red, 0] > 0.3 / SIZE
    np.testing.assert_allclose(scene.speed[0, blue], 0.0, atol=0.05 / SIZE)


@pytest.mark.parametrize("bar", [None, (13, 20), (18, 32)])
def test_a_bar_that_rests_and_an_empty_scene_have_no_slots(params, encode, bar):
    still = np.repeat(draw([], bar)[None, None], TIME, 1)
    assert (encode(params, jnp.asarray(still)).carry.present < 0.5).all()


def test_the_address_of_a_slot_is_its_place(params, encode):
    state = encode(params, jnp.asarray(clip()))
    assert state.address.shape == state.tokens.shape[:2] + (2,)
    np.testing.assert_array_equal(state.address[:, -3:], state.carry.place)


def test_imagination_keeps_presence_colour_and_looks(model, params, encode):
    """Whatever the weights: nothing that is imagined fades."""
    state = encode(params, jnp.asarray(clip()))
    told = jax.tree.map(lambda x: x[:, 0], shapes.no_conditions(1, 1))
    later = quick_jit(lambda s: model.step(params, s, told))(state)
    for name in ("present", "colour", "look"):
        np.testing.assert_array_equal(getattr(state.carry, name), getattr(later.carry, name))


def test_an_imagined_stage_stays_to_the_last_bit_and_knows_when_it_was_seen():
    module = GridSlots((SIZE, SIZE), slots=2, width=8, hidden=8, told_size=3)
    told = jnp.ones((2, 3))
    carry = module.initial(2)
    variables = random_variables(module, carry, None, None, told, None, method="step")
    stage = jax.random.normal(jax.random.key(1), carry.stage.shape)
    start = carry._replace(stage=stage, told=told, shown=told)
    step = quick_jit(lambda carry, told: module.apply(variables, carry, None, None, told, None,
                                                      method="step"))  # fmt: skip
    later = start
    for i in range(3):
        later, out = step(later, told * (i + 2))
    np.testing.assert_array_equal(later.stage, start.stage)
    np.testing.assert_array_equal(later.shown, told)
    # Cells say how the view and the light changed since; of the light, then and now.
    before = step(start, told)[1].tokens[:, 0, 8:17]
    after = out.tokens[:, 0, 8:17]
    np.testing.assert_array_equal(before[:, :3], 0.0)
    assert jnp.abs(after[:, :3]).min() > 0
    np.testing.assert_array_equal(before[:, 3:6], before[:, 6:])
    np.testing.assert_array_equal(after[:, 3:6], before[:, 3:6])
    assert jnp.abs(after[:, 6:] - after[:, 3:6]).min() > 0


def test_a_backdrop_is_moved_and_lit_anew_since_it_was_seen():
    """Red where it was painted, then a quarter of the frame further right, and half as bright."""
    decoder = SlotDecoder((2, 2), patch=8, resolution=16, width=8, hidden=6, hears=True)
    cells = jax.random.normal(jax.random.key(2), (1, 4, 8))
    slots = jnp.zeros((1, 1, 40))
    light = jnp.array([1.0, 0.0, 0.0])

    def tokens(view, now):
        outlook = jnp.concatenate([jnp.asarray(view), light, jnp.asarray(now)])
        outlook = jnp.broadcast_to(outlook, (1, 4, 9))
        cell = jnp.concatenate([cells, outlook, jnp.zeros((1, 4, 23))], -1)
        return jnp.concatenate([cell, slots], 1)

    same = tokens([0.0, 0.0, 0.0], light)
    params = decoder.init(jax.random.key(3), same)
    plain = decoder.clone(hears=False).apply(params, same)
    np.testing.assert_allclose(decoder.apply(params, same), plain, atol=1e-6)
    moved = decoder.apply(params, tokens([0.25, 0.0, 0.0], [0.5, 0.0, 0.0]))
    np.testing.assert_allclose(moved[:, :, 4:], 0.5 * plain[:, :, :-4], atol=1e-6)


def test_a_hidden_object_moves_on_behind_the_bar(params, encode):
    """Its slot is neither lost nor stopped by frames that don't show it."""
    frames = clip(bar=(18, 32))
    seen = encode(params, jnp.asarray(frames[:, :6])).carry
    hidden = np.stack([draw([(20, 24, BLUE)], (13, 32))] * 2)[None]
    later = encode(params, jnp.asarray(np.concatenate([frames[:, :6], hidden], 1))).carry
    slot = int(jnp.argmax(seen.present[0, :, 0]))
    assert later.present[0, slot, 0] > 0.5
    assert later.place[0, slot, 0] > seen.place[0, slot, 0]


def test_a_prediction_teaches_places_and_not_looks(model, params):
    """Pixels of a prediction have no gradient in stencils and colours; those of the seen have."""
    net = model.net
    carry = net.dynamics.initial(1)
    carry = carry._replace(present=carry.present + 1, look=carry.look + 0.3)

    def paint(params, predicted):
        tokens = net.dynamics.tokens(carry)
        return jnp.square(net.apply({"params": params}, tokens, predicted, method="plain")).sum()

    for predicted in (True, False):
        grads = jax.grad(paint)(params, predicted)["decoder"]
        stencil = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(grads["MLP_1"]))
        assert (stencil == 0) == predicted


def test_training_coarsely_is_training_a_coarse_model():
    """The same parameters, and the same loss as those of the model of half the resolution."""
    sizes = {"pool": 4, "sight": 24, "train_pool": 2}, {"pool": 2, "sight": 12}
    # With a grain, or else which of two equal pixels begins a slot hangs on rounding.
    frames = jnp.asarray(
        clip() + np.random.default_rng(0).integers(0, 6, (SIZE, SIZE, 3), np.uint8)
    )
    first = jnp.zeros((1, TIME), bool).at[:, 0].set(True)
    batch = shapes.Batch(frames, first, first | True, shapes.no_conditions(1, TIME))
    losses, params = [], None
    for patch, fields in enumerate(sizes, 1):
        fields = {f"model.dynamics.{key}": value for key, value in fields.items()}
        model = models.build(change(base_config(), SMALL | {"model.patch": patch} | fields).model)
        made = quick_jit(model.init)(jax.random.key(0), batch)
        params = made if params is None else params
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
        losses.append(quick_jit(model.loss)(params, batch, jax.random.key(1)))
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    assert losses[0][1]["place"].sum() > 0


def test_losses_are_per_frame_and_foresight_stops_at_a_reset(model, params):
    frames = jnp.asarray(np.concatenate([clip(), clip()], 0))
    first = jnp.zeros((2, TIME), bool).at[:, 0].set(True)
    mask = jnp.ones((2, TIME), bool)
    batch = shapes.Batch(frames, first, mask, shapes.no_conditions(2, TIME))
    cut = batch._replace(is_first=first.at[0, 4].set(True))
    loss = quick_jit(lambda batch: model.loss(params, batch, jax.random.key(1))[1])
    whole, parts = loss(batch), loss(cut)
    assert all(term.shape == (2, TIME) for term in whole.values())
    assert {"place", "whole", "posterior", "prior"} == whole.keys()
    assert parts["place"][0, 3] == 0  # the next frame is another stream
    np.testing.assert_allclose(whole["place"][1], parts["place"][1], rtol=1e-5)


@pytest.mark.parametrize("decoded", [2, 5])
def test_a_part_of_the_frames_stands_for_all(model, params, decoded):
    """In expectation the terms are those of all frames."""
    frames = jnp.asarray(clip())
    first = jnp.zeros((1, TIME), bool).at[:, 0].set(True)
    batch = shapes.Batch(frames, first, jnp.ones((1, TIME), bool), shapes.no_conditions(1, TIME))

    def terms(decoded, seed):
        weights = dataclasses.replace(model.weights, decoded=decoded, context_low=4, context_high=4)
        counted = dataclasses.replace(model, weights=weights)
        return counted.loss(params, batch, jax.random.key(seed))[1]

    some = quick_jit(jax.vmap(lambda seed: terms(decoded, seed)["prior"]))(jnp.arange(40))
    whole = quick_jit(lambda: terms(0, 0)["prior"])()
    assert ((some > 0).sum((1, 2)) == decoded).all()
    np.testing.assert_allclose(some.sum((1, 2)).mean(), whole.sum(), rtol=0.35)


def test_one_stream_in_two_stands_for_all_of_the_same(model, params):
    """Pixel terms of the painted streams are scaled to all; places are learned from every one."""
    frames = jnp.asarray(np.repeat(clip(), 4, 0))
    first = jnp.zeros((4, TIME), bool).at[:, 0].set(True)
    batch = shapes.Batch(frames, first, jnp.ones((4, TIME), bool), shapes.no_conditions(4, TIME))

    def terms(painted):
        weights = dataclasses.replace(
            model.weights, painted=painted, decoded=0, context_low=4, context_high=4
        )
        counted = dataclasses.replace(model, weights=weights)
        return quick_jit(lambda: counted.loss(params, batch, jax.random.key(0))[1])()

    some, whole = terms(2), terms(1)
    for name in ("posterior", "prior"):
        assert (some[name][1::2] == 0).all() and (some[name][::2, 1:] > 0).all()
        np.testing.assert_allclose(some[name].sum(), whole[name].sum(), rtol=1e-4)
    np.testing.assert_allclose(some["place"], whole["place"], rtol=1e-4)


def test_a_trained_filter_gives_no_gradient_to_what_it_saw(model, params):
    """Places are targets: the loss of places moves dynamics, never where things are seen."""
    frames = jnp.asarray(clip())
    first = jnp.zeros((1, TIME), bool).at[:, 0].set(True)
    batch = shapes.Batch(frames, first, jnp.ones((1, TIME), bool), shapes.no_conditions(1, TIME))

    def error(params, name):
        return model.loss(params, batch, jax.random.key(1))[1][name].sum()

    grads = quick_jit(jax.grad(lambda p: error(p, "place")))(params)
    sizes = {k: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(v)) for k, v in grads.items()}
    assert sizes["decoder"] == 0
    inner = grads["dynamics"]
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(inner["rest"]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(inner))


def test_a_loss_cannot_reach_the_filter_through_what_is_told():
    """Conditions have an encoder with weights; where slots were seen is a target all the same."""
    module = GridSlots((8, 8), slots=2, pool=2, sight=4, width=4, hidden=4, told_size=3)
    random = np.random.default_rng(0)
    frames = jnp.asarray(random.random((1, 4, 64, 3)), jnp.float32)
    told = jnp.asarray(random.normal(size=(1, 4, 3)), jnp.float32)
    window = (module.initial(1), frames, None, told, jnp.zeros((1, 4), bool), None)
    variables = random_variables(module, *window, method="teach")

    def places(told, method):
        start, seen, observed, _, is_first, keys = window
        arguments = (start, seen, observed, told, is_first, keys)
        out = module.apply(variables, *arguments, method=method)
        out = out[1] if method == "scan" else out
        return out.tokens[:, :, -2:, :2].sum()

    by = {m: quick_jit(jax.grad(lambda t, m=m: places(t, m)))(told) for m in ("scan", "teach")}
    assert np.any(by["scan"]) and not np.any(by["teach"])
