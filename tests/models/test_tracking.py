"""The tracker of `grid_slots`, without weights: discs that move, hide, come back and go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from wm_jax.models.dynamics import templates, tracking
from wm_jax.models.dynamics.grid_slots import GridSlots

SIZE, CELLS = 32, (32, 32)
GREY, DARK, RED = 0.45, 0.15, np.array([0.75, 0.1, 0.1])


def draw(x, y, bar=None, radius=3.0, fine=8):
    """A red disc with soft edges at (x, y), in pixels; None: no disc. A dark bar before it."""
    frame = np.full((SIZE * fine, SIZE * fine, 3), GREY)
    if x is not None:
        across = (np.arange(SIZE * fine) + 0.5) / fine
        frame[np.hypot(across[None] - x, across[:, None] - y) < radius] = RED
    if bar:
        frame[:, bar[0] * fine : bar[1] * fine] = DARK
    return frame.reshape(SIZE, fine, SIZE, fine, 3).mean((1, 3)).reshape(1, SIZE * SIZE, 3)


@functools.cache
def follower():
    """A frame later: straight flight, and a correction."""
    ground = jnp.full((1, 1, 3), tracking.CONTRAST * GREY)

    def step(scene, frame):
        flown = scene._replace(
            place=scene.place + scene.speed, spread=tracking.widen(scene.spread, 0.0, 0.0)
        )
        return tracking.correct(flown, tracking.CONTRAST * frame, ground, CELLS)

    return quick_jit(step)


def follow(path, bar=None):
    scene = GridSlots(CELLS, slots=3).initial(1)
    scenes = []
    for x, y in path:
        scene = follower()(scene, jnp.asarray(draw(x, y, bar), jnp.float32))
        scenes.append(scene)
    return scenes


def straight(steps, x=6.0, y=14.0, vx=0.9, vy=0.2):
    return [(x + vx * t, y + vy * t) for t in range(steps)]


def the_slot(scene):
    """Index of the only slot."""
    (index,) = np.flatnonzero(scene.present[0, :, 0] > 0.5)
    return int(index)


def test_place_and_speed_are_exact_to_a_fraction_of_a_pixel():
    path = straight(10)
    scene = follow(path)[-1]
    slot = the_slot(scene)
    np.testing.assert_allclose(SIZE * scene.place[0, slot], path[-1], atol=0.06)
    np.testing.assert_allclose(SIZE * scene.speed[0, slot], (0.9, 0.2), atol=0.02)
    np.testing.assert_allclose(scene.colour[0, slot] / tracking.CONTRAST, RED, atol=0.02)


def test_the_spread_is_about_the_error():
    scenes = follow(straight(10))
    slot = the_slot(scenes[-1])
    spread = [scene.spread[0, slot] for scene in scenes[2:]]
    assert all(b[4] <= a[4] for a, b in zip(spread, spread[1:], strict=False))
    assert spread[-1][4] < 0.05**2  # 64ths of the frame a step


@pytest.mark.parametrize("bar", [(14, 20), (14, 26)], ids=["narrow", "wide"])
def test_what_passes_behind_a_bar_is_the_same_slot_where_it_should_be(bar):
    """While a part, all, and again a part of it is hidden."""
    path = straight(24)
    scenes = follow(path, bar)
    slot = the_slot(scenes[6])
    for (x, y), scene in list(zip(path, scenes, strict=True))[6:]:
        assert the_slot(scene) == slot
        hidden = bar[0] - 3 < x < bar[1] + 3
        np.testing.assert_allclose(
            SIZE * scene.place[0, slot], (x, y), atol=0.6 if hidden else 0.35
        )


def test_a_blow_is_seen_and_the_new_speed_is_read():
    path = straight(8) + [(12.3 - 0.9 * t, 15.4 + 0.2 * t) for t in range(1, 7)]
    scene = follow(path)[-1]
    slot = the_slot(scene)
    np.testing.assert_allclose(SIZE * scene.place[0, slot], path[-1], atol=0.15)
    np.testing.assert_allclose(SIZE * scene.speed[0, slot], (-0.9, 0.2), atol=0.1)


def test_a_slot_dies_where_the_background_is_seen_and_not_behind_a_bar():
    path, gone = straight(8, x=8.0), [(None, None)] * 8
    slot = the_slot(follow(path)[-1])
    assert follow(path + gone)[-1].present[0, slot, 0] < 0.1
    behind = follow(straight(8, x=9.5), bar=(16, 32))
    # From here on nothing but the bar is where it must be.
    hidden = follow([*straight(8, x=9.5), *gone], bar=(16, 32))[-1]
    assert hidden.present[0, the_slot(behind[-1]), 0] > 0.5


def test_background_is_the_colour_of_most_even_if_a_bar_is_nearly_as_large():
    colours = np.repeat([[GREY] * 3, [DARK] * 3, [(GREY + DARK) / 2] * 3], [33, 25, 6], axis=0)
    found = tracking.background(jnp.asarray(colours, jnp.float32))
    np.testing.assert_allclose(found, [[GREY] * 3], atol=1e-3)


def disc(x=0.0, y=0.0, radius=3.0, side=12):
    """A soft disc, (1, 1, side²), its place in pixels from the map's centre."""
    at = templates.spots(side**2, CELLS) * SIZE
    return jnp.clip(radius + 0.5 - jnp.hypot(at[:, 0] - x, at[:, 1] - y), 0, 1)[None, None]


