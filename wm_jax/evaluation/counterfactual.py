"""Counterfactual twins of clips: the same past, one named change, both futures simulated.

They are made from the true scene at the end of a clip's context, with the interventions of the data
set, so that any clip has twins of every kind, whether or not the data set holds them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int

from wm_jax.edit import KINDS, TOLD, Edits
from wm_jax.evaluation import pixel
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Changes, Clips, Truth, World


class Stage(NamedTuple):
    """What is done to every clip after ``at`` frames of the horizon: as the world makes it, as a
    model is told it, by how much it changes light or camera, where it is one of these, in words
    ('' where there is nothing to do) and in ``exact`` ones, with all its numbers, and the ids of
    words that a model is told in place of all that (`wm_jax.words`; None: it is not)."""

    at: int
    changes: Changes
    edits: Edits
    told: Float32[np.ndarray, "r 3"]
    words: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    said: Float32[np.ndarray, "r 32"] | None = None


@dataclasses.dataclass(frozen=True)
class Twins:
    """Twins of some clips (r), by one scenario.

    clips:  the past of the clips, and the twin's future
    stages: what was done; and ``shuffled``, the same kinds drawn anew
    differs: where the twin counts, by horizon step
    span:   last horizon step at which its future is predictable
    asked:  of each clip what `adherence` reads, where a sentence says it; None: nothing is asked
    """

    name: str
    stages: tuple[Stage, ...]
    shuffled: tuple[Stage, ...]
    clips: Clips
    differs: Bool[np.ndarray, "r t"]
    span: Int[np.ndarray, " r"]
    asked: Sequence[Any] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(stage.changes.kind for stage in self.stages)

    def edited(self) -> Bool[np.ndarray, "r n"]:
        """Which objects were meant by an edit."""
        slots = np.arange(self.clips.truth.hue.shape[-1])
        meant = [stage.changes.target[:, None] == slots for stage in self.stages]
        return np.any(meant, axis=0)


class Scenario(NamedTuple):
    """A name, and (frame of the horizon, kind, strength) of each change; kind 'back' undoes the
    first."""

    name: str
    changes: tuple[tuple[int, str, float], ...]


def scenarios(protocol: CausalProtocol) -> list[Scenario]:
    """Every kind alone, pushes of other strengths, a sequence, and an edit undone."""
    out = [Scenario(kind, ((0, kind, 1.0),)) for kind in protocol.kinds]
    if "push" in protocol.kinds:
        out += [Scenario(f"push_x{dose:g}", ((0, "push", dose),)) for dose in protocol.doses]
    if protocol.sequence and {kind for _, kind in protocol.sequence} <= set(protocol.kinds):
        out.append(Scenario("sequence", tuple((at, kind, 1.0) for at, kind in protocol.sequence)))
    if "recolour" in protocol.kinds:
        back = (protocol.undone_after, "back", 1.0)
        out.append(Scenario("undone", ((0, "recolour", 1.0), back)))
    return [s for s in out if s.changes[-1][0] + protocol.oracle_frames < protocol.horizon]


def factual(clips: Clips, world: World, protocol: CausalProtocol) -> Clips:
    """The clips with the future simulated anew, from the same scene as every twin's."""
    scene = clips.scenes[:, protocol.context - 1]
    return with_future(clips, play(scene, (), clips, world, protocol), world, protocol)


def acted_otherwise(facts: Clips, world: World, protocol: CausalProtocol) -> Clips | None:
    """The clips with the actions of another clip from the end of the context on, and what then
    happens; None where there is no hand to act."""
    start = facts.scenes[:, protocol.context - 1]
    if len(start) < 2 or not (world.get(start, "hand")[:, 2] > 0).any():
        return None
    first = protocol.context - 1  # whose action acts on the first frame of the horizon

    def other(x: Any) -> Any:
        x = np.array(x)
        x[:, first:] = np.roll(x[:, first:], 1, axis=0)
        return x

    told = facts.conditions
    for name in ("actions", "discrete_actions"):
        signal = getattr(told, name)
        told = told._replace(**{name: signal._replace(value=other(signal.value))})
    clips = facts._replace(actions=other(facts.actions), conditions=told)
    return with_future(clips, play(start, (), clips, world, protocol), world, protocol)


