"""What one step makes of slots that meet: a hand among them, and gradients that stay short."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.models.dynamics import motion, tracking
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.pixels import CONTRAST

RED, BLUE, GREY = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.5, 0.5, 0.5)


def module(spin):
    sizes = {"slots": 2, "width": 4, "hidden": 4, "pool": 4, "sight": 8, "look": 4}
    return GridSlots((16, 16), told_size=3, spin=spin, **sizes)


def about_to_meet(net, colours):
    """Two discs beside each other; the second comes at the first."""
    scene = net.initial(1)
    return scene._replace(
        place=jnp.array([[[0.4, 0.5], [0.585, 0.5]]]),
        speed=jnp.array([[[0.0, 0.0], [-0.05, 0.0]]]),
        present=jnp.ones_like(scene.present),
        colour=CONTRAST * jnp.array([colours]),
    )


def start(spin, colours):
    """A net, weights that change no speed but by contacts, and the scene."""
    net = module(spin)
    scene = about_to_meet(net, colours)
    inputs = scene, None, None, jnp.zeros((1, 3)), None
    variables = random_variables(net, *inputs, method="step")
    weights = jax.tree.map(jnp.zeros_like, variables["params"])
    return net, weights, scene


def after(net, weights, scene):
    step = quick_jit(lambda w, s: net.apply({"params": w}, s, None, None, jnp.zeros((1, 3)), None,
                                            method="step"))  # fmt: skip
    return step(weights, scene)[0]


@pytest.mark.parametrize("spin", [0.0, 0.15])
def test_a_hand_weighs_and_bounces_otherwise_and_nothing_else_does(spin):
    """m₁ Δv₁ = −m₂ Δv₂, and e more of the closing speed comes back, where one of two is grey."""
    net, weights, scene = start(spin, (RED, GREY))
    told = weights | {
        "hand_mass": jnp.array([np.log(3.0) / motion.HEAVY]),
        "hand_bounce": jnp.array([0.3, 0.0]),
    }
    before, plain, hand = (s.speed[0, :, 0] for s in (scene, after(net, weights, scene),
                                                     after(net, told, scene)))  # fmt: skip
    gained = [np.asarray(x - before) for x in (plain, hand)]
    np.testing.assert_allclose(gained[0][0], -gained[0][1], rtol=1e-4)
    np.testing.assert_allclose(gained[1][0], -3 * gained[1][1], rtol=1e-3)
    np.testing.assert_allclose(plain[1] - plain[0], 0.5 * 0.05, rtol=0.02)
    np.testing.assert_allclose(hand[1] - hand[0], 0.8 * 0.05, rtol=0.02)
    net, _, hued = start(spin, (RED, BLUE))
    for x, y in zip(after(net, weights, hued), after(net, told, hued), strict=True):
        np.testing.assert_array_equal(x, y)


def test_of_two_things_without_a_hue_only_the_older_is_a_hand():
    """An end of a bar may be taken for a hand; nothing bounces off it and nobody is shown it."""
    net = module(0.15)
    scene = about_to_meet(net, (GREY, GREY))
    ages = jnp.array([[[2.0], [5.0]]])
    bodies = motion.followed(net, scene._replace(age=ages))[0, :, 0]
    np.testing.assert_array_equal(bodies, [0.0, 1.0])
    hued = about_to_meet(net, (RED, GREY))._replace(age=ages[:, ::-1])
    np.testing.assert_array_equal(motion.followed(net, hued)[0, :, 0], [1.0, 1.0])
    alone = module(0.15).clone(told_size=1)  # a world without a hand
    np.testing.assert_array_equal(motion.followed(alone, scene)[0, :, 0], [1.0, 1.0])


def test_walls_are_where_the_camera_shows_them():
    """A disc that flies at a wall turns where that is in the frame, however the camera stands."""
    net, weights, scene = start(0.0, (RED, BLUE))
    view = np.zeros((3, 3), np.float32)
    view[0, 0], view[1, 2] = -0.25, 0.25  # the first number pans by shares of 64, the second zooms
    weights = weights | {"view": {"kernel": jnp.asarray(view)}}
    scene = scene._replace(present=scene.present.at[:, 1].set(0.0))

    def turns(told, at):
        told = jnp.array([told])
        there = scene._replace(
            place=scene.place.at[0, 0].set(jnp.array([at, 0.5])),
            speed=scene.speed.at[0, 0].set(jnp.array([-0.01, 0.0])),
            told=told,
        )
        out = net.apply({"params": weights}, there, None, None, told, None, method="step")[0]
        return float(out.speed[0, 0, 0]) > 0

    reach = 0.08  # of a disc of no looks
    for told, wall in (((0.0, 0, 0), 0.0), ((-8.0, 0, 0), 0.125), ((0, np.log(0.8), 0), 0.1)):
        size = float(np.exp(told[1]))
        near = wall + reach * size + 0.005
        assert turns(told, near), told
        assert not turns(told, near + 0.02), told


@pytest.mark.parametrize("spin", [0.0, 0.15])
def test_one_contact_says_no_more_than_its_share_of_what_all_share(spin):
    """However steep the loss: the gradient of walls, bounce and speed is bounded, not zero."""
    net, weights, scene = start(spin, (RED, GREY))
    # Between a wall and a hand, on its way to both.
    place = jnp.array([[[0.12, 0.5], [0.29, 0.5]]])
    scene = scene._replace(place=place, speed=jnp.array([[[-0.06, 0.0], [-0.1, 0.0]]]))

    def loss(weights, speed):
        told = jnp.zeros((1, 3))
        moved = scene._replace(speed=speed)
        out = net.apply({"params": weights}, moved, None, None, told, None, method="step")[0]
        return 1e6 * ((out.place + out.speed)[0, :, 0] @ jnp.array([1.0, 2.0]))

    grads, by_speed = quick_jit(jax.grad(loss, (0, 1)))(weights, scene.speed)
    for name in ("walls", "bounce", "hand_bounce"):
        assert 0 < jnp.abs(grads[name]).max() <= motion.LONGEST + 1e-5, name
    assert 0 < jnp.linalg.norm(by_speed[0, 1]) <= motion.LONGEST + 1e-5


def test_a_camera_that_comes_nearer_makes_everything_longer():
    """Places go away from the middle, speeds grow; and a pan is longer, the nearer the camera."""
    net = GridSlots((16, 16), slots=2, width=4, hidden=4, pool=4, sight=8, look=4, told_size=3,
                    spin=0.15, pull=0.02)  # fmt: skip
    scene = about_to_meet(net, (RED, BLUE))._replace(
        place=jnp.array([[[0.3, 0.3], [0.7, 0.6]]]),
        speed=jnp.array([[[0.01, 0.0], [0.0, -0.02]]]),
    )
    variables = random_variables(net, scene, None, None, jnp.zeros((1, 3)), None, method="step")
    weights = jax.tree.map(jnp.zeros_like, variables["params"])
    # Numbers told: x, y and log zoom.
    weights["view"]["kernel"] = jnp.diag(1 / motion.VIEW)

    def step(scene, *told):
        told = jnp.asarray([told], jnp.float32)
        inputs = scene, None, None, told, None
        return net.apply({"params": weights}, *inputs, method="step")[0]

    still, zoomed = step(scene, 0, 0, 0), step(scene, 0, 0, np.log(1.25))
    np.testing.assert_allclose(zoomed.speed, 1.25 * still.speed, rtol=1e-5)
    np.testing.assert_allclose(zoomed.place - 0.5, 1.25 * (still.place - 0.5), rtol=1e-4)
    panned = step(zoomed, 0.1, 0, np.log(1.25)).place - step(zoomed, 0, 0, np.log(1.25)).place
    np.testing.assert_allclose(panned[..., 0], 0.125, rtol=1e-4)
    near, far = (
        net.apply(
            {"params": weights},
            scene._replace(shown=jnp.asarray([[0, 0, shown]], jnp.float32)),
            method=lambda net, s: motion._zoomed(
                net, s, motion.bodies_of(net, s), jnp.zeros((1, 3)), jnp.zeros((1, 3))
            )[1],
        )
        for shown in (np.log(0.5), 0.0)
    )
    np.testing.assert_allclose(near.support, 2 * far.support, rtol=1e-5)
    np.testing.assert_allclose(near.gyration, 4 * far.gyration, rtol=1e-5)


def falling(pulls, colours, knows):
    """A scene of slots that each believe in a pull (x, 64ths a step²), with this variance."""
    net = GridSlots((16, 16), slots=len(pulls), pool=4, pull=0.02)
    scene = net.initial(1)
    spread = scene.spread.at[..., 10:].set(jnp.asarray(knows)[None, :, None])
    own = jnp.stack([jnp.asarray(pulls), jnp.zeros(len(pulls))], -1)[None] / 64
    return scene._replace(pull=own, spread=spread, present=jnp.ones_like(scene.present),
                          colour=CONTRAST * jnp.array([colours]))  # fmt: skip


def test_slots_lend_each_other_what_they_know_of_a_pull_and_one_that_errs_counts_little():
    sure = [0.002**2] * 4
    scene = falling([0.02, 0.021, 0.019, -0.04], [RED, BLUE, RED, BLUE], sure)
    lent = 64 * tracking.shared_pull(scene, 0.02)[0, 0]
    np.testing.assert_allclose(lent, (0.02, 0), atol=2e-3)
    # A hand does not fall, and says nothing of it.
    with_hand = falling([0.02, 0.021, 0.019, 0.0], [RED, BLUE, RED, GREY], sure)
    np.testing.assert_allclose(
        64 * tracking.shared_pull(with_hand, 0.02)[0, 0], (0.02, 0), atol=1e-3
    )
    nothing = falling([0.02, 0.02], [RED, BLUE], [0.02**2] * 2)  # what was believed at first
    np.testing.assert_allclose(tracking.shared_pull(nothing, 0.02), 0, atol=1e-5)


def test_a_filter_that_is_told_the_pull_believes_other_speeds():
    """Conditioning a normal distribution: E[v | p] = v + cov(v, p) / var(p) (p' − p)."""
    scene = falling([0.02], [RED], [0.01**2])
    spread = scene.spread.at[..., 6:8].set(3e-4).at[..., 8:10].set(-5e-5)
    told = tracking.told_pull(scene._replace(spread=spread), jnp.zeros((1, 1, 2)))
    off = -0.02 / 1e-4 / 64
    np.testing.assert_allclose(told.place[0, 0, 0] - scene.place[0, 0, 0], 3e-4 * off, rtol=1e-3)
    np.testing.assert_allclose(told.speed[0, 0], (-5e-5 * off, 0), rtol=1e-3)
