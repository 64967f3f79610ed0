"""What moves from outside: the hand's actions, the light's and the camera's drift.

All are fixed by the scene seed and blind to what happens, so every twin gets the same ones,
and the first 64 frames don't depend on how long the episode is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from data_pipelines.twins.scene import Scene
from data_pipelines.twins.world import ARENA, stream


def hand_actions(scene: Scene, length: int) -> Float[np.ndarray, "T 2"]:
    """Desired velocities of the hand, world units a frame, towards one random place after another.

    The hand's nominal path, not its true one, decides; where objects hold it up the two part.
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
        velocity = velocity + 0.3 * (wanted - velocity)
        place = place + velocity
        actions[t] = velocity
    return actions


def drift_at(scene: Scene, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Light (gain, gradient x, gradient y) and camera (pan x, pan y, log zoom) of a frame.

    Rows of `Scene.drift` are (base, amplitude, frequency, phase) of these six numbers.
    """
    base, amplitude, frequency, phase = scene.drift.T
    value = base + amplitude * np.sin(2 * np.pi * frequency * frame + phase)
    return value[:3], value[3:]
