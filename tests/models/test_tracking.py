"""The tracker of `grid_slots`, without weights: discs that move, hide, come back and go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from wm_jax.models.dynamics import kalman, templates, tracking
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.pixels import CONTRAST, background, openness, owners

SIZE, CELLS = 32, (32, 32)
GREY, DARK, RED = 0.45, 0.15, np.array([0.75, 0.1, 0.1])


def draw(x, y, bar=None, radius=3.0, fine=8, by=1, paint=RED):
    """A red disc with soft edges at (x, y), in pixels; None: no disc. A dark bar before it.
    With ``by`` pixels in the place of one."""
    frame = np.full((SIZE * fine, SIZE * fine, 3), GREY)
    if x is not None:
        across = (np.arange(SIZE * fine) + 0.5) / fine
        frame[np.hypot(across[None] - x, across[:, None] - y) < radius] = paint
    if bar:
        frame[:, round(bar[0] * fine) : round(bar[1] * fine)] = DARK
    size, fine = SIZE * by, fine // by
    return frame.reshape(size, fine, size, fine, 3).mean((1, 3)).reshape(1, size * size, 3)


@functools.cache
def follower(pull=0.0, by=1):
    """A frame later: free flight, and a correction."""
    ground = jnp.full((1, 1, 3), CONTRAST * GREY)

    def step(scene, frame):
        flown = scene._replace(
            place=scene.place + scene.speed + scene.pull / 2,
            speed=scene.speed + scene.pull,
            spread=kalman.widen(scene.spread, 0.0, 0.0),
        )
        return tracking.correct(flown, CONTRAST * frame, ground, (SIZE * by,) * 2, pull)[0]

    return quick_jit(step)


def follow(path, bar=None, by=1):
    scene = GridSlots((SIZE * by,) * 2, slots=3, sight=12 * by).initial(1)
    scenes = []
    for x, y in path:
        scene = follower(by=by)(scene, jnp.asarray(draw(x, y, bar, by=by), jnp.float32))
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
    np.testing.assert_allclose(scene.colour[0, slot] / CONTRAST, RED, atol=0.02)


def test_the_frame_without_its_slots_is_the_backdrop_and_what_stands_before_it():
    path, bar = straight(12), (20, 26)
    scene = follow(path[:-1], bar)[-1]
    frame, empty = draw(*path[-1], bar), draw(None, None, bar)
    flown = scene._replace(place=scene.place + scene.speed)
    ground = jnp.full((1, 1, 3), CONTRAST * GREY)
    bare = tracking.correct(flown, CONTRAST * frame, ground, CELLS)[1] / CONTRAST
    assert np.abs(frame - empty).max() > 0.3
    assert np.abs(bare - empty).max() < 0.06
    # A grey slot where the bar is might be the bar.
    grey = jnp.full_like(scene.colour, CONTRAST * DARK)
    behind = scene._replace(colour=grey, place=jnp.full_like(scene.place, 23 / SIZE))
    bare = tracking.correct(behind, CONTRAST * empty, ground, CELLS)[1] / CONTRAST
    np.testing.assert_allclose(bare, empty, atol=1e-5)


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


def test_in_finer_pixels_what_is_half_hidden_is_placed_and_timed_better():
    path, bar, error = straight(24), (14.3, 20.6), {}
    half = [t for t, (x, _) in enumerate(path) if t > 3 and min(abs(x - b) for b in bar) < 3]
    for by in (1, 2):
        scenes = follow(path, bar, by)
        slot = the_slot(scenes[-1])
        off = [SIZE * scenes[t].place[0, slot] - np.array(path[t]) for t in half]
        slip = [SIZE * scenes[t].speed[0, slot] - np.array((0.9, 0.2)) for t in half]
        error[by] = [np.linalg.norm(x, axis=-1).mean() for x in (off, slip)]
    assert len(half) > 8
    assert error[2][0] < 0.7 * error[1][0] and error[2][1] < 0.7 * error[1][1], error


@pytest.mark.parametrize("start, bar", [(24.0, (18.0, 27.5)), (24.6, (19.0, 27.0))])
def test_the_side_that_comes_out_is_not_taken_for_the_one_that_went_in(start, bar):
    """A disc is half seen on the right of a bar, turns, and comes out on the left: its known half
    is still hidden then, and must not be laid on the half that shows."""
    turn = 27.0
    path = [(x if x < turn else 2 * turn - x, 14.0) for x in start + 0.9 * np.arange(22)]
    scenes = follow(path, bar, by=2)
    slot = the_slot(scenes[7])
    out = [t for t, (x, _) in enumerate(path) if x < bar[0] + 2.5 and t > 8]
    off = [SIZE * scenes[t].place[0, slot, 0] - path[t][0] for t in out]
    assert len(out) > 8 and np.abs(off).max() < 1.2, off


def test_a_spread_stays_a_covariance_where_it_is_cut_off():
    spread = jnp.array([[[63.0, 63.0, 9.0, 9.0, 2.0, 2.0] + [0.0] * 6]])
    for _ in range(3):
        spread = kalman.widen(spread, 1.0, 0.5)
        xx, xv, vv = spread[0, 0, 0], spread[0, 0, 2], spread[0, 0, 4]
        assert xx * vv > xv**2
    assert xx == 64 and vv == kalman.SPEED**2


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


@pytest.mark.parametrize("at", [8, 18])  # in the open, and behind the bar
def test_what_is_painted_stays_the_same_slot(at):
    blue, bar = RED[::-1], (18.0, 25.0)
    scene = before = GridSlots(CELLS, slots=3, sight=12).initial(1)
    for t, (x, y) in enumerate(straight(26)):
        paint = blue if t >= at else RED
        before = scene if t == at else before
        scene = follower()(scene, jnp.asarray(draw(x, y, bar, paint=paint), jnp.float32))
    was = int(np.asarray(before.present[0, :, 0]).argmax())
    assert (np.asarray(scene.present[0, :, 0]) > 0.5).tolist() == [k == was for k in range(3)]
    np.testing.assert_allclose(scene.colour[0, was] / CONTRAST, blue, atol=0.05)
    assert scene.age[0, was] > before.age[0, was] > 4


def test_what_slides_behind_a_bar_from_the_first_frame_on_becomes_a_slot():
    """Nothing ever appears: only its trail changes. The bar, which changes nowhere, is none."""
    scenes = follow(straight(6, x=12.5), bar=(16, 32))
    slot = the_slot(scenes[-1])
    np.testing.assert_allclose(SIZE * scenes[-1].place[0, slot], (17.0, 15.0), atol=1.5)


@pytest.mark.parametrize("bar", [(14, 20), (14.4, 20.6)], ids=["on pixels", "between pixels"])
def test_what_a_bar_hides_is_not_what_the_disc_lacks(bar):
    """The template is that of a disc wherever it is known, up to the bar, although a pixel that
    mixes both looks like the disc's own edge."""
    scene = follow([(13.5 + 0.05 * t, 14.0 + 0.3 * t) for t in range(10)], bar)[-1]
    slot = the_slot(scene)
    coverage, known = templates.coverage_and_known(scene.template)
    anchor = SIZE * (scene.place - scene.middle)[0, slot]
    whole = disc(13.95 - anchor[0], 16.7 - anchor[1])[0, 0]
    sure = np.asarray(known[0, slot]) > 0.5
    assert (sure & (np.asarray(whole) > 0.9)).sum() > 6
    np.testing.assert_allclose(coverage[0, slot][sure], whole[sure], atol=0.3)


