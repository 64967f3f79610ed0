"""What is asked of a future is found, and what cannot be met is said by how much."""

import numpy as np
import pytest

from tests.models.test_grid_slots import SIZE, clip
from tests.test_world import make_world
from wm_jax.constraints import At, Keep, Meet, solve
from wm_jax.edit import Push
from wm_jax.errors import UserError


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(scope="module")
def scene(world):
    return world.encode(clip()[0])


def place_of(world, clip, hue, frame):
    things = world.things(clip.state)
    slot = next(t.slot for t in things if t.hue == hue)
    return SIZE * np.asarray(clip.objects.place)[0, frame - 1, slot]


def test_an_object_is_sent_where_it_shall_be(world, scene):
    found = solve(world, scene, [At("red box", frame=4, position=(22.0, 14.0))])
    (report,) = found.reports
    assert found.met and report.off < 1.0 and "met" in str(report)
    (change,) = found.changes
    assert isinstance(change, Push)
    after = world.rollout(found.scene, 4)
    np.testing.assert_allclose(place_of(world, after, "red", 4), (22.0, 14.0), atol=1.0)
    again = world.rollout(world.edit(scene, change), 4)
    np.testing.assert_array_equal(again.frames, after.frames)


def test_what_holds_already_costs_nothing(world, scene):
    there = place_of(world, world.rollout(scene, 3), "blue", 3)
    found = solve(world, scene, [At("blue", 3, tuple(there.tolist()))])
    assert np.abs(found.changes[0].velocity).max() < 0.1


def test_two_can_be_made_to_meet_and_what_cannot_be_is_told(world, scene):
    found = solve(world, scene, [Meet("red", "blue", by=6)])
    assert found.met
    far = solve(world, scene, [At("red", 1, (1.0, 31.0)), At("blue", 1, (31.0, 1.0))])
    assert not far.met and max(report.off for report in far.reports) > 2


def test_what_shall_be_seen_is_seen_in_the_picture(world, scene):
    found = solve(world, scene, [Keep("blue", until=2, visible=False)])
    assert not found.met  # nothing hides it, and a push does not make it go
    assert found.reports[0].off == 1.0


def test_what_cannot_be_asked_is_said(world, scene):
    for ask, said in (
        (lambda: solve(world, scene, []), "no constraint"),
        (lambda: solve(world, scene, [At("green", 3, (1.0, 1.0))]), "there is no green"),
        (lambda: solve(world, scene, [At("red", 3, (40.0, 1.0))]), "outside the frame of 32 px"),
        (lambda: solve(world, scene, [At("red", 0, (4.0, 1.0))]), "first frame of the future is 1"),
        (lambda: solve(world, scene, [Meet("red", "blue", 3)], over="actions"), "not told actions"),
        (lambda: solve(world, scene, [Meet("red", "blue", 3)], over="gravity"), "cannot be search"),
    ):
        with pytest.raises(UserError, match=said):
            ask()
