"""The twins data set as a `World`: which alone of evaluation, with `twins_scene` and
`twins_changes`, knows of `data_pipelines`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from data_pipelines import window
from data_pipelines.twins import open_source, project, render
from data_pipelines.twins.physics import WALL
from data_pipelines.twins.render import OCCLUDER_LABEL, PALETTE
from data_pipelines.twins.source import read_plan
from data_pipelines.twins.world import ARENA, get_world
from wm_jax.edit import KINDS, Edits
from wm_jax.errors import UserError
from wm_jax.evaluation import twins_changes, twins_scene
from wm_jax.evaluation.twins_scene import TRUTH, Episode, scenes_of
from wm_jax.evaluation.world import Changes, Clips, Drawn, Truth
from wm_jax.mesh import to_batch


@dataclasses.dataclass(frozen=True)
class TwinsWorld:
    """A twins world at one resolution.

    Args:
      name: of `data_pipelines.twins.world.WORLDS`.
      resolution: px.
      source: the episodes of a split (a dict of arrays each), given its name and the fields wanted.
      conditions: modalities that the model under test is told, as in ``config.data.conditions``.
    """

    name: str
    resolution: int
    source: Callable[[str, tuple[str, ...]], Sequence[Episode]]
    conditions: tuple[str, ...] = ()
    palette: np.ndarray = dataclasses.field(default_factory=lambda: PALETTE, repr=False)

    @property
    def interventions(self) -> tuple[str, ...]:
        """Kinds of interventions that change what episodes of this world differ in: where nothing
        falls and light and camera are still, these three are left alone."""
        still = ("light", "camera", "gravity") if not get_world(self.name).drifting else ()
        return tuple(kind for kind in KINDS if kind not in still)

    def clips(
        self,
        split: str,
        length: int,
        starts: tuple[int, ...],
        episodes: int,
        covered: bool = False,
    ) -> Clips:
        """Windows of the factual episodes of a split. Raises `UserError` if there are none, if they
        are too short, or of another resolution."""
        names = tuple(f"truth/{name}" for name in TRUTH)
        names += ("truth/segmentation",) if covered else ()
        told = tuple({*self.conditions, "camera", "light", "actions"})
        source = self.source(split, ("group", "branch", *window.fields(told), *names))
        cuts: list[dict[str, np.ndarray]] = []
        unit: list[int] = []
        begun: list[int] = []
        units = 0
        for index in range(len(source)):
            if units == episodes:
                break
            episode = source[index]
            if int(episode["branch"]) > 0:
                continue
            self._check(episode, length, split)
            for first in starts:
                if first + length <= len(episode["frames"]):
                    cuts.append(self._cut(episode, first, length, covered))
                    unit.append(units)
                    begun.append(first)
            units += 1
        if not cuts:
            raise UserError(f"the split '{split}' of {self.name} holds no episodes; build it anew.")
        joined = {name: np.stack([cut[name] for cut in cuts]) for name in cuts[0]}
        return _assemble(joined, np.array(unit), np.array(begun))

    def _check(self, episode: Episode, length: int, split: str) -> None:
        frames = len(episode["frames"])
        if frames < length:
            raise UserError(
                f"an episode of the split '{split}' has {frames} frames and a clip takes {length} "
                "(context and horizon); ask for a shorter --horizon, or --long-horizon of the "
                "temporal suite."
            )

    def _cut(
        self, episode: Episode, first: int, length: int, covered: bool
    ) -> dict[str, np.ndarray]:
        arrays = window.cut(window.trim(episode, self.conditions), first, length)
        part = slice(first, first + length)
        for name in ("visible_fraction", "centroid", "contact", "hue", "shape", "present"):
            arrays[f"truth/{name}"] = np.asarray(episode[f"truth/{name}"][part])
        arrays["scenes"] = scenes_of(episode)[part]
        if covered:
            arrays["covered"] = _covered(np.asarray(episode["truth/segmentation"][part]))
        arrays["hand_actions"] = np.asarray(episode["actions"][part], np.float32)
        return arrays

    def mean_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """Over up to 64 training episodes, every eighth frame."""
        source = self.source("train", ("frames",))
        count = min(64, len(source))
        if not count:
            raise UserError(f"the training split of {self.name} is empty; build it anew.")
        means = [np.asarray(source[i]["frames"][::8], np.float32).mean(0) for i in range(count)]
        return np.asarray(np.round(np.mean(means, axis=0)), np.uint8)

    def longest_hidden(self, share: float) -> int:
        """Over the training split: frames between two in which this share of an object is seen."""
        source = self.source("train", ("truth/present", "truth/visible_fraction"))
        longest = 0
        for index in range(len(source)):
            episode = source[index]
            seen = episode["truth/present"] & (episode["truth/visible_fraction"] >= share)
            for slot in range(seen.shape[1]):
                shown = np.flatnonzero(seen[:, slot])
                longest = max(longest, int(np.diff(shown).max(initial=1)) - 1)
        return longest

    def get(self, scenes: Float32[np.ndarray, "*lead k"], field: str) -> np.ndarray:
        """A field of some scenes."""
        return twins_scene.get(scenes, field)

    def put(self, scenes: Float32[np.ndarray, "*lead k"], **fields: np.ndarray) -> np.ndarray:
        """A copy of the scenes with these fields replaced."""
        return twins_scene.put(scenes, **fields)

    def typical(self, scenes: Float32[np.ndarray, "*lead k"]) -> np.ndarray | None:
        """The scenes with the middle of what this world draws in place of every object's mass,
        friction and restitution, which no frame shows before a contact; None where all have the
        same."""
        world = get_world(self.name)
        if world.rigid and len({*world.friction}) == len({*world.restitution}) == 1:
            return None
        mass, inertia = self.get(scenes, "mass"), self.get(scenes, "inertia")
        there = mass > 0
        values: dict[str, Any] = {"mass": 1.0, "inertia": inertia / np.where(there, mass, 1.0)}
        values |= {n: sum(getattr(world, n)) / 2 for n in ("friction", "restitution")}
        return self.put(scenes, **{name: np.where(there, x, 0.0) for name, x in values.items()})

    def to_world(self, pixels: np.ndarray, scenes: np.ndarray) -> np.ndarray:
        """Places in a frame (px) to world units."""
        camera = self.get(scenes, "camera")[..., None, :]
        half = ARENA / 2
        centred = pixels * (ARENA / self.resolution) - half
        return centred / np.exp(camera[..., 2:]) + half + camera[..., :2]

    def to_pixels(self, places: np.ndarray, scenes: np.ndarray) -> np.ndarray:
        """World units to px."""
        return project(places, self.get(scenes, "camera")[..., None, :], self.resolution)

    def advance(
        self, scenes: Float32[np.ndarray, "b k"], actions: Float32[np.ndarray, "b a"]
    ) -> Float32[np.ndarray, "b k"]:
        """The true scenes one frame later. Light and camera stay as they are: they follow a
        schedule, not the physics."""
        return self.future(scenes, actions[:, None])[:, 0]

    def future(
        self, scenes: Float32[np.ndarray, "r k"], actions: Float32[np.ndarray, "r t a"]
    ) -> Float32[np.ndarray, "r t k"]:
        """The true scenes of the next frames, under `advance`'s rules."""
        return np.stack([twins_scene.run(s, a) for s, a in zip(scenes, actions, strict=True)])

    def draw_changes(
        self,
        scenes: Float32[np.ndarray, "r k"],
        kind: str,
        split: str,
        rngs: Sequence[np.random.Generator],
    ) -> Changes:
        """An intervention of a kind for each scene."""
        return twins_changes.draw(self.name, scenes, kind, split, rngs)

    def apply(self, scenes: Float32[np.ndarray, "r k"], changes: Changes) -> np.ndarray:
        """The scenes after their changes."""
        return twins_changes.apply(scenes, changes)

    def edits(self, scenes: Float32[np.ndarray, "r k"], changes: Changes) -> Edits:
        """The changes as a model is told them."""
        return twins_changes.edits(scenes, changes)

    def sentences(
        self, scenes: Float32[np.ndarray, "r k"], changes: Changes, exact: bool = False
    ) -> tuple[str, ...]:
        """The changes in words, with all their numbers if ``exact``."""
        return twins_changes.sentences(scenes, changes, self.resolution if exact else None)

    def draw(self, scenes: Float32[np.ndarray, "r t k"]) -> Drawn:
        """Scenes as frames."""
        parts = [self._draw(scene) for scene in scenes]
        return Drawn(*(np.stack(field) for field in zip(*parts, strict=True)))

    def _draw(self, scenes: Float32[np.ndarray, "t k"]) -> Drawn:
        names = ("position", "angle", "hue", "shape", "hand", "light", "camera")
        states = {name: self.get(scenes, name) for name in names}
        states["present"] = states["hue"] >= 0
        # Of the last moment: an object that came in on the way has no size before.
        still = {name: self.get(scenes[-1], name) for name in ("radius", "depth", "looks")}
        drawn = render(
            states,
            occluders=twins_scene.real(self.get(scenes[0], "occluders")),
            resolution=self.resolution,
            **still,
        )
        return Drawn(drawn["frames"], drawn["visible_fraction"], drawn["centroid"])

    def render(self, scenes: Float32[np.ndarray, "b k"]) -> UInt8[np.ndarray, "b h w 3"]:
        """The frames of `draw`, of one moment."""
        return self.draw(scenes[:, None]).frames[:, 0]


