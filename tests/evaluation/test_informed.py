"""The twins behind the interface, and the baselines that are told things."""

import numpy as np
import pytest

from wm_jax import shapes
from wm_jax.errors import UserError
from wm_jax.evaluation import informed
from wm_jax.evaluation.informed import Sight
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.twins_scene import SCENE_SIZE
from wm_jax.models.baselines import TrueSimulator


def mean_error(prediction, clips, protocol, step):
    truth = type(clips.truth)(*(field[:, protocol.context :] for field in clips.truth))
    scores = score_objects(prediction.stated, truth, protocol)
    return (scores.error * scores.asked)[:, step - 1].sum() / scores.asked[:, step - 1].sum()


def test_scenes_are_drawn_as_they_were(world, clips):
    drawn = world.draw(clips.scenes[:3])
    difference = np.abs(drawn.frames.astype(int) - clips.frames[:3])
    assert difference.max() <= 1, "positions are float32 in a scene vector"
    np.testing.assert_allclose(drawn.visible, clips.truth.visible[:3], atol=1e-4)


def test_fields_of_a_scene_can_be_read_and_replaced(world, clips):
    scenes = clips.scenes[:2, 0]
    assert scenes.shape == (2, SCENE_SIZE)
    place = world.get(scenes, "position") + 1
    moved = world.put(scenes, position=place)
    np.testing.assert_array_equal(world.get(moved, "position"), place)
    np.testing.assert_array_equal(world.get(moved, "hue"), world.get(scenes, "hue"))
    assert not np.array_equal(moved, scenes)


def test_pixels_and_world_units_are_inverse_under_a_moving_camera(full_world):
    clips = full_world.clips("test", 48, (0,), 5)
    place = full_world.get(clips.scenes, "position")
    pixels = full_world.to_pixels(place, clips.scenes)
    np.testing.assert_allclose(full_world.to_world(pixels, clips.scenes), place, atol=1e-3)
    whole = clips.truth.visible > 0.999
    off = np.linalg.norm(pixels - clips.truth.centroid, axis=-1)[whole]
    assert np.median(off) < 0.05


def test_the_true_simulator_as_a_model_is_the_truth(world, clips, protocol):
    """Encoded context, then a rollout through `step` and `decode`: the true frames come out."""
    context, few = protocol.context, 4
    model = TrueSimulator(world, (32, 32))
    params = {"scene": clips.scenes[:few, 0]}
    state = shapes.encode(model, params, clips.frames[:few, :context])
    future = shapes.rollout(model, params, state, 12)
    frames = np.round(np.asarray(future.frames) * 255).astype(int)
    truth = clips.frames[:few, context : context + 12].astype(int)
    assert np.abs(frames - truth).mean() < 0.05
    assert (np.abs(frames - truth).max((1, 2, 3, 4)) <= 2).mean() >= 0.75, (
        "a collision restarted from float32 may end one shade away, and no more often than that"
    )


def test_the_simulator_of_the_full_world_keeps_hand_and_gravity(full_world):
    clips = full_world.clips("test", 48, (0,), 5)
    scene = clips.scenes[:, 0]
    for t in range(6):
        scene = full_world.advance(scene, clips.actions[:, t])
    for field, bound in (("position", 0.05), ("hand", 0.05), ("angle", 0.02)):
        error = np.abs(full_world.get(scene, field) - full_world.get(clips.scenes[:, 6], field))
        assert np.median(error.reshape(5, -1).max(1)) < bound, field


def test_constant_velocity_is_exact_in_free_flight(world, clips, protocol, instrument):
    """On objects that touch nothing and are in sight, it is off by the reading error alone."""
    prediction = informed.constant_velocity(clips, world, instrument, protocol)
    context = protocol.context
    truth = type(clips.truth)(*(field[:, context:] for field in clips.truth))
    scores = score_objects(prediction.stated, truth, protocol)
    seen = (clips.truth.visible[:, context - 3 : context] > 0.999).all(1)
    free = ~clips.truth.touching[:, context - 3 : context + 5].any(1)
    chosen = (seen & free)[:, None] & scores.asked[:, :5] & (truth.visible[:, :5] > 0.999)
    assert chosen.sum() > 20
    assert np.median(scores.error[:, :5][chosen]) < 0.15
    assert scores.error[:, :5][chosen].max() < 0.7


