"""Contacts of bodies that turn, against conservation laws, closed forms and pymunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pymunk
import pytest

from wm_jax.nn import contact
from wm_jax.nn.contact import Bodies, directions
from wm_jax.nn.contact_turning import Spin, collide, rebound, turned

K = 360
WALLS = jnp.array([1.0, 1.0, 0.0, 0.0])
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.07


def outline(corners, count=K):
    return (np.asarray(corners) @ directions(count).T).max(0).astype(np.float32)


def disc(radius):
    return np.full(K, radius, np.float32)


def bodies(*outlines, mass=None, gyration=None):
    count = len(outlines)
    column = lambda x: jnp.asarray(x, jnp.float32)[None, :, None]  # noqa: E731
    mass = np.ones(count) if mass is None else mass
    gyration = np.full(count, 0.07**2 * 2 / 3) if gyration is None else gyration
    sharp = jnp.full((1, count, 1), 4000.0)
    support = jnp.asarray(np.stack(outlines))[None]
    return Bodies(support, sharp, column(np.log(mass)), column(np.ones(count)), column(gyration))


def one(x):
    return jnp.asarray(x, jnp.float32)[None]


def spin(turn, rate):
    return Spin(one(turn)[..., None], one(rate)[..., None])


@pytest.mark.parametrize(("count", "close"), [(24, 3e-3), (36, 2.5e-3), (48, 2e-3), (180, 5e-4)])
def test_an_outline_turns_as_its_corners_do(count, close):
    """But for what so few waves leave of the kink at an edge."""
    by = 0.3
    turn = np.array([[np.cos(by), np.sin(by)], [-np.sin(by), np.cos(by)]])
    found = turned(jnp.asarray(outline(SQUARE, count)), jnp.array([by]))
    np.testing.assert_allclose(found, outline(SQUARE @ turn, count), atol=close)
    np.testing.assert_allclose(
        turned(jnp.asarray(outline(SQUARE, count)), jnp.array([np.pi / 2])),
        outline(SQUARE, count),
        atol=1e-6,
    )


def test_what_cannot_turn_collides_as_in_contact():
    place, speed = one([[0.4, 0.5], [0.53, 0.53]]), one([[0.03, 0.0], [-0.02, 0.0]])
    heavy = bodies(disc(0.07), disc(0.07), gyration=[1e9, 1e9])
    still = spin([0.0, 0.0], [0.0, 0.0])
    found = collide(place, speed, heavy, still)
    plain = contact.collide(place, speed, heavy)
    assert np.abs(plain.speed).max() > 0.01
    np.testing.assert_allclose(found.speed, plain.speed, atol=1e-6)
    np.testing.assert_allclose(found.place, plain.place, atol=1e-6)
    np.testing.assert_allclose(found.rate, 0, atol=1e-6)
    close = one([[0.925, 0.5], [0.5, 0.08]])
    found = rebound(close, speed - 0.02, heavy, still, WALLS)
    np.testing.assert_allclose(
        found.speed, contact.rebound(close, speed - 0.02, heavy, WALLS).speed, atol=1e-6
    )


@pytest.mark.parametrize("grip", [0.0, 0.3])
@pytest.mark.parametrize("mass", [(1.0, 1.0), (0.5, 2.0)])
def test_momentum_is_kept_and_energy_if_nothing_rubs(mass, grip):
    place = np.array([[0.4, 0.5], [0.585, 0.53]])
    speed, rate, turn = np.array([[0.03, 0.004], [-0.02, 0.0]]), [0.05, -0.1], [0.3, 0.8]
    gyration = np.array([0.003, 0.002])
    parts = bodies(outline(SQUARE), outline(SQUARE), mass=mass, gyration=gyration)
    change = collide(one(place), one(speed), parts, spin(turn, rate), grip=grip)
    mass, inertia = np.array(mass), np.array(mass) * gyration
    kick, spun = np.asarray(change.speed[0]), np.asarray(change.rate[0, :, 0])
    assert np.abs(kick).max() > 0.005 and np.abs(spun).max() > 0.02
    np.testing.assert_allclose((mass[:, None] * kick).sum(0), 0, atol=1e-7)
    # About the place of the first, where the impulse on both is at one point of the contact.
    when = 1 - np.linalg.norm(change.place[0, 0]) / np.linalg.norm(kick[0])
    apart = (place + when * speed)[1] - (place + when * speed)[0]
    angular = (inertia * spun).sum() + mass[1] * (apart[0] * kick[1, 1] - apart[1] * kick[1, 0])
    np.testing.assert_allclose(angular, 0, atol=1e-5)  # of 5e-3

    def energy(speed, rate):
        return (mass * (speed**2).sum(-1)).sum() / 2 + (inertia * np.square(rate)).sum() / 2

    before, after = energy(speed, rate), energy(speed + kick, rate + spun)
    if grip:
        assert 0.5 * before < after < 0.999 * before
    else:
        np.testing.assert_allclose(after, before, rtol=5e-3)


def test_a_disc_that_grips_the_wall_rolls_off():
    """Its rim stops sliding: (v + ω r)' = 0, and its angular momentum about the touch is kept."""
    radius, speed = 0.07, np.array([[0.01, 0.03]])
    parts = bodies(disc(radius), gyration=[radius**2 / 2])
    change = rebound(
        one([[0.5, 0.92]]), one(speed), parts, spin([0.0], [0.0]), WALLS, bounce=1.9, grip=9.0
    )
    after, rate = speed[0] + np.asarray(change.speed[0, 0]), float(change.rate[0, 0, 0])
    np.testing.assert_allclose(after[1], -0.9 * 0.03, rtol=1e-5)
    np.testing.assert_allclose(after[0], rate * radius, atol=1e-6)
    np.testing.assert_allclose(after[0], 0.01 * 2 / 3, rtol=1e-4)