def make(
    scenario: Scenario,
    facts: Clips,
    world: World,
    protocol: CausalProtocol,
    error: float,
    ahead: Int[np.ndarray, " r"] | None = None,
) -> Twins:
    """The twins of ``facts`` (from `factual`); ``error`` is the instrument's, px (see `seen_by`),
    ``ahead`` the `span` of the facts, which is the same for all scenarios (None: found here).

    Intervention i of clip r is drawn from a stream of its own, so it is the same in every run.
    """
    start = facts.scenes[:, protocol.context - 1]
    stages = _stages(scenario, start, facts, world, protocol, draw=0)
    shuffled = _stages(scenario, start, facts, world, protocol, draw=1)
    twin = with_future(facts, play(start, stages, facts, world, protocol), world, protocol)
    valid = np.all([s.changes.valid for s in (*stages, *shuffled)], axis=0)
    differs = _differs(facts, twin, scenario, world, protocol) & valid[:, None]
    if ahead is None:
        ahead = span(start, (), facts, facts, world, protocol, error)
    both = np.minimum(ahead, span(start, stages, facts, twin, world, protocol, error))
    return Twins(scenario.name, stages, shuffled, twin, differs, both)


def play(
    start: Float32[np.ndarray, "r k"],
    stages: Sequence[Stage],
    clips: Clips,
    world: World,
    protocol: CausalProtocol,
) -> Float32[np.ndarray, "r t k"]:
    """The horizon's scenes from one at the end of the context, with these changes. Light and camera
    follow the clips' own schedule, from which a change may set them off."""
    cuts = [0, *sorted({stage.at for stage in stages} - {0}), protocol.horizon]
    offsets = {name: np.zeros((len(start), 3), np.float32) for name in TOLD.values()}
    scene, parts = start, []
    for first, end in itertools.pairwise(cuts):
        for stage in (stage for stage in stages if stage.at == first):
            changed = world.apply(scene, stage.changes)
            for name in offsets:
                offsets[name] = offsets[name] + world.get(changed, name) - world.get(scene, name)
            scene = changed
        now = slice(protocol.context + first, protocol.context + end)
        future = world.future(scene, clips.actions[:, now.start - 1 : now.stop - 1])
        told = clips.scenes[:, now]
        schedule = {n: world.get(told, n) + by[:, None] for n, by in offsets.items()}
        parts.append(world.put(future, **schedule))
        scene = parts[-1][:, -1]
    return np.concatenate(parts, 1)


def with_future(
    clips: Clips, scenes: Float32[np.ndarray, "r t k"], world: World, protocol: CausalProtocol
) -> Clips:
    """The clips with another future; a model that is told light and camera is told its own."""
    drawn = world.draw(scenes)
    context = protocol.context
    hue, shape = (world.get(scenes, name) for name in ("hue", "shape"))
    untold = np.zeros(hue.shape, bool)
    future = Truth(hue, shape, hue >= 0, drawn.visible, drawn.centroid, untold, untold)
    past = jax.tree.map(lambda x: x[:, :context], clips.truth)
    join = lambda a, b: np.concatenate([a, b], 1)  # noqa: E731
    conditions = clips.conditions
    for name in TOLD.values():
        signal = getattr(conditions, name)
        value = join(np.asarray(signal.value)[:, :context], world.get(scenes, name))
        value = np.where(np.asarray(signal.mask)[..., None], value, signal.value)
        conditions = conditions._replace(**{name: signal._replace(value=value)})
    return clips._replace(
        frames=join(clips.frames[:, :context], drawn.frames),
        conditions=conditions,
        truth=jax.tree.map(join, past, future),
        scenes=join(clips.scenes[:, :context], scenes),
        covered=None,
    )


def seen_by(instrument: Instrument, clips: Clips, protocol: CausalProtocol) -> float:
    """The instrument's own error on the contexts: standard deviation along an axis, px."""
    truth = jax.tree.map(lambda x: x[:, : protocol.context], clips.truth)
    tracks = instrument.track(clips.frames[:, : protocol.context])
    objects = score_objects(tracks, truth, protocol)
    good = objects.found & (objects.error < protocol.match)
    return float(np.sqrt(np.square(objects.error[good]).mean() / 2)) if good.any() else 0.0


