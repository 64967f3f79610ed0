"""Windows that double as a run goes."""

import numpy as np

from wm_jax import curriculum, shapes
from wm_jax.config import base_config


def test_windows_double_at_the_given_shares_and_end_whole():
    config = base_config()
    config.data.window = 48
    config.train.window_doublings = (0.4, 0.7)
    stages = curriculum.stages(config)
    assert stages == [(0.0, 12), (0.4, 24), (0.7, 48)]
    windows = [curriculum.stage_at(stages, step, 10) for step in range(10)]
    assert windows == [12, 12, 12, 12, 24, 24, 24, 48, 48, 48]


def test_a_cut_keeps_frames_in_order_and_streams_apart():
    frames = np.arange(2 * 6, dtype=np.uint8).reshape(2, 6, 1, 1, 1).repeat(3, -1)
    flags = np.zeros((2, 6), bool)
    batch = shapes.Batch(frames, flags, ~flags, shapes.no_conditions(2, 6))
    cut = curriculum.cut(batch, 3)
    assert cut.frames[..., 0].reshape(4, 3).tolist() == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],
    ]
    assert cut.conditions.actions.value.shape[:2] == (4, 3)
