"""Episodes: one seed in, one dict of arrays out. Fields are those of `EPISODE` in episode.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipelines.twins.drives import hand_actions, nearest_key
from data_pipelines.twins.interventions import KINDS, Intervention, sample_intervention
from data_pipelines.twins.language import Event, caption, sight_events, touch_events
from data_pipelines.twins.physics import Contact, Simulator
from data_pipelines.twins.render import render
from data_pipelines.twins.scene import Scene, draw_scene
from data_pipelines.twins.sound import SAMPLES, sound_track
from data_pipelines.twins.world import (
    FPS,
    World,
    get_world,
    scene_seed,
    split_of,
    stream,
    world_of_split,
)
from wm_jax.errors import UserError

JUDGED = 64  # frames over which a scene must be lively enough; the same for every length
TWIN_FRAMES = (10, 32)  # the frame of a group's interventions: from, up to but not including
_ATTEMPTS = 200

Episode = dict[str, Any]
_Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class Recording:
    """A simulation of T frames: stacked states, touches begun before each frame, the end."""

    scene: Scene
    states: _Arrays  # (T, ...)
    onsets: list[list[Contact]]
    objects: _Arrays  # the simulator's table at the end
    actions: np.ndarray  # (T, 2)


def simulate(
    scene: Scene, actions: np.ndarray, interventions: Iterable[Intervention] = ()
) -> Recording:
    """Run a scene for len(actions) frames; each intervention acts after its frame is drawn."""
    sim = Simulator(scene)
    changes: dict[int, list[Intervention]] = {}
    for change in interventions:
        changes.setdefault(change.frame, []).append(change)
    rows, onsets = [sim.state()], [sim.onsets]
    for frame in range(len(actions) - 1):
        for change in changes.get(frame, ()):
            sim.apply(change)
        sim.step(actions[frame])
        rows.append(sim.state())
        onsets.append(sim.onsets)
    states = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Recording(scene, states, onsets, sim.objects, actions)


def record_scene(world: World, seed: int, length: int) -> Recording:
    """The factual run of a scene seed, redrawn until its first 64 frames are lively enough."""
    for attempt in range(_ATTEMPTS):
        scene = draw_scene(world, seed, attempt)
        run = simulate(scene, hand_actions(scene, max(length, JUDGED)))
        speed = np.hypot(*np.moveaxis(run.states["velocity"][:JUDGED], -1, 0))
        if np.median(speed[run.states["present"][:JUDGED]]) >= world.slowest:
            run.states = {name: value[:length] for name, value in run.states.items()}
            return dataclasses.replace(
                run, onsets=run.onsets[:length], actions=run.actions[:length]
            )
    raise RuntimeError(f"no lively scene for {world.name} and seed {seed} in {_ATTEMPTS} draws")


def draw_twin(factual: Recording, branch: int, kinds: Sequence[str] = KINDS) -> Intervention:
    """The intervention of counterfactual `branch` >= 1; branches take the kinds in turn. Where a
    state allows none of them it is a push, which always is possible."""
    seed = factual.scene.seed
    rng = stream(seed, "twins")
    order = [kind for kind in rng.permutation(KINDS) if kind in kinds]
    frame = int(rng.integers(*TWIN_FRAMES))
    if split_of(seed) == "test_strong_push":
        order = ["push"]
    state = {name: value[frame] for name, value in factual.states.items()}
    turns = [order[(branch - 1 + k) % len(order)] for k in range(len(order))]
    for kind in map(str, (*turns, "push")):  # one that this state doesn't allow leaves its turn
        draws = stream(seed, f"twin/{branch}/{kind}")
        change = sample_intervention(kind, frame, factual.scene, state, draws)
        if change is not None:
            return change
    raise RuntimeError("push is always possible")


def make_group(
    world: str,
    seed: int,
    split: str = "train",
    length: int = 64,
    resolution: int = 64,
    sound: bool = True,
    twins: int = 0,
    kinds: Sequence[str] = KINDS,
) -> list[Episode]:
    """A factual episode and `twins` counterfactual ones that share its past to the last bit.

    Args: `seed` numbers the scenes of a split; `length` in frames; `resolution` in px;
      without `sound` the audio is silent; twins are of these `kinds`. Raises UserError for an
      impossible request.
    """
    _check(length, resolution, twins)
    ranges = world_of_split(get_world(world), split)
    run = record_scene(ranges, scene_seed(ranges.name, split, seed), length)
    drawn = draw(run, resolution)
    episodes = [_episode(run, drawn, None, 0, sound)]
    for branch in range(1, twins + 1):
        change = draw_twin(run, branch, kinds)
        twin = simulate(run.scene, run.actions, [change])
        past, future = change.frame + 1, draw(twin, resolution, change.frame + 1)
        whole = {k: np.concatenate([drawn[k][:past], future[k]]) for k in drawn}
        episodes.append(_episode(twin, whole, change, branch, sound))
    return episodes


def make_episode(
    world: str,
    seed: int,
    split: str = "train",
    length: int = 64,
    resolution: int = 64,
    sound: bool = True,
    branch: int = 0,
) -> Episode:
    """One episode of a group: the factual one, or counterfactual `branch` >= 1.

    >>> make_episode("twins:motion", 0)["frames"].shape
    (64, 64, 64, 3)
    """
    return make_group(world, seed, split, length, resolution, sound, twins=branch)[branch]


def _check(length: int, resolution: int, twins: int) -> None:
    if length < 2:
        raise UserError(f"An episode of {length} frames is too short; ask for at least 2.")
    if twins and length <= TWIN_FRAMES[1]:
        raise UserError(
            f"An episode of {length} frames is too short for twins, whose change comes before "
            f"frame {TWIN_FRAMES[1]}; ask for more than {TWIN_FRAMES[1]} frames."
        )
    if not 16 <= resolution <= 256:
        raise UserError(
            f"A resolution of {resolution} px is outside 16 to 256; 32, 64 and 128 are usual."
        )


def draw(run: Recording, resolution: int, start: int = 0) -> _Arrays:
    """What `render` makes of a recording from a frame on."""
    return render(
        {name: value[start:] for name, value in run.states.items()},
        radius=run.objects["radius"],
        depth=run.scene.depth,
        occluders=run.scene.occluders,
        looks=run.scene.looks,
        resolution=resolution,
    )


def _events(run: Recording, visible: np.ndarray, change: Intervention | None) -> list[Event]:
    events = touch_events(run.states, run.onsets, run.objects["mass"])
    events += sight_events(run.states, visible, run.scene.occluders)
    if change is not None:
        events.append(Event(change.frame, change.sentence, change.target))
    return sorted(events)


def _episode(
    run: Recording, drawn: _Arrays, change: Intervention | None, branch: int, sound: bool
) -> Episode:
    length, scene, states = len(run.actions), run.scene, run.states
    events = _events(run, drawn["visible_fraction"], change)
    silence = np.zeros((length, SAMPLES), np.float32)
    marks = {name: np.zeros(length, bool) for name in ("is_first", "is_last", "is_terminal")}
    marks["is_first"][0] = marks["is_last"][-1] = True
    episode: Episode = {
        "frames": drawn["frames"],
        "fps": np.float32(FPS),
        **marks,
        "group": np.int64(scene.seed),
        "branch": np.int32(branch),
        "intervention/kind": change.kind if change else "",
        "intervention/frame": np.int32(change.frame if change else -1),
        "intervention/target": np.int32(change.target if change else -1),
        "intervention/params": change.params if change else np.zeros(8, np.float32),
        "intervention/sentence": change.sentence if change else "",
        "actions": run.actions,
        "text": caption(
            scene.hue, scene.shape, len(scene.occluders), bool(scene.hand[2]), scene.gravity
        ),
        "events/frame": np.array([e.frame for e in events], np.int32),
        "events/text": [e.text for e in events],
        "events/target": np.array([e.target for e in events], np.int32),
        "audio": sound_track(run.onsets, run.objects["mass"]) if sound else silence,
        "camera": states["camera"].astype(np.float32),
        "light": states["light"].astype(np.float32),
        "truth/depth": scene.depth,
        "truth/occluders": scene.occluders.astype(np.float32),
        "truth/looks": scene.looks.astype(np.float32),
        "truth/hue": states["hue"],
        "truth/shape": states["shape"],
        "truth/present": states["present"],
    }
    if scene.world.keys:
        episode["discrete_actions"] = nearest_key(run.actions, scene.world.hand_speed)
    for name in ("radius", "mass", "inertia", "friction", "restitution"):
        episode[f"truth/{name}"] = run.objects[name].astype(np.float32)
    for name in ("position", "velocity", "angle", "angular_velocity", "contact", "hand", "gravity"):
        episode[f"truth/{name}"] = states[name].astype(np.float32)
    for name in ("segmentation", "visible_fraction", "centroid"):
        episode[f"truth/{name}"] = drawn[name]
    return episode