def displacement(
    first: Clips, second: Clips, world: World, protocol: CausalProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """How far apart objects truly are in the horizons of two futures, px (r, t, n); and where they
    are in both."""
    places = []
    for clips in (first, second):
        scenes = clips.scenes[:, protocol.context :]
        places.append(world.to_pixels(world.get(scenes, "position"), scenes))
    there = [c.truth.present[:, protocol.context :] for c in (first, second)]
    far = np.linalg.norm(places[0] - places[1], axis=-1)
    return far, there[0] & there[1]


def span(
    start: np.ndarray,
    stages: Sequence[Stage],
    facts: Clips,
    future: Clips,
    world: World,
    protocol: CausalProtocol,
    error: float,
) -> Int[np.ndarray, " r"]:
    """The last horizon step up to which perturbed simulations stay near the ``future`` that these
    stages make of ``facts``."""
    lengths = protocol.run_frames * (protocol.run_frames**2 - 1)
    scale = 64 / protocol.resolution
    out = np.full(len(start), protocol.horizon)
    place, velocity = (world.get(start, name) for name in ("position", "velocity"))
    for copy in range(protocol.perturbed):
        rng = np.random.default_rng([protocol.seed, copy])
        noise = rng.normal(size=(2, *place.shape)) * error * scale
        noise[1] *= np.sqrt(12 / lengths)
        shaken = world.put(start, position=place + noise[0], velocity=velocity + noise[1])
        scenes = play(shaken, stages, facts, world, protocol)
        far, both = displacement(future, with_scenes(future, scenes, protocol), world, protocol)
        gone = (far * both > protocol.predictable).any(-1)
        first = np.where(gone.any(1), gone.argmax(1), protocol.horizon)
        out = np.minimum(out, first)
    return out


def with_scenes(clips: Clips, scenes: np.ndarray, protocol: CausalProtocol) -> Clips:
    """The clips with other true scenes in the horizon, and nothing else changed."""
    return clips._replace(scenes=np.concatenate([clips.scenes[:, : protocol.context], scenes], 1))


def _stages(
    scenario: Scenario,
    start: np.ndarray,
    facts: Clips,
    world: World,
    protocol: CausalProtocol,
    draw: int,
) -> tuple[Stage, ...]:
    """The stages of a scenario, each drawn in the true scene in which it is made."""
    stages: list[Stage] = []
    for at, kind, strength in scenario.changes:
        scene = start if at == 0 else play(start, stages, facts, world, protocol)[:, at - 1]
        if kind == "back":
            first = stages[0].changes
            hue = world.get(start, "hue")[np.arange(len(start)), np.maximum(first.target, 0)]
            params = np.zeros_like(first.params)
            params[:, 0] = hue
            changes = first._replace(params=params)
        else:
            streams = [
                np.random.default_rng([protocol.seed, draw, KINDS.index(kind), at, clip])
                for clip in range(len(start))
            ]
            changes = world.draw_changes(scene, kind, protocol.split, streams)
            changes = changes._replace(params=changes.params * np.float32(strength))
        told = np.zeros((len(start), 3), np.float32)
        if changes.kind in TOLD:
            name = TOLD[changes.kind]
            told = world.get(world.apply(scene, changes), name) - world.get(scene, name)
        words, exact = (world.sentences(scene, changes, exact) for exact in (False, True))
        stages.append(Stage(at, changes, world.edits(scene, changes), told, words, exact))
    return tuple(stages)


def _differs(
    facts: Clips, twin: Clips, scenario: Scenario, world: World, protocol: CausalProtocol
) -> Bool[np.ndarray, "r t"]:
    kinds = {kind for _, kind, _ in scenario.changes}
    shape = (len(facts.frames), protocol.horizon)
    if kinds & {"recolour", "remove", "add"} and scenario.name != "undone":
        differs = np.ones(shape, bool)
    else:
        far, both = displacement(facts, twin, world, protocol)
        shown = twin.truth.visible[:, protocol.context :] >= protocol.visible_share
        differs = np.any(both & shown & (far >= protocol.differs), axis=-1)
    if kinds & {"light", "camera", "gravity"}:
        a, b = (c.frames[:, protocol.context :] for c in (facts, twin))
        differs = differs | (1 - np.asarray(pixel.ssim(a, b)) >= protocol.differs_ssim)
    return differs