def test_a_corner_that_swings_round_meets_the_wall():
    """A square at rest that only turns: its corners reach farther than its sides."""
    far, at = 0.07 * 2**0.5, np.array([[0.5, 0.5]])
    parts, still = bodies(outline(SQUARE)), np.zeros((1, 2))
    at[0, 1] = 1 - far + 0.004
    quiet = rebound(one(at), one(still), parts, spin([0.2], [0.0]), WALLS)
    np.testing.assert_allclose(quiet.speed, 0, atol=1e-7)
    met = rebound(one(at), one(still), parts, spin([0.35], [0.4]), WALLS)
    assert met.speed[0, 0, 1] < -0.005 and met.rate[0, 0, 0] < -0.05


@pytest.mark.parametrize("turn", [0.2, 0.5, 1.1])
@pytest.mark.parametrize("friction", [0.0, 0.2])
def test_a_square_leaves_a_wall_as_in_pymunk(turn, friction):
    half, speed, rate = 4.5, (0.4, 1.5), 0.05
    space = pymunk.Space()
    space.collision_slop = 0.01
    body = pymunk.Body(1.0, pymunk.moment_for_box(1.0, (2 * half, 2 * half)))
    box = pymunk.Poly(body, [(-half, -half), (half, -half), (half, half), (-half, half)])
    wall = pymunk.Segment(space.static_body, (-200, 80), (200, 80), 16.0)
    box.elasticity, wall.elasticity, box.friction, wall.friction = 0.95, 1.0, friction, 1.0
    reach = half * (abs(np.cos(turn)) + abs(np.sin(turn)))
    body.position, body.velocity = (32, 64 - reach - 0.5), speed
    body.angle, body.angular_velocity = turn, rate
    space.add(body, box, wall)
    for _ in range(8):
        space.step(1 / 8)
    parts = bodies(outline(SQUARE * half / 4.48), gyration=[body.moment / 64**2])
    start = (32 / 64, 1 - (reach + 0.5) / 64)
    change = rebound(
        one([start]),
        one([np.array(speed) / 64]),
        parts,
        spin([turn], [rate]),
        WALLS,
        1.95,
        0.06,
        friction,
    )
    found = np.array(speed) + 64 * np.asarray(change.speed[0, 0])
    np.testing.assert_allclose(found, body.velocity, atol=0.05)
    np.testing.assert_allclose(rate + change.rate[0, 0, 0], body.angular_velocity, atol=0.02)


def test_gradients_are_finite_where_nothing_touches_and_where_all_does():
    def total(support, place, rate):
        parts = bodies(disc(0.07), disc(0.07), disc(0.05))._replace(support=support)
        spun = Spin(jnp.zeros_like(rate), rate)
        speed = one([[0.03, 0.0], [-0.01, 0.01], [0.0, 0.0]])
        a = collide(place, speed, parts, spun, grip=0.1)
        b = rebound(place, speed, parts, spun, WALLS, grip=0.1)
        return sum(jnp.abs(x).sum() for x in (*a, *b))

    support = jnp.asarray(np.stack([disc(0.07), outline(SQUARE), disc(0.05)]))[None]
    for place in ([[0.5, 0.5], [0.62, 0.5], [0.5, 0.5]], [[0.2, 0.5], [0.6, 0.5], [0.97, 0.02]]):
        for rate in (0.0, 0.2):
            slopes = jax.grad(total, (0, 1, 2))(support, one(place), jnp.full((1, 3, 1), rate))
            assert all(np.isfinite(x).all() for x in slopes)