@pytest.mark.parametrize("covered", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.7])
def test_a_pixel_at_the_edge_of_a_bar_is_taken_apart(covered, hidden):
    grey, dark = np.full(3, GREY), np.full(3, DARK)
    frame = np.broadcast_to(grey, (8, 8, 3)).copy()
    frame[:, 5:] = dark
    frame[:, 4] = hidden * dark + (1 - hidden) * (covered * RED + (1 - covered) * grey)
    frame[:, 2:4] = RED
    colours = [CONTRAST * jnp.asarray(x, jnp.float32)[None] for x in (frame.reshape(-1, 3), [grey])]
    colour = CONTRAST * jnp.asarray(RED, jnp.float32)[None, None]
    place, present = jnp.full((1, 1, 2), 0.45), jnp.ones((1, 1, 1))
    whose = owners(place, colour, present, *colours, (8, 8))
    shown = openness(whose, colour, *colours, (8, 8))
    pixel = 3 * 8 + 4
    # Of one that is mostly hidden even less seems open: it is itself part of what hides it.
    np.testing.assert_allclose(
        shown.open_[0, 0, pixel], 1 - hidden, atol=0.08 + 0.2 * (hidden > 0.5)
    )
    np.testing.assert_allclose(shown.covered[0, 0, pixel], covered, atol=0.08)
    assert not shown.pure[0, 0, pixel]
    assert shown.open_[0, 0, pixel + 2] < 0.05