def test_see_then_simulate_beats_constant_velocity(world, clips, protocol, instrument):
    straight = informed.constant_velocity(clips, world, instrument, protocol)
    simulated = informed.see_then_simulate(clips, world, instrument, protocol)
    for step in (10, 20, 30):
        better = mean_error(simulated, clips, protocol, step)
        assert better < 0.5 * mean_error(straight, clips, protocol, step)
    assert mean_error(simulated, clips, protocol, 1) < 0.3
    assert simulated.frames.shape == (len(clips.frames), protocol.horizon, 32, 32, 3)


def test_refinement_finds_the_middle_of_partly_hidden_objects(world, clips, protocol, instrument):
    truth = world.get(clips.scenes, "position")[:, : protocol.context]
    partly = clips.truth.visible[:, : protocol.context]
    errors = []
    for refinements in (0, informed.REFINEMENTS):
        sight = informed.look(clips, world, instrument, protocol.context, refinements)
        chosen = sight.used & (partly > 0.4) & (partly < 0.9)
        errors.append(np.linalg.norm(sight.place - truth, axis=-1)[chosen].mean())
    assert chosen.sum() > 10
    assert errors[1] < 0.4 * errors[0]


def test_a_belief_goes_on_as_if_it_had_seen_all_at_once(world, clips, protocol, instrument):
    first = informed.believe(clips, world, instrument, protocol.context)
    further = informed.believe(clips, world, instrument, protocol.context + 4, first)
    whole = informed.believe(clips, world, instrument, protocol.context + 4)
    np.testing.assert_array_equal(further.known, whole.known)
    for one, other in zip(further.sight, whole.sight, strict=True):
        np.testing.assert_array_equal(one, other)
    # What is a sliver is weighed by all frames that were seen, so rarely an early one differs.
    same = (further.scene == whole.scene).all(1)
    assert same.mean() >= 0.8
    again = informed.believe(clips, world, instrument, protocol.context)
    np.testing.assert_array_equal(again.scene, first.scene)


def test_a_fit_undoes_gravity_and_stops_at_a_bounce():
    t = np.arange(10.0)
    gravity = np.array([[0.0, 0.02]], np.float32)
    fall = np.stack([3 + 1.5 * t, 5 + 0.5 * t + 0.01 * t**2], -1)
    bounce = np.stack([np.where(t < 6, 1.5 * t, 18 - 1.5 * t), 10 + 0 * t + 0.01 * t**2], -1)
    place = np.stack([fall, bounce], 1)[None]
    seen = np.ones(place.shape[:3], bool)
    flight = informed._fit(Sight(place, seen, seen), gravity)
    np.testing.assert_allclose(flight.velocity[0, 9, 0], [1.5, 0.5 + 0.02 * 9], atol=1e-6)
    assert flight.frames[0, 9, 0] == informed.FIT_FRAMES
    np.testing.assert_allclose(flight.velocity[0, 9, 1], [-1.5, 0.02 * 9], atol=1e-6)
    assert flight.frames[0, 9, 1] == 4, "frames 6 to 9 are after the bounce"


def test_clips_too_long_for_the_episodes_are_refused(world):
    with pytest.raises(UserError, match=r"100 frames and a clip takes 200.*--horizon"):
        world.clips("test", 200, (0,), 2)


def test_clips_carry_their_episode_and_only_starts_that_fit(world):
    clips = world.clips("test", 50, (0, 40, 60), 3)
    assert clips.unit.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(clips.frames[1, 0], clips.frames[0, 40])
    assert not clips.conditions.actions.mask.any(), "this world tells no modality"
