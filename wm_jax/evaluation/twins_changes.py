"""Interventions on scenes of the twins world: drawn, made, and said as a model is told them.

What an intervention
is, and from which ranges one is drawn, is that of the data set (`data_pipelines.twins`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from data_pipelines.twins import language, project, telling
from data_pipelines.twins.interventions import Intervention, sample_intervention
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import get_world, world_of_split
from wm_jax.edit import KINDS, OF_OBJECTS, Edits
from wm_jax.evaluation import twins_scene
from wm_jax.evaluation.twins_scene import get, put
from wm_jax.evaluation.world import Changes

_TABLE = ("radius", "mass", "inertia", "friction", "restitution")


def draw(
    world: str,
    scenes: np.ndarray,
    kind: str,
    split: str,
    rngs: Sequence[np.random.Generator],
) -> Changes:
    """One of a kind for each scene (r, k), with the generator of the same place; not ``valid``
    where the scene allows none."""
    ranges = world_of_split(get_world(world), split)
    count = len(scenes)
    valid, target = np.zeros(count, bool), np.full(count, -1)
    params = np.zeros((count, 8), np.float32)
    for i, (scene, rng) in enumerate(zip(scenes, rngs, strict=True)):
        simulator = twins_scene.simulator(scene)
        table, drawn = dataclasses.replace(simulator.scene, world=ranges), None
        if simulator.bodies:
            drawn = sample_intervention(kind, 0, table, simulator.state(), rng, simulator.objects)
        if drawn is not None:
            valid[i], target[i], params[i] = True, drawn.target, drawn.params
    return Changes(kind, valid, target, params)


def apply(scenes: np.ndarray, changes: Changes) -> np.ndarray:
    """The scenes (r, k) after the changes, no time later. A change of an object that is not in a
    scene does nothing."""
    out = scenes.copy()
    for i in np.flatnonzero(changes.valid):
        simulator, target = twins_scene.simulator(scenes[i]), int(changes.target[i])
        if target >= 0 and changes.kind != "add" and target not in simulator.bodies:
            continue
        if changes.kind == "add" and target in simulator.bodies:
            continue
        simulator.apply(Intervention(changes.kind, 0, target, changes.params[i], ""))
        out[i] = put(
            twins_scene.read(scenes[i], simulator),
            **{name: np.asarray(simulator.objects[name], np.float32) for name in _TABLE},
            **{name: _seen(simulator, name) for name in ("light", "camera")},
        )
    return out


def _seen(simulator: Simulator, name: str) -> np.ndarray:
    return np.asarray(simulator.state()[name], np.float32)


def edits(scenes: Float32[np.ndarray, "r k"], changes: Changes) -> Edits:
    """The same changes as a model is told them: places and sizes as the camera shows them."""
    camera, rows = get(scenes, "camera"), np.arange(len(scenes))
    known = np.maximum(changes.target, 0)
    who = {"kind": np.where(changes.valid, KINDS.index(changes.kind), -1).astype(np.int32)}
    if changes.kind in OF_OBJECTS:
        hue = np.maximum(get(scenes, "hue")[rows, known], 0)
        who["at"] = project(get(scenes, "position")[rows, known], camera, 1)
        who["named"] = PALETTE[hue]
    return telling.filled(who | telling.fields(changes.kind, changes.params, camera), len(scenes))


def sentences(
    scenes: Float32[np.ndarray, "r k"], changes: Changes, resolution: int | None = None
) -> tuple[str, ...]:
    """The same changes in the words of the data set, with all their numbers (px) where a
    ``resolution`` is given; '' where there is none."""
    return tuple(
        _sentence(scene, changes.kind, int(changes.target[i]), changes.params[i], resolution)
        if changes.valid[i]
        else ""
        for i, scene in enumerate(scenes)
    )


def _sentence(
    scene: np.ndarray, kind: str, target: int, params: np.ndarray, resolution: int | None
) -> str:
    hue, shape, place = (get(scene, name)[max(target, 0)] for name in ("hue", "shape", "position"))
    who = f"the {language.thing(hue, shape)}" if target >= 0 and hue >= 0 else ""
    if resolution is not None:
        view, light = (get(scene, name) for name in ("camera", "light"))
        exact = telling.exactly(kind, who, params, view, resolution, light)
        if exact is not None:
            return exact
    return language.change(kind, who, params, place)