def test_background_is_the_colour_of_most_even_if_a_bar_is_nearly_as_large():
    colours = np.repeat([[GREY] * 3, [DARK] * 3, [(GREY + DARK) / 2] * 3], [33, 25, 6], axis=0)
    found = background(jnp.asarray(colours, jnp.float32))
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
        off = off + templates.align(disc(), weight, seen, CELLS)[0, 0]
    np.testing.assert_allclose(SIZE * off, (0.5, -0.3), atol=0.12)
    told = templates.told_by(disc(), weight)[0, 0]
    np.testing.assert_allclose(told, 1.0 if open_side == "all" else 0.5, atol=0.05)


def test_a_template_moves_by_a_fraction_of_a_pixel_and_what_is_unknown_moves_along():
    spots, by = templates.spots(144, CELLS), jnp.array([[[0.5, -0.25]]]) / SIZE
    coverage, _ = templates.moved(disc(), jnp.ones((1, 1, 144)), by, CELLS)
    np.testing.assert_allclose(templates.centre(coverage, spots), by, atol=1e-4)
    right = jnp.broadcast_to(spots[:, 0] > 0, (1, 1, 144)) * 1.0
    coverage, sharp = templates.moved(disc(), right, by, CELLS)
    columns = np.asarray(sharp).reshape(12, 12)[6]
    np.testing.assert_allclose(columns[4:8], (0, 0, 0.5, 1), atol=1e-5)
    # Half a pixel of the unknown side is no reason to believe that the disc is thinner there.
    assert np.asarray(coverage).reshape(12, 12)[6, 6] > 0.9


def test_what_a_frame_does_not_show_stays_in_the_template():
    before = 5 * known(disc())
    right = jnp.broadcast_to(templates.spots(144, CELLS)[:, 0] > 0, (1, 1, 144)) * 1.0
    after = templates.add(before, jnp.zeros((1, 1, 144)), right)
    hidden = np.tile(np.asarray(right) == 0, (1, 1, 2))
    np.testing.assert_array_equal(after[hidden], before[hidden])
    assert templates.coverage_and_known(after)[0][~hidden[..., :144]].max() < 0.85


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
    assert (shown.mean(-1) < 0.95).mean() > 0.7
    left = np.asarray(coverage.sum(-1) > 3)
    lost = np.asarray(templates.whole(coverage, shown))[..., 0] < 0.9
    assert left.sum() > 40 and (left & lost).sum() > 20
    # A part that is cut off on one side has its whole on that side, and never far away.
    size = SIZE * np.linalg.norm(target, axis=-1)
    assert size[left & lost].max() < 3.2 and size[left & lost].mean() > 0.5


def test_looks_are_read_off_means_of_a_finer_template():
    coarse = templates.coarse(jnp.arange(576.0))
    assert coarse.shape == (144,)
    np.testing.assert_allclose(coarse[:2], ((0 + 1 + 24 + 25) / 4, (2 + 3 + 26 + 27) / 4))
    assert templates.coarse(jnp.arange(144.0))[7] == 7
    assert [templates.coarse_side(side) for side in (3, 12, 23, 24, 25)] == [3, 12, 23, 12, 0]


def test_whole_is_what_is_known_of_the_outline():
    full = known(disc())
    assert templates.whole(*templates.coverage_and_known(full))[0, 0, 0] > 0.9
    right = templates.spots(144, CELLS)[:, 0] > 0
    half = full * jnp.concatenate([right, right])
    assert templates.whole(*templates.coverage_and_known(half))[0, 0, 0] < 0.85