def known(coverage):
    return jnp.concatenate([coverage, jnp.ones_like(coverage)], -1)


@pytest.mark.parametrize("open_side", ["all", "right"])
def test_alignment_measures_a_shift_even_through_a_slit(open_side):
    """By least squares the hidden half pulls nowhere; a centre of mass would be off by half."""
    weight = jnp.ones((1, 1, 144))
    if open_side == "right":
        weight = weight * (templates.spots(144, CELLS)[:, 0] > 0)
    off = jnp.zeros(2)
    for _ in range(2):
        seen = disc(0.5 - SIZE * off[0], -0.3 - SIZE * off[1])
        step, sharp = templates.align(disc(), weight, seen, CELLS)
        off = off + step[0, 0]
    np.testing.assert_allclose(SIZE * off, (0.5, -0.3), atol=0.12)
    full = templates.align(disc(), jnp.ones((1, 1, 144)), disc(), CELLS)[1]
    ratio = np.asarray(sharp / full)[0, 0]
    assert ratio[0] == pytest.approx(1.0 if open_side == "all" else 0.5, abs=0.05)


def test_recentring_moves_the_map_and_not_the_object():
    before = known(disc(2.4, -1.2))
    anchor = jnp.full((1, 1, 2), 0.5)

    def middle(anchor, template):
        coverage, _ = templates.coverage_and_known(template)
        return anchor + templates.centre(coverage, templates.spots(144, CELLS))

    moved, after = templates.recentre(anchor, before, CELLS)
    np.testing.assert_allclose(SIZE * (moved - anchor)[0, 0], (1, -1), atol=1e-5)
    np.testing.assert_allclose(middle(moved, after), middle(anchor, before), atol=1e-3)


def test_hiding_says_where_the_whole_would_be():
    """The part's middle and the target add up to the whole's, which is at 0."""
    template = jnp.tile(known(disc()), (20, 4, 1))
    part, target = templates.hide(template, jax.random.key(0), CELLS)
    coverage, shown = templates.coverage_and_known(part)
    assert (shown.mean(-1) < 0.95).all()
    left = np.asarray(coverage.sum(-1) > 3)
    lost = np.asarray(templates.whole(coverage, shown))[..., 0] < 0.9
    assert left.sum() > 40 and (left & lost).sum() > 20
    # A part that is cut off on one side has its whole on that side, and never far away.
    size = SIZE * np.linalg.norm(target, axis=-1)
    assert size[left & lost].max() < 3.2 and size[left & lost].mean() > 0.5


def test_whole_is_what_is_known_of_the_outline():
    full = known(disc())
    assert templates.whole(*templates.coverage_and_known(full))[0, 0, 0] > 0.9
    right = templates.spots(144, CELLS)[:, 0] > 0
    half = full * jnp.concatenate([right, right])
    assert templates.whole(*templates.coverage_and_known(half))[0, 0, 0] < 0.85