def _assemble(arrays: dict[str, np.ndarray], unit: np.ndarray, begun: np.ndarray) -> Clips:
    contact = arrays["truth/contact"]
    truth = Truth(
        hue=arrays["truth/hue"],
        shape=arrays["truth/shape"],
        present=arrays["truth/present"],
        visible=arrays["truth/visible_fraction"],
        centroid=arrays["truth/centroid"],
        touching=np.any(contact, axis=-1),
        meeting=np.any(np.delete(contact, WALL, axis=-1), axis=-1),
    )
    return Clips(
        arrays["frames"],
        to_batch(arrays).conditions,
        unit,
        truth,
        arrays["scenes"],
        arrays["hand_actions"],
        arrays.get("covered"),
        begun,
    )


def _covered(labels: UInt8[np.ndarray, "t h w"]) -> Bool[np.ndarray, "t h w"]:
    """Where an object or the hand is, or beside: their edges cover less than half of a pixel."""
    own = (labels > 0) & (labels != OCCLUDER_LABEL)
    wide = own.copy()
    wide[:, 1:] |= own[:, :-1]
    wide[:, :-1] |= own[:, 1:]
    out = wide.copy()
    out[:, :, 1:] |= wide[:, :, :-1]
    out[:, :, :-1] |= wide[:, :, 1:]
    return out


def modalities_of(directory: str) -> tuple[str, ...]:
    """What clips of a built data set can tell a model. Raises `UserError` where there is none."""
    keys = get_world(read_plan(directory)["plan"]["world"]).keys
    return tuple(name for name in window.MODALITIES if keys or name != "discrete_actions")


def resolution_of(directory: str) -> int:
    """px of a built data set. Raises `UserError` where there is none."""
    return int(read_plan(directory)["plan"]["resolution"])


def open_world(directory: str, resolution: int, conditions: tuple[str, ...]) -> TwinsWorld:
    """The world of a built data set. Raises `UserError` where there is none, or of another size."""
    plan = read_plan(directory)["plan"]
    if plan["resolution"] != resolution:
        raise UserError(
            f"the data set {directory} is {plan['resolution']} px and the model takes "
            f"{resolution} px; give --data a data set of the model's resolution."
        )

    def source(split: str, fields: tuple[str, ...]) -> Sequence[Episode]:
        return open_source(directory, split, fields)

    return TwinsWorld(plan["world"], resolution, source, tuple(conditions))
