"""What moves from outside: the hand's actions, the light's and the camera's drift.

All are fixed by the scene seed and blind to what happens, so every twin gets the same ones,
and the first 64 frames don't depend on how long the episode is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.twins.scene import Scene
from data_pipelines.twins.world import ARENA, stream

_HALF = 0.5**0.5
#: Ways that a hand on keys goes, shares of its speed: it rests, and goes right, down right, down …
KEYS = np.array(
    [(0, 0), (1, 0), (_HALF, _HALF), (0, 1), (-_HALF, _HALF), (-1, 0), (-_HALF, -_HALF), (0, -1),
     (_HALF, -_HALF)]
)  # fmt: skip
HELD = 4  # frames that a key is held at least


def hand_actions(scene: Scene, length: int) -> Float[np.ndarray, "T 2"]:
    """Desired velocities of the hand, world units a frame, towards one random place after another.

    The hand's nominal path, not its true one, decides; where objects hold it up the two part. On
    keys it goes the way of the nearest key, and holds that for `HELD` frames.
    """
    actions = np.zeros((length, 2), np.float32)
    if not scene.hand[2]:
        return actions
    rng = stream(scene.seed, "actions")
    place, velocity = scene.hand[:2].copy(), np.zeros(2)
    goal, until = place, 0
    for t in range(length):
        if t >= until:
            goal = rng.uniform(6.0, ARENA - 6.0, 2)
            until = t + int(rng.integers(12, 33))
        wanted = 0.15 * (goal - place)
        wanted *= min(1.0, scene.world.hand_speed / max(float(np.hypot(*wanted)), 1e-9))
        if not scene.world.keys:
            velocity = velocity + 0.3 * (wanted - velocity)
        elif t % HELD == 0:
            speed = scene.world.hand_speed
            velocity = speed * KEYS[nearest_key(wanted, speed)]
        place = place + velocity
        actions[t] = velocity
    return actions


def nearest_key(actions: Float[np.ndarray, "*lead 2"], speed: float) -> Int[np.ndarray, "*lead"]:
    """Which of `KEYS` comes closest to these velocities, of a hand that goes at ``speed``."""
    away = np.linalg.norm(np.asarray(actions)[..., None, :] - speed * KEYS, axis=-1)
    return np.asarray(away.argmin(-1), np.int32)


def drift_at(scene: Scene, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Light (gain, gradient x, gradient y) and camera (pan x, pan y, log zoom) of a frame.

    Rows of `Scene.drift` are (base, amplitude, frequency, phase) of these six numbers.
    """
    base, amplitude, frequency, phase = scene.drift.T
    value = base + amplitude * np.sin(2 * np.pi * frequency * frame + phase)
    return value[:3], value[3:]