def test_a_steady_pull_is_read_from_a_fall_and_lent_to_what_cannot_be_seen():
    """A disc that falls; a second slot was never seen, and is told what the first one learned."""
    fall = 0.03
    path = [(8.0 + 0.4 * t, 6.0 + 0.5 * fall * t * t) for t in range(20)]
    step, scene = follower(pull=0.04), GridSlots(CELLS, slots=3).initial(1)
    for x, y in path:
        scene = step(scene, jnp.asarray(draw(x, y), jnp.float32))
    slot = the_slot(scene)
    np.testing.assert_allclose(SIZE * scene.pull[0, slot], (0, fall), atol=0.006)
    np.testing.assert_allclose(SIZE * scene.speed[0, slot], (0.4, 19 * fall), atol=0.04)
    blind = scene._replace(visible=jnp.zeros_like(scene.visible))
    lent = SIZE * tracking.shared_pull(blind, 0.04)
    np.testing.assert_allclose(lent[0, 0], (0, fall), atol=0.008)


def test_the_past_pans_with_the_view():
    frame = jnp.asarray(draw(20.0, 14.0), jnp.float32)
    past = jnp.concatenate([frame, jnp.ones((1, SIZE * SIZE, 1))], -1)
    moved = tracking.panned(past, jnp.array([[3 / SIZE, -2 / SIZE]]), CELLS)
    picture, known = (x.reshape(SIZE, SIZE, -1) for x in (moved[0, :, :3], moved[0, :, 3]))
    expected = draw(23.0, 12.0).reshape(SIZE, SIZE, 3)
    np.testing.assert_allclose(picture[:-2, 3:], expected[:-2, 3:], atol=1e-4)
    assert known[:-2, 3:].all() and not known[:, :3].any() and not known[-2:].any()


@pytest.mark.parametrize("bar", [(19, 25), (17, 23)], ids=["all of it", "half of it"])
def test_what_rests_beside_a_bar_becomes_a_slot(bar):
    """A thing with a hue that has never moved, and that a bar touches or half hides."""
    scenes = follow([(16.5, 14.0)] * 4, bar)
    slot = the_slot(scenes[-1])
    seen = (13.5 + min(bar[0], 19.5)) / 2
    np.testing.assert_allclose(SIZE * scenes[-1].place[0, slot], (seen, 14.0), atol=0.7)
    np.testing.assert_allclose(scenes[-1].colour[0, slot] / CONTRAST, RED, atol=0.05)


def test_two_that_rest_and_touch_and_one_of_them_in_a_corner_become_slots():
    frame = np.full((SIZE, SIZE, 3), GREY)
    frame[-6:, -5:], frame[-6:, -11:-5] = RED, (0.1, 0.3, 0.8)
    frame = jnp.asarray(frame.reshape(1, -1, 3), jnp.float32)
    scene = GridSlots(CELLS, slots=4, sight=12).initial(1)
    for _ in range(6):
        scene = follower()(scene, frame)
    present = np.asarray(scene.present[0, :, 0]) > 0.5
    assert present.sum() == 2
    places = SIZE * np.asarray(scene.place[0])[present]
    np.testing.assert_allclose(sorted(places[:, 0]), (24, 29.5), atol=0.7)
    np.testing.assert_allclose(places[:, 1], (29, 29), atol=0.7)


def test_what_rests_in_the_open_becomes_a_slot_and_a_bar_does_not():
    """Only what fits into a template is a thing; it need not move."""
    scenes = follow([(10.0, 14.0)] * 2, bar=(18, 26))
    slot = the_slot(scenes[-1])
    np.testing.assert_allclose(SIZE * scenes[-1].place[0, slot], (10.0, 14.0), atol=0.1)
    assert np.asarray(follow([(None, None)] * 3, bar=(18, 26))[-1].present).max() == 0


def test_what_has_no_hue_and_goes_on_outside_the_frame_is_not_a_thing():
    """The corner of what is beyond a wall is as small as a hand, but who knows how it goes on."""

    def begun(place):
        frame = np.full((SIZE, SIZE, 3), GREY)
        frame[place] = 0.8
        frame = jnp.asarray(frame.reshape(1, -1, 3), jnp.float32)
        scene = GridSlots(CELLS, slots=3, sight=12).initial(1)
        for _ in range(3):
            scene = follower()(scene, frame)
        return np.asarray(scene.present[0, :, 0]) > 0.5

    assert not begun((slice(0, 6), slice(0, 5))).any()
    assert begun((slice(10, 16), slice(12, 17))).sum() == 1
