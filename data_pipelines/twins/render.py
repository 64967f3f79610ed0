"""Drawing: states to frames, with what of every object can be seen.

Light is linear and grey, and nothing clips: reflectances stay below 0.77 and the light's gain
below 1.28. A pixel's coverage by an edge is 0.5 - d clipped to [0, 1], with d the signed distance
in px from its centre to the edge, and by a shape the product over its edges: exact for bars and
upright squares. Layers go front to back: bars, objects by depth, hand, background. All frames of
a clip are drawn together, one object at a time, on a patch around it.

`looks` (15,): greys of background, bars and hand, then three gratings of the background, each
(amplitude, wave number x, wave number y in radians a world unit, phase).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_pipelines.twins import geometry
from data_pipelines.twins.geometry import project
from data_pipelines.twins.world import ARENA, HUES, SHAPES

HAND_LABEL, OCCLUDER_LABEL = 254, 255  # in the segmentation; objects are slot + 1
_CHUNK_PIXELS = 64 * 64 * 64  # frames drawn at once, so that buffers stay in cache
_OUTSIDE = 0.5  # grey beyond the walls, relative to the background


def _palette() -> np.ndarray:
    """Linear RGB (9, 3) of the hues: saturation 0.9, value 0.77."""
    rows = []
    for k in range(len(HUES)):
        ramp = [abs((k * 40 / 60 + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
        rows.append([0.77 * (1 - 0.9 * (1 - min(max(v, 0.0), 1.0))) for v in ramp])
    return np.array(rows, np.float32)


PALETTE = _palette()


def render(
    states: Mapping[str, np.ndarray],
    *,
    radius: np.ndarray,
    depth: np.ndarray,
    occluders: np.ndarray,
    looks: np.ndarray,
    resolution: int,
) -> dict[str, np.ndarray]:
    """Draw T frames.

    Args:
      states: `position` (T,N,2), `angle`, `hue`, `shape`, `present` (T,N), `hand`, `light`,
        `camera` (T,3), as `Simulator.state` gives them, stacked.
      radius, depth: (N,); occluders (K,4); looks (15,).
      resolution: px on a side.

    Returns:
      frames uint8 (T,H,W,3); segmentation uint8 (T,H,W), the label that covers more than half
      of a pixel; visible_fraction float32 (T,N); centroid float32 (T,N,2) of what can be seen,
      in px, nan where nothing can.
    """
    total = len(states["position"])
    chunk = max(1, _CHUNK_PIXELS // resolution**2)
    parts = []
    for start in range(0, total, chunk):
        part = {k: v[start : start + chunk] for k, v in states.items()}
        parts.append(_Canvas(part, looks, resolution).draw(radius, depth, occluders))
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


class _Canvas:
    """Buffers of one chunk of T frames."""

    def __init__(self, states: Mapping[str, np.ndarray], looks: np.ndarray, resolution: int):
        self.states, self.looks, self.resolution = states, looks.astype(np.float32), resolution
        self.count = len(states["position"])
        size = (self.count, resolution, resolution)
        self.scale = (np.exp(states["camera"][:, 2]) * (resolution / ARENA)).astype(np.float32)
        self.image = np.zeros((*size, 3), np.float32)
        self.open = np.ones(size, np.float32)  # share of the pixel not yet covered
        self.labels = np.zeros(size, np.uint8)

    def draw(self, radius, depth, occluders) -> dict[str, np.ndarray]:
        n = len(radius)
        visible = np.zeros((self.count, n), np.float32)
        centroid = np.full((self.count, n, 2), np.nan, np.float32)
        self._bars(occluders)
        for slot in np.argsort(-depth):
            for shape in range(len(SHAPES)):
                hits = self.states["present"][:, slot] & (self.states["shape"][:, slot] == shape)
                times = np.flatnonzero(hits)
                if len(times):
                    colour = PALETTE[self.states["hue"][times, slot]]
                    seen, middle = self._body(
                        times, self.states["position"][times, slot],
                        self.states["angle"][times, slot], shape, float(radius[slot]), colour,
                        slot + 1,
                    )  # fmt: skip
                    visible[times, slot], centroid[times, slot] = seen, middle
        hand = self.states["hand"]
        if hand[0, 2] > 0:
            grey = np.full((self.count, 3), self.looks[2], np.float32)
            everywhen = np.arange(self.count)
            self._body(
                everywhen, hand[:, :2], np.zeros(self.count), 0, float(hand[0, 2]), grey,
                HAND_LABEL,
            )  # fmt: skip
        self._background()
        self._light()
        frames = (self.image * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return {
            "frames": frames, "segmentation": self.labels,
            "visible_fraction": visible, "centroid": centroid,
        }  # fmt: skip

    def _span(self, low: float, high: float, axis: int) -> np.ndarray:
        """Exact coverage (T, resolution) of pixel columns (axis 0) or rows by [low, high]."""
        camera = self.states["camera"]
        edges = []
        for value in (low, high):
            point = np.full((self.count, 2), value)
            edges.append(project(point, camera, self.resolution)[:, axis, None])
        cell = np.arange(self.resolution)
        cover = np.minimum(cell + 1, edges[1]) - np.maximum(cell, edges[0])
        return np.clip(cover, 0, 1).astype(np.float32)

    def _bars(self, occluders: np.ndarray) -> None:
        for x0, y0, x1, y1 in occluders:
            cover = self._span(y0, y1, 1)[:, :, None] * self._span(x0, x1, 0)[:, None, :]
            self.image += (self.open * cover * self.looks[1])[..., None]
            self.open *= 1 - cover
            self.labels[cover > 0.5] = OCCLUDER_LABEL

    def _body(self, times, position, angle, shape, radius, colour, label):
        """Draw one object in the frames `times`; visible fraction (t,) and centroid (t,2)."""
        centre = project(position, self.states["camera"][times], self.resolution)
        centre = centre.astype(np.float32)
        scale = self.scale[times]
        far = geometry.reach(shape, radius) * float(scale.max()) + 1.0
        side = min(self.resolution, int(np.ceil(2 * far)) + 1)
        corner = np.floor(centre - np.float32(far)).astype(np.int32)
        corner = np.clip(corner, 0, self.resolution - side)  # the patch stays inside the image
        cell = np.arange(side, dtype=np.int32)
        columns, rows = corner[:, :1] + cell, corner[:, 1:] + cell
        dx = columns.astype(np.float32) + np.float32(0.5) - centre[:, :1]
        dy = rows.astype(np.float32) + np.float32(0.5) - centre[:, 1:]
        cover = _coverage(dx, dy, angle, shape, radius * scale)
        where = (times[:, None, None], rows[:, :, None], columns[:, None, :])
        still_open = self.open[where]
        weight = cover * still_open
        self.image[where] += weight[..., None] * colour[:, None, None, :]
        self.open[where] = still_open - weight
        patch = self.labels[where]
        patch[weight > 0.5] = label
        self.labels[where] = patch
        inside = np.all((centre > far) & (centre < self.resolution - far), axis=1)
        whole = cover.sum((1, 2))
        area = np.float32(np.pi) * np.square(np.float32(radius) * scale)
        whole = np.where(inside, whole, np.maximum(whole, area))
        by_column, by_row = weight.sum(1), weight.sum(2)
        mass = by_row.sum(1)
        seen = mass > 1e-3
        safe = np.where(seen, mass, 1)
        middle = np.stack([(by_column * dx).sum(1), (by_row * dy).sum(1)], -1) / safe[:, None]
        middle = np.where(seen[:, None], middle + centre, np.nan)
        return np.where(seen, np.minimum(mass / whole, 1), 0), middle

    def _background(self) -> None:
        camera, grey = self.states["camera"], self.looks[0]
        ground = np.full((self.count, self.resolution, self.resolution), grey, np.float32)
        cell = (np.arange(self.resolution) + 0.5) * (ARENA / self.resolution) - ARENA / 2
        zoom = np.exp(camera[:, 2:3])
        x, y = (cell / zoom + ARENA / 2 + camera[:, k : k + 1] for k in (0, 1))
        for amplitude, kx, ky, phase in self.looks[3:].reshape(3, 4):
            if amplitude:  # sin(a + b) = sin a cos b + cos a sin b, with a of x and b of y
                a, b = kx * x, ky * y + phase
                sin_a, cos_a = np.sin(a).astype(np.float32), np.cos(a).astype(np.float32)
                sin_b = (amplitude * np.sin(b)).astype(np.float32)
                cos_b = (amplitude * np.cos(b)).astype(np.float32)
                ground += cos_b[:, :, None] * sin_a[:, None, :]
                ground += sin_b[:, :, None] * cos_a[:, None, :]
        if np.any(camera):  # otherwise the arena fills the image
            inside = self._span(0.0, ARENA, 1)[:, :, None] * self._span(0.0, ARENA, 0)[:, None, :]
            ground *= np.float32(_OUTSIDE) + np.float32(1 - _OUTSIDE) * inside
        self.image += (ground * self.open)[..., None]

    def _light(self) -> None:
        light = self.states["light"].astype(np.float32)
        if np.all(light == np.array([1, 0, 0], np.float32)):
            return
        cell = ((np.arange(self.resolution) + 0.5) * 2 / self.resolution - 1).astype(np.float32)
        gain, slope_x, slope_y = (light[:, k, None, None] for k in range(3))
        field = gain * (1 + slope_x * cell[None, None, :] + slope_y * cell[None, :, None])
        self.image *= field[..., None]


def _coverage(dx, dy, angle, shape, radius_px) -> np.ndarray:
    """Share of each pixel (t, rows, columns) inside the shape."""
    x, y = dx[:, None, :], dy[:, :, None]
    if shape == geometry.CIRCLE:
        return _inside(np.sqrt(x * x + y * y), radius_px[:, None, None])
    cos = np.cos(angle).astype(np.float32)[:, None, None]
    sin = np.sin(angle).astype(np.float32)[:, None, None]
    across = np.abs(cos * x + sin * y)
    down = cos * y - sin * x
    if shape == geometry.SQUARE:
        half = (radius_px * np.float32(geometry.SQUARE_HALF))[:, None, None]
        return _inside(across, half) * _inside(np.abs(down), half)
    inner = (radius_px * np.float32(geometry.TRIANGLE_INNER))[:, None, None]
    slanted = np.float32(np.sqrt(3) / 2) * across - np.float32(0.5) * down
    return _inside(down, inner) * _inside(slanted, inner)


def _inside(distance: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Coverage of a pixel by the half plane up to `limit`, px."""
    return np.clip(np.float32(0.5) + limit - distance, 0, 1)
