"""Slots that turn: their spin is read off the frames, and a picture of them turns with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.models.quick import quick_jit
from wm_jax.models.decoder_slots import SlotDecoder
from wm_jax.models.dynamics import kalman, tracking
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.pixels import CONTRAST

SIZE, FINE, SPIN = 64, 8, 0.15
GREY, RED = 0.45, np.array([0.75, 0.1, 0.1])


def draw(corners, x, y, angle, bar=None):
    """A red polygon (None: a disc of 5 px) around (x, y), in pixels."""
    image = Image.new("L", (SIZE * FINE,) * 2)
    pen = ImageDraw.Draw(image)
    if corners is None:
        pen.ellipse([FINE * v for v in (x - 5, y - 5, x + 5, y + 5)], fill=255)
    else:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        pen.polygon([tuple(FINE * p) for p in np.asarray(corners) @ turn + (x, y)], fill=255)
    covered = np.asarray(image, np.float32).reshape(SIZE, FINE, SIZE, FINE).mean((1, 3)) / 255
    frame = GREY + covered[..., None] * (RED - GREY)
    if bar:
        frame[:, bar[0] : bar[1]] = 0.15
    return frame.reshape(1, SIZE * SIZE, 3)


SQUARE = 4.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
TRIANGLE = 3.5 * np.array([[0, -2], [3**0.5, 1], [-(3**0.5), 1]])


@functools.cache
def follower():
    ground = jnp.full((1, 1, 3), CONTRAST * GREY)

    def step(scene, frame):
        flown = scene._replace(
            place=scene.place + scene.speed,
            spread=kalman.widen(scene.spread, 0.0, 0.0),
            turn=scene.turn + scene.rate,
            sway=kalman.sway_on(scene.sway, 0.0),
        )
        return tracking.correct(flown, CONTRAST * frame, ground, (SIZE,) * 2, 0.0, SPIN)[0]

    return quick_jit(step)


def follow(corners, rate, steps=12, bar=None):
    scene = GridSlots((SIZE,) * 2, slots=3, sight=24, spin=SPIN).initial(1)
    for t in range(steps):
        frame = draw(corners, 20 + 0.9 * t, 30 + 0.3 * t, 0.4 + rate * t, bar)
        scene = follower()(scene, jnp.asarray(frame, jnp.float32))
    there = int(jnp.argmax(scene.present[0, :, 0]))
    return jax.tree.map(lambda x: x[0, there], scene._replace(stage=scene.place, told=scene.place))


@pytest.mark.parametrize("corners", [SQUARE, TRIANGLE], ids=["square", "triangle"])
@pytest.mark.parametrize("rate", [0.08, -0.2, 0.0])
def test_a_spin_is_read_off_the_frames(corners, rate):
    slot = follow(corners, rate)
    np.testing.assert_allclose(slot.rate, rate, atol=4e-3)
    np.testing.assert_allclose(slot.turn, 11 * rate, atol=0.06)
    np.testing.assert_allclose(64 * slot.place, [20 + 0.9 * 11, 30 + 0.3 * 11], atol=0.1)
    assert slot.sway[2] ** 0.5 < 0.01


def test_of_a_disc_no_spin_is_known():
    slot = follow(None, 0.1)
    assert abs(float(slot.rate[0])) < 0.05 and slot.sway[0] ** 0.5 > 0.2


def test_a_slot_that_is_hidden_turns_on():
    """Behind the bar from frame 6 on for good: nothing is measured, it turns as it did."""
    slot = follow(SQUARE, 0.1, 22, bar=(31, 64))
    np.testing.assert_allclose(slot.turn, 2.1, atol=0.15)


def test_a_template_does_not_turn():
    """It is kept as the slot sees itself: a spinning square's stays as sharp as a still one's."""
    templates = [follow(SQUARE, rate).template for rate in (0.0, 0.15)]
    sharp = [float(jnp.abs(jnp.diff(t[:576].reshape(24, 24))).sum()) for t in templates]
    assert sharp[1] > 0.9 * sharp[0]


def test_a_picture_of_a_slot_turns_with_it():
    decoder = SlotDecoder((8, 8), 8, 64, 16, 32, turns=True)
    plain = SlotDecoder((8, 8), 8, 64, 16, 32)
    look = jax.random.normal(jax.random.key(1), (24,))

    def tokens(turn):
        slot = [0.5, 0.5, 1.0, 0.9, 0.1, 0.1, 0.0, 0.0, *look, jnp.cos(turn), jnp.sin(turn), 0.0]
        stage = jnp.zeros((1, 64, len(slot)))
        return jnp.concatenate([stage, jnp.array(slot)[None, None]], 1)

    params = decoder.init(jax.random.key(0), tokens(0.0))
    upright = decoder.apply(params, tokens(0.0))
    np.testing.assert_allclose(upright, plain.apply(params, tokens(0.0)[..., :32]), atol=1e-5)
    quarter = decoder.apply(params, tokens(np.pi / 2))
    assert np.abs(quarter - upright).max() > 0.05
    np.testing.assert_allclose(quarter, jnp.rot90(upright, -1, (1, 2)), atol=1e-4)
