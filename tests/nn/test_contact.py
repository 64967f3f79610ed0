"""Contacts against the textbook: elastic collisions of discs and boxes, and rebounds from walls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.contact import Bodies, collide, convex, directions, rebound

K = 72
WALLS = jnp.array([1.0, 1.0, 0.0, 0.0])


def disc(radius):
    return np.full(K, radius, np.float32)


def box(half):
    return half * np.abs(directions(K)).sum(-1)


def bodies(*outlines, sharp=400.0, mass=None, present=None):
    count = len(outlines)
    log_mass = jnp.log(jnp.asarray(mass if mass is not None else np.ones(count), jnp.float32))
    there = jnp.ones(count) if present is None else jnp.asarray(present, jnp.float32)
    column = lambda x: x[None, :, None]  # noqa: E731
    support = jnp.asarray(np.stack(outlines))[None]
    return Bodies(support, jnp.full((1, count, 1), sharp), column(log_mass), column(there))


def one(x):
    return jnp.asarray(x, jnp.float32)[None]


def test_discs_that_meet_exchange_the_normal_part_of_their_speeds():
    """Hit after half a step, at 30 degrees to the line of flight."""
    angle = np.pi / 6
    normal = np.array([np.cos(angle), np.sin(angle)])
    touch = np.array([[0.4, 0.5], [0.4, 0.5] + 0.15 * normal])
    speed = np.array([[0.03, 0.0], [0.0, 0.0]])
    change = collide(one(touch - 0.5 * speed), one(speed), bodies(disc(0.07), disc(0.08)))
    blow = -(speed[0] @ normal) * normal
    np.testing.assert_allclose(change.speed[0], [blow, -blow], atol=6e-4)
    np.testing.assert_allclose(change.place[0], [0.5 * blow, -0.5 * blow], atol=6e-4)


@pytest.mark.parametrize("mass", [(1.0, 1.0), (1.0, 3.0), (8.0, 0.5)])
def test_momentum_and_energy_are_kept(mass):
    speed = np.array([[0.03, 0.004], [-0.02, 0.0]])
    place = [[0.4, 0.5], [0.56, 0.52]]
    change = collide(one(place), one(speed), bodies(disc(0.07), disc(0.07), mass=mass))
    after = speed + np.asarray(change.speed[0])
    weight = np.array(mass)[:, None]
    assert np.abs(change.speed).max() > 0.01
    np.testing.assert_allclose((weight * after).sum(0), (weight * speed).sum(0), atol=1e-6)
    energy = lambda v: (weight * v**2).sum()  # noqa: E731
    np.testing.assert_allclose(energy(after), energy(speed), rtol=1e-3)


def test_a_box_is_hit_square_wherever_its_face_is_met():
    """A disc that flies down onto a face, off its middle, bounces straight back."""
    for x in (0.45, 0.5, 0.54):
        change = collide(
            one([[x, 0.35], [0.5, 0.5]]),
            one([[0.0, 0.03], [0.0, 0.0]]),
            bodies(disc(0.05), box(0.08), mass=(1.0, 1e6)),
        )
        np.testing.assert_allclose(change.speed[0, 0], [0.0, -0.06], atol=2e-3)


def test_what_does_not_meet_flies_on():
    speeds = one([[0.03, 0.0], [0.03, 0.0]])
    pair = bodies(disc(0.07), disc(0.07))
    assert not np.any(collide(one([[0.3, 0.5], [0.46, 0.5]]), speeds, pair).speed)  # side by side
    parting = one([[-0.03, 0.0], [0.03, 0.0]])
    touching = one([[0.43, 0.5], [0.565, 0.5]])
    assert not np.any(collide(touching, parting, pair).speed)  # overlap, but on their way out
    absent = bodies(disc(0.07), disc(0.07), present=(1.0, 0.0))
    assert not np.any(collide(touching, -parting, absent).speed)
    assert np.abs(collide(touching, -parting, pair).speed).max() > 0.05  # overlap, and going in


def test_one_body_has_nothing_to_meet():
    assert not np.any(collide(one([[0.5, 0.5]]), one([[0.1, 0.0]]), bodies(disc(0.1))).speed)


def test_walls_turn_bodies_round_in_time():
    """Into the corner: x after a quarter of the step, y not at all."""
    place, speed = one([[0.92, 0.5]]), one([[0.04, 0.01]])
    change = rebound(place, speed, bodies(disc(0.07)), WALLS)
    np.testing.assert_allclose(change.speed[0, 0], [-0.08, 0.0], atol=1e-6)
    np.testing.assert_allclose(change.place[0, 0], [-0.06, 0.0], atol=1e-5)
    through = rebound(one([[0.99, 0.01]]), one([[0.04, -0.01]]), bodies(disc(0.07)), WALLS)
    np.testing.assert_allclose(through.speed[0, 0], [-0.08, 0.02], atol=1e-6)


def test_a_softer_and_later_bounce():
    place, speed = one([[0.92, 0.5]]), one([[0.04, 0.0]])
    change = rebound(place, speed, bodies(disc(0.07)), WALLS, bounce=1.5, late=0.25)
    np.testing.assert_allclose(change.speed[0, 0, 0], -0.06, atol=1e-6)
    np.testing.assert_allclose(change.place[0, 0, 0], -0.06 * 0.5, atol=1e-5)


def test_outlines_learn_from_places_whether_or_not_they_touch():
    """Gradients are finite, and one that misses by little has one too."""
    speed = one([[0.03, 0.0], [-0.02, 0.001]])

    def error(radius, apart):
        both = bodies(disc(1.0), disc(1.0))
        both = both._replace(support=both.support * radius)
        change = collide(one([[0.4, 0.5], [0.4 + apart, 0.5]]), speed, both)
        return change.speed[0, 1, 0]

    for apart, still in ((0.16, False), (0.1915, False), (0.9, True)):
        slope = jax.grad(error)(0.07, apart)
        assert np.isfinite(slope) and (abs(slope) < 1e-9) == still


def test_a_convex_outline_stays_as_it_is():
    triangle = (directions(3) * 0.1 @ directions(K).T).max(0)
    for outline in (disc(0.1), box(0.1), triangle):
        np.testing.assert_allclose(convex(jnp.asarray(outline)), outline, atol=1e-6)


@pytest.mark.parametrize("spikes", [[7], [7, 8], [0, 71, 1]])
def test_directions_that_claim_too_much_reach_where_their_neighbours_meet(spikes):
    """Also several beside each other; and they hear what their reach should be."""
    spiked = disc(0.1)
    spiked[spikes] = 0.3
    outline = convex(jnp.asarray(spiked))
    corner = 0.1 / np.cos(2 * np.pi / K)
    assert outline.max() < 0.1 + len(spikes) ** 2 * (corner - 0.1) + 1e-6
    np.testing.assert_allclose(np.delete(outline, spikes), 0.1, atol=1e-6)
    shorter = np.asarray(jax.grad(lambda h: convex(h)[spikes[0]])(jnp.asarray(spiked)))
    assert shorter[spikes[0]] == 1 and (np.delete(shorter, spikes[0]) == 0).all()
    longer = np.asarray(jax.grad(lambda h: -convex(h)[spikes[0]])(jnp.asarray(spiked)))
    assert (longer[spikes] == 0).all() and longer.sum() < -0.45
    assert (longer <= 0).all() and (longer < 0).sum() == 2


def test_a_reach_that_one_body_has_too_much_and_the_other_too_little_is_no_matter():
    """Only the sum of two outlines is told by contacts: an odd part that all share is nothing."""
    odd = 0.03 * np.sin(3 * np.arange(K) * 2 * np.pi / K).astype(np.float32)
    place, speed = [[0.4, 0.5], [0.56, 0.52]], [[0.03, 0.004], [-0.02, 0.0]]
    plain = collide(one(place), one(speed), bodies(disc(0.07), disc(0.07)))
    shared = collide(one(place), one(speed), bodies(disc(0.07) + odd, disc(0.07) + odd))
    np.testing.assert_allclose(shared.speed, plain.speed, atol=1e-6)
