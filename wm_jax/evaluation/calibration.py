"""What the instrument itself is worth: its errors on true frames, sharp, blurred and faded."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from wm_jax.evaluation import statistics
from wm_jax.evaluation.identity import SHAPES_FROM, WHOLE
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.statistics import Estimate
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, Truth

EVERY = 4  # frames of a clip that are read
NEAR = 3.0  # world units: an object named right is found within this


def calibrate(
    clips: Clips, mean_image: UInt8[np.ndarray, "h w 3"], protocol: Protocol, instrument: Instrument
) -> tuple[list[Row], bool]:
    """Rows of the model ``instrument`` (``control`` says what was done to the frames), and whether
    it holds: error and identity on true frames as the protocol asks, nothing in the mean image."""
    frames = clips.frames[:, ::EVERY]
    rows, holds = [], True
    for control, changed in _variants(frames, mean_image, protocol.unit):
        more, good = _rows(control, changed, clips, protocol, instrument)
        rows += more
        holds &= good or control != "true"
    ghosts = instrument.track(mean_image[None]).present.sum()
    count = Estimate(*(np.array([x]) for x in (float(ghosts), np.nan, np.nan, 1)))
    rows += _made("objects", "1/frame", "mean_image", count, protocol)
    return rows, holds and not ghosts


def calibrate_true(
    control: str, clips: Clips, protocol: Protocol, instrument: Instrument
) -> tuple[list[Row], bool]:
    """The same on true frames alone, those of twins for example, of which ``control`` is the name:
    an instrument must hold under a changed light, camera or colour too."""
    return _rows(control, clips.frames[:, ::EVERY], clips, protocol, instrument)


def _rows(
    control: str, frames: np.ndarray, clips: Clips, protocol: Protocol, instrument: Instrument
) -> tuple[list[Row], bool]:
    truth = Truth(*(field[:, ::EVERY] for field in clips.truth))
    error, identity, shape = _errors(frames, truth, clips.unit, protocol, instrument)
    rows = _made("position_error", "px", control, error, protocol)
    rows += _made("identity", "1", control, identity, protocol)
    if protocol.resolution >= SHAPES_FROM:
        rows += _made("shape", "1", control, shape, protocol)
    good = error.value[0] < protocol.calibration
    return rows, bool(good and identity.value[0] > protocol.calibration_identity)


def _made(
    metric: str, unit: str, control: str, estimate: Estimate, protocol: Protocol
) -> list[Row]:
    name = f"calibration_{metric}"
    return make_rows(
        estimate, protocol, model="instrument", metric=name, unit=unit, control=control, steps=[0]
    )


def _variants(
    frames: UInt8[np.ndarray, "r t h w 3"], mean: UInt8[np.ndarray, "h w 3"], unit: float
):
    """Each kind of frames by name; blurs scale with resolution."""
    yield "true", frames
    sharp = frames.astype(np.float32)
    for sigma in (1, 2):
        spread = (0, 0, sigma * unit, sigma * unit, 0)
        yield f"blur_{sigma}", np.round(gaussian_filter(sharp, spread)).astype(np.uint8)
    yield "half_mean_image", np.round((sharp + mean) / 2).astype(np.uint8)


def _errors(
    frames: UInt8[np.ndarray, "r t h w 3"],
    truth: Truth,
    unit: np.ndarray,
    protocol: Protocol,
    instrument: Instrument,
) -> tuple[Estimate, Estimate, Estimate]:
    """Mean distance of found objects from the centroid of what is visible, px; the share of
    objects, true or invented, that are named right and near; and of objects in full sight, the
    share whose shape is told right."""
    tracks = instrument.track(frames)
    objects = score_objects(tracks, truth, protocol)
    near = objects.found & (objects.error <= NEAR * protocol.unit)

    def overall(total: np.ndarray, count: np.ndarray) -> Estimate:
        # All steps of a clip are one number here.
        both = (x.sum(1, keepdims=True).astype(np.float64) for x in (total, count))
        sums = (statistics.sums_by_unit(x, unit).total for x in both)
        return statistics.estimate(statistics.Sums(*sums), protocol.seed)

    error = overall((objects.error * objects.found).sum(2), objects.found.sum(2))
    identity = overall(near.sum(2), objects.asked.sum(2) + objects.invented)
    told = np.take_along_axis(tracks.shape, np.where(truth.present, truth.hue, 0), 2)
    whole = objects.found & (truth.visible >= WHOLE)
    return error, identity, overall((whole & (told == truth.shape)).sum(2), whole.sum(2))
