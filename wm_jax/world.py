"""A world that can be steered: look at frames, change what is in them, see what happens.

    world = wm_jax.load("runs/a")                     # a run, or an export
    scene = world.encode(frames)                      # uint8 (t, h, w, 3), or with a batch axis
    print(world.things(scene))                        # red circle at (20, 31), …
    fork  = world.edit(scene, [Push("red ball", velocity=(2.0, 0.0)), Light(gain=0.6)])
    clip  = world.rollout(fork, steps=60, text={10: "the blue box is removed"})
    again = world.edit(scene, "the red ball is pushed to the left")
    heard = world.edit(scene, "the red circle disappears", route="text")   # see `World.edit`

A scene is a `wm_jax.shapes.LatentState`; every function returns a new one and leaves the old as it
was, so to fork is to keep it. What a model is told until it is told otherwise (light, camera), and
a change that its next step will be told, travels in its ``pending``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from wm_jax import models, naming, sentences, shapes, telling, words
from wm_jax.edit import TOLD, Change, Edits, Objects, Said, as_list, kind_of, no_edits
from wm_jax.errors import UserError
from wm_jax.naming import Thing
from wm_jax.sentences import check_named, told_kind
from wm_jax.shapes import Conditions, LatentState
from wm_jax.stored import read


class Clip(NamedTuple):
    """A future.

    frames:  uint8 (b, t, h, w, 3)
    state:   the scene after the last of them
    objects: what is in the scene at each frame, fields (b, t, k, …); None of a model without slots
    """

    frames: UInt8[np.ndarray, "b t h w 3"]
    state: LatentState
    objects: Objects | None


def load(path: str | Path, step: int | None = None) -> World:
    """The model of a run's folder or URL, or of an export's folder. ``step``: of a run, an earlier
    checkpoint. Raises `UserError` where there is neither."""
    params, config, updates = read(path, step)
    return World(
        models.build(config.model),
        params,
        config.model.resolution,
        tuple(config.model.modalities),
        context=config.eval.context,
        path=str(path),
        updates=updates,
    )


class World:
    """See the module's docstring.

    model, params: of the checkpoint; path and updates say which
    resolution:    px on a side of its frames
    modalities:    what it is told besides frames
    context:       frames that it was judged with
    edits:         kinds of change that it takes
    """

    def __init__(
        self,
        model: Any,
        params: PyTree,
        resolution: int,
        modalities: tuple[str, ...] = (),
        *,
        context: int = 16,
        path: str = "",
        updates: int = 0,
    ):
        self.model, self.params = model, params
        self.resolution, self.modalities, self.context = resolution, modalities, context
        self.path, self.updates = path, updates
        self.edits: tuple[str, ...] = tuple(getattr(model, "edits", ()))
        self.routes: tuple[str, ...] = tuple(getattr(model, "routes", ()))
        self._encode = jax.jit(functools.partial(shapes.encode, model))
        self._watch = jax.jit(functools.partial(_watch, model))
        self._step = jax.jit(functools.partial(_step, model))
        self._decode = jax.jit(lambda *inputs: model.decode(*inputs))
        self._edit = jax.jit(lambda *inputs: model.edit(*inputs), static_argnums=3)
        self._objects = jax.jit(lambda *inputs: model.objects(*inputs))

    def encode(
        self,
        frames: UInt8[np.ndarray, "*b t h w 3"],
        *,
        seed: int = 0,
        **told: Any,
    ) -> LatentState:
        """The scene after the last frame.

        told: actions (t, 2), camera (t, 3), light (t, 3), audio (t, 16), as the data set has them;
        with the batch axis if frames have one. Raises `UserError` for frames of another size and
        for what this model is not told.
        """
        frames = np.asarray(frames)
        side = self.resolution
        if frames.dtype != np.uint8 or frames.ndim not in (4, 5) or not frames.shape[-4]:
            raise UserError(
                f"frames are {frames.dtype} {frames.shape}; give uint8 (time, {side}, {side}, 3)."
            )
        if frames.shape[-3:] != (side, side, 3):
            raise UserError(
                f"frames have {frames.shape[-3:]} and {self.path or 'the model'} takes "
                f"({side}, {side}, 3); resize them, or train a model for that size."
            )
        batched = frames if frames.ndim == 5 else frames[None]
        said = self.told(told, batched.shape[:2])
        state = self._encode(self.params, jnp.asarray(batched), said, jax.random.key(seed))
        return state._replace(pending=telling.held(shapes.at_time(said, -1)))

    def watch(
        self, scene: LatentState, frames: UInt8[np.ndarray, "*b t h w 3"], **told: Any
    ) -> LatentState:
        """The scene after more frames were seen. ``told``: of the steps that end in them, as in
        `rollout`; light and camera that are not given stay as they are."""
        batched = frames if frames.ndim == 5 else frames[None]
        held = telling.throughout(scene.pending, batched.shape[1])
        given = telling.with_held(self.told(told, batched.shape[:2]), held)
        given = telling.with_first(given, scene.pending)
        state = self._watch(self.params, scene._replace(pending=None), jnp.asarray(batched), given)
        return state._replace(pending=telling.held(shapes.at_time(given, -1)))

    def things(self, scene: LatentState, stream: int = 0) -> list[Thing]:
        """What is in the scene: name, place, velocity. [] of a model without slots."""
        return self._things(self.objects(scene), stream)

    def objects(self, scene: LatentState) -> Objects | None:
        """The same as arrays."""
        return self._objects(self.params, scene._replace(pending=None))

    def edit(self, scene: LatentState, changes: Said, route: str | None = None) -> LatentState:
        """The scene with the changes made, one after the other; no time passes.

        In every stream of a batch the names mean what is there. ``route`` is one of this model's
        ``routes`` (None: the first that fits): 'state' writes the change into the state, 'trained'
        tells it to the next step as training did, 'text' says a sentence to it as it stands. By
        either of the last two one change a step is heard. What a sentence says of a light or a
        camera that the model is told anyway, it is told as such.

        Raises `UserError`, in a sentence, for an object that is not there or not the only one, a
        place outside the frame, and a kind of change or a route that this model does not take.
        """
        self._check_route(route)
        for change in as_list(changes):
            held = isinstance(change, str) and told_kind(change) in self.modalities
            if isinstance(change, str) and self._is_heard(route) and not held:
                scene = self.say(scene, change)
                continue
            if route == "text" and not held:
                raise UserError(
                    f"the route 'text' takes a sentence, not {change}; say it in words."
                )
            scene, wrong = self.edit_each(scene, [change] * scene.step.shape[0], route)
            for error in wrong:
                if error is not None:
                    raise error
        return scene

    def edit_each(
        self,
        scene: LatentState,
        changes: Sequence[str | Change | None],
        route: str | None = None,
    ) -> tuple[LatentState, list[UserError | None]]:
        """One change a stream of the batch (None: none), all of one kind; and for each stream why
        it could not be made. ``route`` as in `edit`, but not 'text'."""
        edits, held, wrong = self.told_edits(scene, changes)
        scene = scene._replace(pending=held)
        if (edits.kind >= 0).any():
            if (route or (*self.routes, "")[0]) == "trained":
                self._check_unsaid(scene, "intervention")
            scene = self._edit(self.params, scene, edits, route)
        return scene, wrong

    def say(self, scene: LatentState, sentences: str | Sequence[str | None]) -> LatentState:
        """The scene with a sentence, or one a stream, that its next step is told in words. Raises
        `UserError` for a model that was not trained to hear, and for what a sentence calls by its
        colour and no slot has."""
        self._check_route("text")
        self._check_unsaid(scene, "text")
        count = scene.step.shape[0]
        each = [sentences] * count if isinstance(sentences, str) else sentences
        objects = self.objects(scene)
        for stream, sentence in enumerate(each if objects is not None else ()):
            there = self._things(objects, stream)
            check_named(sentence or "", there, self.resolution)
        return self.model.say(scene, jnp.asarray(np.stack([words.encode(s or "") for s in each])))

    def told_edits(
        self, scene: LatentState, changes: Sequence[str | Change | None]
    ) -> tuple[Edits, Conditions | None, list[UserError | None]]:
        """The same as the model is told it: edits of its state, and what holds from then on."""
        edits = no_edits(len(changes))
        meant: list[Change | None] = []
        wrong: list[UserError | None] = []
        objects = self.objects(scene)
        for stream, change in enumerate(changes):
            there, error = self._things(objects, stream), None
            try:
                if isinstance(change, str):
                    change = self._meant(scene, change, there, stream)
                if change is not None:
                    self._check_kind(kind_of(change))
                    known = None if objects is None else there
                    telling.write(edits, stream, change, known, self.resolution)
            except UserError as reason:
                change, error = None, reason
            meant.append(change)
            wrong.append(error)
        held = scene.pending
        if {kind_of(change) for change in meant if change is not None} & set(TOLD):
            held = telling.retold(scene.pending, meant)
        return edits, held, wrong

    def decode(self, scene: LatentState) -> UInt8[np.ndarray, "b h w 3"]:
        """The scene as a picture."""
        frames = self._decode(self.params, scene._replace(pending=None))
        return pixels(frames)

    def rollout(
        self,
        scene: LatentState,
        steps: int,
        *,
        text: Mapping[int, Said] | None = None,
        route: str | None = None,
        seed: int = 0,
        **told: Any,
    ) -> Clip:
        """A future of ``steps`` frames.

        text: changes by the frame after which they are made, 0 being the scene as it is
        route: how these are made, as in `edit`
        told: as in `encode`, (steps, k), of each step: actions are those that act during it, the
              rest is what holds at its end. Light and camera that are not given stay as they are.
        seed: of a model that draws; the same seed gives the same future
        """
        if steps < 1:
            raise UserError(f"a rollout has at least one step; {steps} were asked for.")
        late = [frame for frame in text or {} if not 0 <= frame < steps]
        if late:
            raise UserError(f"text at frame {late[0]} is outside the rollout of {steps} frames.")
        # As numpy: a slice of a device array would be a program of its own, ten times a frame.
        given = jax.tree.map(np.asarray, self.told(told, (scene.step.shape[0], steps)))
        frames, objects = [], []
        for index in range(steps):
            if text and index in text:
                scene = self.edit(scene, text[index], route)
            scene, frame, seen = self.advance(scene, shapes.at_time(given, index), seed)
            frames.append(frame)
            objects.append(seen)
        stacked = None
        if objects[0] is not None:
            stacked = jax.tree.map(lambda *x: np.stack(x, 1), *objects)
        return Clip(pixels(jnp.stack(frames, 1)), scene, stacked)

    def advance(
        self, scene: LatentState, told: Conditions | None = None, seed: int = 0
    ) -> tuple[LatentState, Float[Array, "b h w 3"], Objects | None]:
        """One frame on: the scene, its picture in [0, 1] and what is in it. A future in two parts
        is the future in one: what is drawn depends on ``seed`` and on the place in the stream."""
        return self._step(self.params, scene, told, jax.random.key(seed))

    def parse(self, scene: LatentState, sentence: str, stream: int = 0) -> Change:
        """The change that a sentence asks for in this scene; see `wm_jax.sentences`."""
        return self._meant(scene, sentence, self.things(scene, stream), stream)

    def meant(
        self, scene: LatentState, change: str | Change, route: str | None = None
    ) -> str | Change:
        """The change that would be made here: what a sentence means, or, where the model hears it
        for itself, the sentence."""
        if not isinstance(change, str) or self._is_heard(route):
            return change
        return self.parse(scene, change)

    def told(self, given: Mapping[str, Any], lead: tuple[int, ...]) -> Conditions:
        """What it is told, as `telling.conditions` of ``lead`` (batch, time)."""
        return telling.conditions(given, lead, self.modalities, self.path or "this model")

    def digest(self) -> str:
        """SHA-256 of the weights."""
        sha = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            sha.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return sha.hexdigest()

    def _meant(
        self, scene: LatentState, sentence: str, there: Sequence[Thing], stream: int
    ) -> Change:
        # Where it is told no light, there is none to speak of: full is as good as any.
        gain = telling.value(scene.pending, "light")[-1 if scene.pending is None else stream, 0]
        return sentences.parse(sentence, there, self.resolution, float(gain))

    def _things(self, objects: Objects | None, stream: int) -> list[Thing]:
        return [] if objects is None else naming.things(objects, stream, self.resolution)

    def _is_heard(self, route: str | None) -> bool:
        """Whether a sentence goes the route 'text', rather than being understood first."""
        own = route is None and "state" not in self.routes and "text" in self.routes
        return own or route == "text"

    def _check_route(self, route: str | None) -> None:
        if route is None or route in self.routes:
            return
        known, who = {"state", "trained", "text"}, self.path or "this model"
        if route not in known:
            raise UserError(f"there is no route '{route}'; there are {', '.join(sorted(known))}.")
        has = ", ".join(self.routes) or "none"
        raise UserError(f"{who} was not trained for edits by the route '{route}'; it takes: {has}.")

    def _check_unsaid(self, scene: LatentState, name: str) -> None:
        if scene.pending is not None and np.asarray(getattr(scene.pending, name).mask).any():
            raise UserError(
                f"{self.path or 'this model'} hears one change a step, and one is waiting; imagine "
                "a frame before the next one."
            )

    def _check_kind(self, kind: str) -> None:
        if kind in self.edits:
            return
        takes = ", ".join(self.edits) or "no edit"
        why = f"it was not told {TOLD[kind]} in training" if kind in TOLD else "its state has none"
        raise UserError(
            f"{self.path or 'this model'} cannot make the edit '{kind}': {why}; it takes {takes}."
        )


def _step(
    model: Any, params: PyTree, scene: LatentState, told: Conditions | None, key: jax.Array
) -> tuple[LatentState, Array, Objects | None]:
    told = shapes.no_conditions(scene.step.shape[0]) if told is None else told
    if scene.pending is not None:
        told = shapes.with_pending(told, scene.pending)
    key = jax.random.fold_in(key, scene.step[0])
    state = model.step(params, scene._replace(pending=None), told, None, key)
    picture, objects = model.decode(params, state), model.objects(params, state)
    return state._replace(pending=telling.held(told)), picture, objects


def _watch(
    model: Any, params: PyTree, scene: LatentState, frames: Array, told: Conditions
) -> LatentState:
    def observe(state, inputs):
        frame, told_t = inputs
        return model.step(params, state, told_t, frame.astype(jnp.float32) / 255, None), None

    return jax.lax.scan(observe, scene, shapes.time_major((frames, told)))[0]


def pixels(frames: Float[Array, "*lead h w 3"]) -> UInt8[np.ndarray, "*lead h w 3"]:
    """Frames in [0, 1] as bytes."""
    return np.round(255 * np.clip(np.asarray(frames), 0, 1)).astype(np.uint8)
