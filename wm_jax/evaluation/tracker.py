"""The instrument: reads which hues are in a frame, and where, off the pixels alone.

No part of it is learned and it never sees the true state. A pixel's colour is projected onto the
plane orthogonal to grey. There a mixture of an object with any grey (background, occluder, hand, an
anti-aliased edge, grey light of any gain) keeps the object's *direction*, which names the hue, and
has a *length* proportional to the object's share of the pixel, which is the weight of the pixel in
the object's moments. Everything after the first threshold works on the coloured pixels only, a few
hundred a frame, over all frames at once.

A hue is present if its pixels are dense somewhere (in one block of `BLOCK` units) and weigh enough
in all. Density is what tells an object from the rim where two hues mix to a third, and from the
faint colour of a mean image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from wm_jax.naming import SQUARE, TRIANGLE

VERSION = "chromaticity-1"  # any change to what is read changes it

# Lengths are in world units (64 on a side), weights in shares of full colour.
GATE = 0.15  # least share of a hue's full colour for a pixel to count
BLOCK = 4.0  # side of the block in which an object must be dense
DENSITY = 0.25  # least mean weight in the densest block
MASS = 6.0  # least weight in all, in square units
REACH = 11.0  # pixels farther than this from the middle belong to something else
RIM = 0.5  # less dense than this share of two neighbours: the rim where their colours mix


_CHUNK_PIXELS = 64 * 64 * 64  # read at once, so that the coarse grids stay in cache


class Tracks(NamedTuple):
    """What was read. The hue axis is the palette's; positions are px from the top left corner,
    x then y, NaN where the hue is absent.

    present:   the hue is in the frame
    position:  centroid of its pixels
    mass:      their weight in px of full colour: the visible area under a light of gain 1
    shape:     index into `naming.SHAPE_NAMES`, -1 where the hue is absent; right only of objects in
               full sight
    spares:    further blobs of the same hue: an object that was doubled
    """

    present: Bool[np.ndarray, "f k"]
    position: Float32[np.ndarray, "f k 2"]
    mass: Float32[np.ndarray, "f k"]
    shape: Int[np.ndarray, "f k"]
    spares: Int[np.ndarray, "f k"]


class _Pixels(NamedTuple):
    """The coloured pixels of some frames: which (frame, hue) group, where, and their weight."""

    group: Int[np.ndarray, " n"]
    x: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    weight: Float32[np.ndarray, " n"]


class Instrument:
    """A tracker for objects of known, distinct hues on achromatic ground.

    Args:
      palette: linear RGB (k, 3) in [0, 1] of each hue under a light of gain 1.
      resolution: px on a side of the frames.
    """

    def __init__(self, palette: Float[np.ndarray, "k 3"], resolution: int):
        self.palette = np.asarray(palette, np.float32)
        self.resolution = resolution
        self.unit = resolution / 64  # px in a world unit
        chroma = self.palette - self.palette.mean(1, keepdims=True)
        length = np.linalg.norm(chroma, axis=1)
        if length.min() < 0.05:
            raise ValueError(f"Hue {int(length.argmin())} of the palette is grey: it has no hue.")
        # Projections onto these of an RGB pixel in 0..255: its length along each hue.
        self._directions = (chroma / length[:, None] / 255).T.astype(np.float32)
        self._length = length
        # A cheap test that no pixel of weight GATE fails: the spread of R, G and B in grey levels.
        spread = self.palette.max(1) - self.palette.min(1)
        self._gate = np.uint8(255 * GATE * spread.min() * 0.85)

    def track(self, frames: UInt8[np.ndarray, "*lead h w c"]) -> Tracks:
        """Reads every frame on its own. Axes before (h, w, c) are kept."""
        lead = frames.shape[:-3]
        flat = np.asarray(frames).reshape(-1, *frames.shape[-3:])
        size = max(1, _CHUNK_PIXELS // (self.resolution * self.resolution))
        starts = range(0, max(len(flat), 1), size)
        parts = [self._track(flat[start : start + size]) for start in starts]
        joined = (np.concatenate(field) for field in zip(*parts, strict=True))
        return Tracks(*(field.reshape(*lead, *field.shape[1:]) for field in joined))

    def _track(self, frames: UInt8[np.ndarray, "f h w c"]) -> Tracks:
        groups = len(frames) * len(self.palette)
        pixels = self._coloured(frames)
        seed, density = self._densest(pixels, groups)
        own, mass, position = self._gather(pixels, seed)
        outline = _shape(_Pixels(*(field[own] for field in pixels)), mass, position, density)
        present = (density >= DENSITY) & (mass >= MASS * self.unit**2)
        present &= ~self._is_rim(position, density, present)
        spares = self._spares(_Pixels(*(field[~own] for field in pixels)), present)
        position = np.where(present[:, None], position, np.nan).astype(np.float32)
        shape = (len(frames), len(self.palette))
        return Tracks(
            present.reshape(shape),
            position.reshape(*shape, 2),
            np.where(present, mass, 0).astype(np.float32).reshape(shape),
            np.where(present, outline, -1).reshape(shape),
            spares.reshape(shape),
        )

    def _is_rim(
        self,
        position: Float[np.ndarray, "g 2"],
        density: Float[np.ndarray, " g"],
        present: Bool[np.ndarray, " g"],
    ) -> Bool[np.ndarray, " g"]:
        """Where a hue is but the seam of two denser ones that touch."""
        hues = len(self.palette)
        place = np.where(present[:, None], position, np.inf).reshape(-1, hues, 2)
        place = np.where(np.isinf(place), np.arange(hues)[:, None] * 1e6, place)
        gap = np.linalg.norm(place[:, :, None] - place[:, None], axis=-1)
        dense = density.reshape(-1, hues)
        near = (gap > 0) & (gap < REACH * self.unit)
        denser = dense[:, :, None] < RIM * dense[:, None]
        return ((near & denser).sum(-1) >= 2).reshape(-1)

    def _spares(self, rest: _Pixels, present: Bool[np.ndarray, " g"]) -> Int[np.ndarray, " g"]:
        """How many more blobs of a hue are among the pixels that its first blob left (0 to 2)."""
        spares = np.zeros(len(present), np.int64)
        for _ in range(2):
            left = np.bincount(rest.group, rest.weight, len(present))
            rich = present & (left >= MASS * self.unit**2)
            if not rich.any():
                break
            kept = _Pixels(*(field[rich[rest.group]] for field in rest))
            rest = kept._replace(group=(np.cumsum(rich) - 1)[kept.group])
            seed, density = self._densest(rest, int(rich.sum()))
            own, mass, _ = self._gather(rest, seed)
            spares[rich] += (density >= DENSITY) & (mass >= MASS * self.unit**2)
            rest = _Pixels(*(field[~own] for field in kept))
        return spares

    def _coloured(self, frames: UInt8[np.ndarray, "f h w c"]) -> _Pixels:
        red, green, blue = (np.ascontiguousarray(frames[..., c]) for c in range(3))
        spread = np.maximum(np.maximum(red, green), blue)
        spread -= np.minimum(np.minimum(red, green), blue)
        index = np.flatnonzero(spread >= self._gate)
        colour = frames.reshape(-1, 3)[index].astype(np.float32)
        along = colour @ self._directions
        hue = along.argmax(1)
        weight = along[np.arange(len(hue)), hue] / self._length[hue]
        keep = weight >= GATE
        index, hue, weight = index[keep], hue[keep], weight[keep]
        height, width = frames.shape[1:3]
        frame, place = np.divmod(index, height * width)
        y, x = np.divmod(place, width)
        group = frame * len(self.palette) + hue
        half = np.float32(0.5)
        return _Pixels(group, x.astype(np.float32) + half, y.astype(np.float32) + half, weight)

    def _densest(
        self, pixels: _Pixels, groups: int
    ) -> tuple[Float[np.ndarray, "g 2"], Float[np.ndarray, " g"]]:
        """Middle of each group's densest block, and the mean weight of a pixel in there.

        Blocks overlap by half: they are 2x2 cells of a coarse grid.
        """
        cell = BLOCK / 2 * self.unit
        side = int(np.ceil(self.resolution / cell))
        where = (pixels.y / cell).astype(np.int64) * side + (pixels.x / cell).astype(np.int64)
        bins = pixels.group * side * side + where
        cells = np.bincount(bins, pixels.weight, groups * side * side).reshape(groups, side, side)
        rows = cells[:, 1:] + cells[:, :-1]
        blocks = (rows[:, :, 1:] + rows[:, :, :-1]).reshape(groups, -1)
        best = blocks.argmax(1)
        density = blocks[np.arange(groups), best] / (2 * cell) ** 2
        y, x = np.divmod(best, side - 1)
        return (np.stack([x, y], -1) + 1) * cell, density

    def _gather(
        self, pixels: _Pixels, seed: Float[np.ndarray, "g 2"]
    ) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " g"], Float[np.ndarray, "g 2"]]:
        """Pixels within `REACH` of the middle of their group, its mass and its centroid."""
        middle = seed
        for _ in range(2):  # once from the densest block, once more from the centroid found there
            away_x = pixels.x - middle[pixels.group, 0]
            away_y = pixels.y - middle[pixels.group, 1]
            own = away_x**2 + away_y**2 <= (REACH * self.unit) ** 2
            group, weight = pixels.group[own], pixels.weight[own]
            mass = np.bincount(group, weight, len(seed)).astype(np.float64)  # int if empty
            safe = np.maximum(mass, 1e-6)
            x = np.bincount(group, weight * pixels.x[own], len(seed)) / safe
            y = np.bincount(group, weight * pixels.y[own], len(seed)) / safe
            middle = np.stack([x, y], -1)
        return own, mass, middle


def _shape(
    pixels: _Pixels,
    mass: Float[np.ndarray, " g"],
    middle: Float[np.ndarray, "g 2"],
    density: Float[np.ndarray, " g"],
) -> Int[np.ndarray, " g"]:
    """Each group's index into `naming.SHAPE_NAMES`, by the moments of z^3 and z^4 with z = x + iy
    from the middle. A triangle has the third, a square the fourth, a circle none. Both are blind to
    rotation and, since z^m is harmonic, to any round blur; ``density`` takes a dim light out."""
    x = pixels.x - middle[pixels.group, 0]
    y = pixels.y - middle[pixels.group, 1]
    squared = (x + 1j * y) ** 2

    def moment(power: np.ndarray, order: int) -> Float[np.ndarray, " g"]:
        weighted = pixels.weight * power
        real = np.bincount(pixels.group, weighted.real, len(mass))
        imaginary = np.bincount(pixels.group, weighted.imag, len(mass))
        size = np.hypot(real, imaginary) / np.maximum(mass, 1e-6) ** (1 + order / 2)
        return size * density ** (order / 2)

    third = moment(squared * (x + 1j * y), 3)
    fourth = moment(squared * squared, 4)
    return np.where(third > TRIANGLE, 2, np.where(fourth > SQUARE, 1, 0))
