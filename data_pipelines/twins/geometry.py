"""Shapes of equal area and the camera's projection.

A shape's `radius` is that of the circle of the same area. At angle 0 a square stands on its
side and a triangle points up; a positive angle turns clockwise on the screen (y is down).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from data_pipelines.twins.world import ARENA, Index

CIRCLE, SQUARE, TRIANGLE = 0, 1, 2

# Lengths for radius 1, from area = pi.
SQUARE_HALF = float(np.sqrt(np.pi) / 2)  # half a side
TRIANGLE_INNER = float(np.sqrt(np.pi / np.sqrt(27)))  # centre to side; the tip is twice as far


def unit_vector(direction: float | np.ndarray) -> np.ndarray:
    """(cos, sin) of an angle in radians, along a new last axis."""
    return np.stack([np.cos(direction), np.sin(direction)], -1)


def reach(shape: Index, radius: float) -> float:
    """Distance from the centre to the farthest point."""
    factor = (1.0, SQUARE_HALF * np.sqrt(2.0), 2 * TRIANGLE_INNER)[shape]
    return float(radius * factor)


def corners(shape: Index, radius: float) -> list[tuple[float, float]]:
    """Vertices at angle 0, around the centroid; a circle has none."""
    if shape == SQUARE:
        half = radius * SQUARE_HALF
        return [(-half, -half), (half, -half), (half, half), (-half, half)]
    if shape == TRIANGLE:
        inner = radius * TRIANGLE_INNER
        side = inner * float(np.sqrt(3.0))
        return [(0.0, -2 * inner), (side, inner), (-side, inner)]
    return []


def moment_of_inertia(shape: Index, radius: float, mass: float) -> float:
    """Of a uniform plate about its centroid."""
    return float(mass * radius**2 * (0.5, np.pi / 6, np.pi / np.sqrt(27))[shape])


def project(
    position: Float[np.ndarray, "*any 2"], camera: Float[np.ndarray, "*rest 3"], resolution: int
) -> Float[np.ndarray, "*all 2"]:
    """World units to px under a camera (pan x, pan y in world units, log zoom), broadcasting."""
    zoom = np.exp(camera[..., 2:3])
    centred = position - ARENA / 2 - camera[..., :2]
    return (centred * zoom + ARENA / 2) * (resolution / ARENA)
