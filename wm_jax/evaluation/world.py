"""What evaluation needs of a world: clips with their truth, a simulator, a renderer.

Evaluation knows this interface and no data set. A *scene* is the whole true state of one frame as a
vector of float32, so that it can pass through a model's state; its named fields are read and
replaced with `World.get` and `World.put`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from wm_jax.edit import Edits
from wm_jax.shapes import Conditions, Signal, no_conditions


class Truth(NamedTuple):
    """The true state of every frame of some clips; n object slots, of which some are empty.

    centroid: of what can be seen of an object, px, x then y; NaN where nothing can
    visible:  share of the object that can be seen, 0 in empty slots
    touching: it touched an object, a wall or the hand since the frame before
    meeting:  it touched something with a mass, so not a wall
    """

    hue: Int[np.ndarray, "r t n"]
    shape: Int[np.ndarray, "r t n"]
    present: Bool[np.ndarray, "r t n"]
    visible: Float32[np.ndarray, "r t n"]
    centroid: Float32[np.ndarray, "r t n 2"]
    touching: Bool[np.ndarray, "r t n"]
    meeting: Bool[np.ndarray, "r t n"]


class Clips(NamedTuple):
    """Windows of test episodes: context and horizon, with what a model is told and the truth.

    unit:   the episode (or group of twins) that a clip is cut from: the unit of the bootstrap
    scenes: true scenes, for the baselines that are told things
    actions: of the hand, for them too (``conditions`` hold only what the model is told)
    covered: pixels with an object or the hand on them or beside them, where that was asked for
    start:  the frame of its episode at which a clip begins
    """

    frames: UInt8[np.ndarray, "r t h w 3"]
    conditions: Conditions
    unit: Int[np.ndarray, " r"]
    truth: Truth
    scenes: Float32[np.ndarray, "r t k"]
    actions: Float32[np.ndarray, "r t a"]
    covered: Bool[np.ndarray, "r t h w"] | None = None
    start: Int[np.ndarray, " r"] | None = None


def bare_clips(
    frames: UInt8[np.ndarray, "r t h w 3"],
    length: int,
    actions: Signal | None = None,
    covered: Bool[np.ndarray, "r t h w"] | None = None,
    discrete_actions: Signal | None = None,
) -> Clips:
    """Clips of ``length`` steps of which nothing is known but frames, of as many steps as there
    are, and the actions if any are told."""
    count = len(frames)
    none = np.zeros((count, length, 0))
    empty = none.astype(np.float32)
    whole, flag = none.astype(int), none.astype(bool)
    places = np.zeros((count, length, 0, 2), np.float32)
    truth = Truth(whole, whole, flag, empty, places, flag, flag)
    said = no_conditions(count, length)
    given = {"actions": actions, "discrete_actions": discrete_actions}
    said = said._replace(**{name: x for name, x in given.items() if x is not None})
    start = np.zeros(count, int)
    return Clips(frames, said, np.arange(count), truth, empty, empty, covered, start)


class Changes(NamedTuple):
    """One intervention of a ``kind`` (see `wm_jax.edit`) in each of some scenes.

    valid:  whether the scene allows one
    target: the object's slot; -1 of kinds that mean none
    params: what the world makes of it, in its own units
    """

    kind: str
    valid: Bool[np.ndarray, " r"]
    target: Int[np.ndarray, " r"]
    params: Float32[np.ndarray, "r p"]


class Drawn(NamedTuple):
    """Scenes as frames, and what of each object can be seen in them (see `Truth`)."""

    frames: UInt8[np.ndarray, "r t h w 3"]
    visible: Float32[np.ndarray, "r t n"]
    centroid: Float32[np.ndarray, "r t n 2"]


@runtime_checkable
class World(Protocol):
    """A world under test. Positions and velocities of scenes are in world units (64 on a side)."""

    @property
    def name(self) -> str: ...

    @property
    def resolution(self) -> int: ...

    @property
    def interventions(self) -> tuple[str, ...]:
        """Kinds of interventions that are made here, of `wm_jax.edit.KINDS`."""
        ...

    @property
    def palette(self) -> Float32[np.ndarray, "k 3"]:
        """Linear RGB of each hue, as the `Instrument` wants it."""
        ...

    def clips(
        self,
        split: str,
        length: int,
        starts: tuple[int, ...],
        episodes: int,
        covered: bool = False,
    ) -> Clips:
        """Windows of ``length`` frames at ``starts`` of the first ``episodes`` test episodes."""
        ...

    def longest_hidden(self, share: float) -> int:
        """For how many frames the training split shows less than ``share`` of anything, at most."""
        ...

    def mean_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """The mean frame of the training split."""
        ...

    def get(self, scenes: Float32[np.ndarray, "*lead k"], field: str) -> np.ndarray:
        """A field of some scenes, for example ``position`` (..., n, 2)."""
        ...

    def put(self, scenes: Float32[np.ndarray, "*lead k"], **fields: np.ndarray) -> np.ndarray:
        """A copy of the scenes with these fields replaced."""
        ...

    def to_world(
        self, pixels: Float32[np.ndarray, "*lead n 2"], scenes: Float32[np.ndarray, "*lead k"]
    ) -> np.ndarray:
        """Places in a frame (px) to world units, under the scene's camera."""
        ...

    def to_pixels(
        self, places: Float32[np.ndarray, "*lead n 2"], scenes: Float32[np.ndarray, "*lead k"]
    ) -> np.ndarray:
        """The inverse of `to_world`."""
        ...

    def advance(
        self, scenes: Float32[np.ndarray, "b k"], actions: Float32[np.ndarray, "b a"]
    ) -> Float32[np.ndarray, "b k"]:
        """The true scenes one frame later."""
        ...

    def future(
        self, scenes: Float32[np.ndarray, "b k"], actions: Float32[np.ndarray, "b t a"]
    ) -> Float32[np.ndarray, "b t k"]:
        """The true scenes of the next frames; light and camera stay as they are."""
        ...

    def draw_changes(
        self,
        scenes: Float32[np.ndarray, "b k"],
        kind: str,
        split: str,
        rngs: Sequence[np.random.Generator],
    ) -> Changes:
        """An intervention of this kind for each scene, drawn with the generator of its place, from
        the ranges of the split."""
        ...

    def apply(
        self, scenes: Float32[np.ndarray, "b k"], changes: Changes
    ) -> Float32[np.ndarray, "b k"]:
        """The scenes after their changes, no time later. A change of what is not there does
        nothing."""
        ...

    def edits(self, scenes: Float32[np.ndarray, "b k"], changes: Changes) -> Edits:
        """The changes as a model is told them."""
        ...

    def sentences(
        self, scenes: Float32[np.ndarray, "b k"], changes: Changes, exact: bool = False
    ) -> tuple[str, ...]:
        """The changes in words, with all their numbers if ``exact``; '' where a scene allowed
        none."""
        ...

    def draw(self, scenes: Float32[np.ndarray, "r t k"]) -> Drawn:
        """Scenes as frames."""
        ...

    def render(self, scenes: Float32[np.ndarray, "b k"]) -> UInt8[np.ndarray, "b h w 3"]:
        """The frames of `draw`, of one moment."""
        ...
