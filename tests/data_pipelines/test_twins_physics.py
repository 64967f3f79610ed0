"""The simulator against closed forms of mechanics."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.twins import Simulator, make_episode, simulate_from, start, static_of
from data_pipelines.twins.drives import hand_actions
from data_pipelines.twins.geometry import corners, moment_of_inertia
from data_pipelines.twins.interventions import KINDS, Intervention, sample_intervention
from data_pipelines.twins.physics import HAND, WALL
from data_pipelines.twins.scene import draw_scene
from data_pipelines.twins.world import MAX_OBJECTS, get_world, stream, world_of_split
from wm_jax.errors import UserError


def two_discs(mass=(1.0, 1.0), restitution=1.0, gravity=(0.0, 0.0)):
    """Two discs of radius 4 on one line, ready for `start`."""
    n, two = MAX_OBJECTS, slice(0, 2)
    static = {
        name: np.zeros(n) for name in ("radius", "mass", "inertia", "friction", "restitution")
    }
    static["hue"], static["shape"] = np.full(n, -1), np.full(n, -1)
    static["hue"][two], static["shape"][two] = (0, 6), 0
    static["radius"][two], static["mass"][two] = 4.0, mass
    static["restitution"][two] = restitution
    static |= {"depth": np.arange(n), "occluders": np.zeros((0, 4)), "looks": np.zeros(15)}
    static |= {"gravity": np.array(gravity), "hand_radius": 3.5}
    position, velocity = np.zeros((n, 2)), np.zeros((n, 2))
    position[two] = [[16.0, 20.0], [48.0, 20.0]]
    return static, position, velocity


def test_free_flight_is_straight():
    static, position, velocity = two_discs()
    velocity[0] = [0.7, 0.4]
    out = simulate_from(static, position, velocity, steps=15)
    steps = np.arange(1, 16)[:, None]
    np.testing.assert_allclose(out["position"][:, 0], position[0] + steps * velocity[0], atol=1e-9)


@pytest.mark.parametrize(
    ("mass", "restitution"), [((1, 1), 1.0), ((1, 2), 1.0), ((0.5, 2), 0.9), ((2, 1), 0.7)]
)
def test_head_on_collision(mass, restitution):
    static, position, velocity = two_discs(mass, restitution)
    velocity[0, 0], velocity[1, 0] = 1.5, -0.5
    after = simulate_from(static, position, velocity, steps=16)["velocity"][-1, :2, 0]
    e = restitution**2  # of the pair
    (m, k), (u, v) = mass, (1.5, -0.5)
    together = (m * u + k * v) / (m + k)
    expected = [together - e * k * (u - v) / (m + k), together + e * m * (u - v) / (m + k)]
    np.testing.assert_allclose(after, expected, atol=1e-9)


def test_wall_turns_the_normal_speed_by_the_objects_own_restitution():
    static, position, velocity = two_discs(restitution=0.8)
    velocity[0] = [-1.2, 0.5]
    sim = start(static, position, velocity)
    walls = []
    for _ in range(14):
        sim.step()
        walls += [c for c in sim.onsets if c.a == 0]
    np.testing.assert_allclose(sim.state()["velocity"][0], [1.2 * 0.8, 0.5], atol=1e-9)
    assert [(c.b, c.wall) for c in walls] == [(WALL, "left")]
    assert walls[0].impulse == pytest.approx(1.2 * 1.8, rel=1e-6)


def test_free_fall():
    static, position, velocity = two_discs(gravity=(0.0, 0.02))
    fallen = simulate_from(static, position, velocity, steps=30)["position"][-1, 0, 1] - 20.0
    # eight substeps a frame, place before speed, fall short of g t^2 / 2 by g t / 16
    assert fallen == pytest.approx(0.02 * 30**2 / 2 - 0.02 * 30 / 16, abs=1e-9)


def test_motion_keeps_its_energy_and_stays_inside():
    world = get_world("motion")
    scene = draw_scene(world, 11)
    sim = Simulator(scene)
    energy = []
    for _ in range(640):
        sim.step()
        state = sim.state()
        energy.append((state["velocity"] ** 2).sum())
        for slot in sim.bodies:
            x, y = state["position"][slot]
            outline = corners(int(scene.shape[slot]), scene.radius[slot]) or [(0.0, 0.0)]
            slack = 0.3 if scene.shape[slot] else 0.3 - scene.radius[slot]  # one substep deep
            for dx, dy in outline:
                assert min(x + dx, y + dy, 64 - x - dx, 64 - y - dy) > -slack
    assert np.ptp(energy) < 1e-9 * energy[0]


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_moment_of_inertia_against_a_sum_over_points(shape):
    radius = 3.0
    grid = np.stack(np.meshgrid(*[np.linspace(-6, 6, 1201)] * 2), -1).reshape(-1, 2)
    if shape == 0:
        inside = np.hypot(*grid.T) <= radius
    else:
        points = np.array(corners(shape, radius))
        edges = np.roll(points, -1, 0) - points
        offsets = grid[:, None] - points
        inside = np.all(edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0] >= 0, 1)
    area = inside.sum() * 0.01**2
    assert area == pytest.approx(np.pi * radius**2, rel=5e-3)
    second = (grid[inside] ** 2).sum(-1).mean()
    assert moment_of_inertia(shape, radius, 2.0) == pytest.approx(2.0 * second, rel=5e-3)


def test_hand_follows_actions_pushes_and_ignores_gravity():
    static, position, velocity = two_discs(gravity=(0.0, 0.02))
    position[1] = [30.0, 48.0]
    sim = start(static, position, velocity, hand=np.array([16.0, 48.0]))
    places, pushed = [], 0.0
    for _ in range(14):
        sim.step((1.0, 0.0))
        places.append(sim.state()["hand"][:2])
        pushed += sim.contact[1, HAND]
    assert all(y == pytest.approx(48.0, abs=1e-6) for _, y in places[:5])
    assert places[5][0] - places[4][0] == pytest.approx(1.0, abs=1e-6)
    assert pushed > 0.5 and sim.state()["velocity"][1, 0] > 0.9


def lively(split, index):
    world = world_of_split(get_world("full"), split)
    return draw_scene(world, 1000 + index)


@pytest.mark.parametrize("index", range(6))
def test_copy_continues_to_the_same_bits(index):
    scene = lively("test_more_objects", index)
    actions = hand_actions(scene, 70)
    sim = Simulator(scene)
    for frame in range(30):
        if frame == 12:
            rng = stream(index, "test")
            sim.apply(sample_intervention("push", 12, scene, sim.state(), rng))
        sim.step(actions[frame])
    twin = sim.copy()
    for frame in range(30, 69):
        sim.step(actions[frame])
        twin.step(actions[frame])
        one, other = sim.state(), twin.state()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_editing_a_copy_leaves_the_original_alone():
    scene = lively("train", 1)
    sim = Simulator(scene)
    sim.step()
    before = sim.state()
    for kind in KINDS:
        twin = sim.copy()
        twin.apply(sample_intervention(kind, 1, scene, before, stream(3, kind)))
        twin.step()
    after = sim.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(sim.objects["hue"], scene.hue)


def change(kind, target, *values):
    params = np.zeros(8, np.float32)
    params[: len(values)] = values
    return Intervention(kind, 0, target, params, "")


def test_each_intervention_does_what_it_says():
    static, position, velocity = two_discs()
    sim = start(static, position, velocity)
    sim.apply(change("move", 0, 10, 40))
    sim.apply(change("push", 0, 0.5, -0.25))
    sim.apply(change("recolour", 1, 4))
    sim.apply(change("add", 2, 50, 50, 0, 1, 3, 1, 5, 2))
    sim.apply(change("light", -1, -0.25, 0.125, 0))
    sim.apply(change("camera", -1, 4, -2, 0.5))
    sim.apply(change("gravity", -1, 0, 0.03125))
    state = sim.state()
    assert state["position"][0].tolist() == [10, 40]
    assert state["velocity"][0].tolist() == [0.5, -0.25]
    assert state["hue"].tolist() == [0, 4, 3, -1, -1, -1, -1, -1]
    assert state["shape"].tolist()[:3] == [0, 0, 1] and sim.objects["radius"][2] == 5
    assert sim.bodies[2].mass == 2 and state["velocity"][2].tolist() == [0, 1]
    assert state["light"].tolist() == [0.75, 0.125, 0] and state["camera"].tolist() == [4, -2, 0.5]
    assert state["gravity"].tolist() == [0, 0.03125]
    sim.apply(change("remove", 0))
    assert sim.state()["present"].tolist() == [False, True, True] + [False] * 5
    sim.step()
    with pytest.raises(ValueError, match="paint"):
        sim.apply(change("paint", 0))


def test_simulating_from_the_truth_gives_the_future():
    episode = make_episode("twins:full", 5, resolution=32)
    begin, steps = 20, 12
    ahead = slice(begin + 1, begin + 1 + steps)
    future = simulate_from(
        static_of(episode, begin),
        episode["truth/position"][begin],
        episode["truth/velocity"][begin],
        episode["truth/angle"][begin],
        actions=episode["actions"][begin:],
        steps=steps,
        angular_velocity=episode["truth/angular_velocity"][begin],
        hand=episode["truth/hand"][begin, :2],
        light=episode["light"][ahead],
        camera=episode["camera"][ahead],
        resolution=32,
    )
    # the hand's velocity isn't told, so it needs a frame or two to catch up
    assert np.abs(future["position"] - episode["truth/position"][ahead]).max() < 1.0
    error = future["frames"].astype(float) - episode["frames"][ahead]
    assert np.abs(error).mean() < 1.0


def test_simulating_motion_from_the_truth_is_exact_to_float32():
    episode = make_episode("twins:motion", 4, resolution=32)
    future = simulate_from(
        static_of(episode), episode["truth/position"][0], episode["truth/velocity"][0], steps=30
    )
    error = np.abs(future["position"] - episode["truth/position"][1:31])
    assert error.max() < 1e-3


def test_a_lost_object_must_be_left_out():
    static, position, velocity = two_discs()
    position[1] = np.nan
    with pytest.raises(UserError, match="position of object 1 isn't finite.*hue -1"):
        start(static, position, velocity)
    static["hue"][1] = -1
    assert list(start(static, position, velocity).bodies) == [0]


def test_set_state_puts_objects_where_it_says():
    static, position, velocity = two_discs()
    sim = start(static, position, velocity)
    sim.step()
    sim.set_state(position + 1, velocity + 0.5, angle=np.full(8, 0.25))
    twin, state = sim.copy(), sim.state()
    assert state["position"][0].tolist() == [17, 21] and state["angle"][1] == 0.25
    assert np.array_equal(twin.state()["position"], state["position"])
    assert dataclasses.asdict(sim.scene)["seed"] == -1
