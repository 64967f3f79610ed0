"""The instrument on the twins: true frames, blurred, faded, at three resolutions."""

import dataclasses

import numpy as np
import pytest

from tests.evaluation.conftest import twins_world
from wm_jax.evaluation.calibration import calibrate
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Instrument


@pytest.mark.parametrize(
    "name, resolution",
    [("twins:motion", 32), ("twins:motion", 64), ("twins:full", 64), ("twins:full", 128)],
)
def test_the_instrument_holds_on_the_twins(name, resolution):
    world = twins_world(name, resolution, episodes=6, length=64)
    protocol = Protocol(resolution=resolution, starts=(0,), context=4, horizon=60)
    clips = world.clips("test", 64, (0,), 6)
    grey = np.full((resolution, resolution, 3), 110, np.uint8)
    rows, holds = calibrate(clips, grey, protocol, Instrument(world.palette, resolution))
    found = {(row["metric"], row["control"]): row["value"] for row in rows}
    assert holds
    assert found["calibration_position_error", "true"] < 0.1 * protocol.unit
    for control in ("true", "blur_1", "blur_2", "half_mean_image"):
        assert found["calibration_identity", control] > 0.99
        assert found["calibration_position_error", control] < 0.25 * protocol.unit
    shapes = {c: value for (metric, c), value in found.items() if metric == "calibration_shape"}
    assert len(shapes) == (4 if resolution >= 64 else 0)
    assert all(value > 0.99 for control, value in shapes.items() if control != "blur_2")
    assert {row["model"] for row in rows} == {"instrument"}


def test_the_mean_image_of_many_scenes_is_empty():
    world = twins_world("twins:motion", 32, episodes=40, length=64)
    assert not Instrument(world.palette, 32).track(world.mean_image()).present.any()


def test_a_blind_instrument_is_said_to_have_failed(clips, protocol, instrument):
    """A palette turned by one hue names everything wrong."""
    turned = Instrument(np.roll(instrument.palette, 1, axis=0), 32)
    grey = np.full((32, 32, 3), 110, np.uint8)
    assert calibrate(clips, grey, protocol, instrument)[1]
    assert not calibrate(clips, grey, protocol, turned)[1]


def test_a_mean_image_with_an_object_in_it_fails(clips, protocol, instrument):
    assert not calibrate(clips, clips.frames[0, 0], protocol, instrument)[1]


def test_the_bound_at_32_px_is_the_tighter_one():
    assert Protocol(resolution=64).calibration == pytest.approx(0.5)
    assert Protocol(resolution=128).calibration == pytest.approx(1.0)
    assert Protocol(resolution=32).calibration == pytest.approx(0.3)
    one, other = Protocol(), dataclasses.replace(Protocol(), horizon=61)
    assert one.digest() != other.digest()
    assert one.digest() == Protocol().digest()
