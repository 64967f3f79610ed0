"""Who can be asked what happens if: world models, and the true simulator."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt8

from wm_jax import shapes, telling, words
from wm_jax.edit import TOLD, Edits, no_edits
from wm_jax.evaluation import counterfactual, informed
from wm_jax.evaluation import sound as sounds
from wm_jax.evaluation.counterfactual import Stage
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips
from wm_jax.evaluation.world import World as TrueWorld
from wm_jax.world import World


class Subject(Protocol):
    """Something that can be asked what happens if. States are its own affair."""

    name: str
    edits: tuple[str, ...]

    def encode(self, clips: Clips, sample: int) -> Any:
        """The context."""
        ...

    def imagine(
        self, state: Any, clips: Clips, stages: Sequence[Stage], sample: int
    ) -> UInt8[np.ndarray, "r t h w 3"]:
        """The horizon, with these changes made on the way. ``clips`` say what it would be told
        without them."""
        ...

    def observe(
        self, state: Any, clips: Clips, count: int, sample: int
    ) -> UInt8[np.ndarray, "r s h w 3"]:
        """The horizon after its first ``count`` frames, which it sees."""
        ...


@runtime_checkable
class Hearing(Protocol):
    """A subject that can be told in words."""

    def understand(self, state: Any, clips: Clips, stage: Stage) -> Stage:
        """The stage as it takes it from its words alone. Of what it cannot make out nothing comes:
        the sentence is about something that it does not see, say."""
        ...


class ModelSubject:
    """A world model; see `wm_jax.shapes.WorldModel` and `wm_jax.edit`. ``route`` is one of its
    ``routes``, by which it takes edits (None: the first); by 'trained' it is told sentences as they
    stand, if it was trained to hear them."""

    def __init__(
        self,
        name: str,
        model: Any,
        params: PyTree,
        protocol: CausalProtocol,
        route: str | None = None,
    ):
        self.name, self.model, self.params, self.protocol = name, model, params, protocol
        self.edits = tuple(getattr(model, "edits", ()))
        self.told = tuple(getattr(getattr(model, "net", None), "modalities", ()))
        self._world = World(model, params, protocol.resolution, self.told, path=name)
        self.route = route or (*self._world.routes, None)[0]
        self._programs = _programs(cast(Hashable, model), route)
        # Frames that one program does at a time: it is compiled once, whatever happens when.
        moments = (at for at, _ in protocol.sequence)
        frames = protocol.horizon, protocol.oracle_frames, protocol.undone_after, *moments
        self._stride = math.gcd(*frames)

    def encode(self, clips: Clips, sample: int) -> shapes.LatentState:
        first, _ = self._keys(sample)
        frames, told = _padded((clips.frames, clips.conditions))
        context = self.protocol.context
        seen = jax.tree.map(lambda x: x[:, :context], (frames, told))
        return self._programs.encode(self.params, *seen, first)

    def imagine(self, state, clips, stages, sample):
        told, key = self._told(clips), self._keys(sample)[1]
        cuts = [0, *sorted({stage.at for stage in stages} - {0}), self.protocol.horizon]
        parts = []
        for first, end in itertools.pairwise(cuts):
            for stage in (stage for stage in stages if stage.at == first):
                if stage.changes.kind in TOLD:
                    told = _told_otherwise(told, stage)
                else:
                    edits = jax.tree.map(_padded, stage.edits)
                    state = self._programs.edit(self.params, state, edits)
                if stage.said is not None:
                    state = self.model.say(state, jnp.asarray(_padded(stage.said)))
            state, frames = self._roll(state, told, key, first, end)
            parts.append(frames)
        return np.concatenate(parts, 1)[: len(clips.frames)]

    def observe(self, state, clips, count, sample):
        told, key = self._told(clips), self._keys(sample)[1]
        context = self.protocol.context
        frames = _padded(clips.frames[:, context : context + count])
        for first, some in self._strides(0, count):
            seen = jax.tree.map(lambda x, some=some: x[:, some], (frames, told))
            state = self._programs.look(self.params, state, *seen, key, first)
        rolled = self._roll(state, told, key, count, self.protocol.horizon)[1]
        return rolled[: len(clips.frames)]

    def _roll(self, state, told: shapes.Conditions, key, begin: int, end: int):
        """The state at ``end`` of the horizon, and the frames since ``begin``. Keys go on, so that
        an edit on the way leaves the randomness what it was."""
        parts = []
        for first, some in self._strides(begin, end):
            ahead = jax.tree.map(lambda x, some=some: x[:, some], told)
            state, frames = self._programs.roll(self.params, state, ahead, key, first)
            parts.append(frames)
        return state, np.concatenate(parts, 1)

    def _strides(self, begin: int, end: int) -> list[tuple[int, slice]]:
        step = self._stride
        return [(first, slice(first, first + step)) for first in range(begin, end, step)]

    def hear(self, state, clips, sound, sample):
        return self.imagine(state, clips, (), sample) if "audio" in self.told else None

    def understand(self, state: shapes.LatentState, clips: Clips, stage: Stage) -> Stage:
        count, more = len(clips.frames), len(state.step) - len(clips.frames)
        told = TOLD.get(stage.changes.kind) in self.told  # a sentence changes what it is told
        if self.route != "state" and "text" in self._world.routes and not told:
            ids = np.stack([words.encode(sentence) for sentence in stage.words])
            return stage._replace(edits=no_edits(count), told=0 * stage.told, said=ids)
        now = jax.tree.map(lambda x: x[:, self.protocol.context - 1], _padded(clips.conditions))
        scene = state._replace(pending=telling.held(now))
        sentences = [sentence or None for sentence in stage.words] + [None] * more
        edits, held, _ = self._world.told_edits(scene, sentences)
        changed = np.zeros((count, 3), np.float32)
        if stage.changes.kind in TOLD and held is not None:
            now, before = (
                telling.value(x, TOLD[stage.changes.kind]) for x in (held, scene.pending)
            )
            changed = (now - before)[:count]
        return stage._replace(edits=Edits(*(x[:count] for x in edits)), told=changed)

    def _told(self, clips: Clips) -> shapes.Conditions:
        """What the steps of the horizon are told."""
        return _of_steps(_padded(clips.conditions), self.protocol.context)

    def _keys(self, sample: int):
        return jax.random.split(jax.random.fold_in(jax.random.key(self.protocol.seed), sample))


class _Programs(NamedTuple):
    encode: Callable
    edit: Callable
    look: Callable
    roll: Callable


@functools.lru_cache(maxsize=4)
def _programs(model: Any, route: str | None) -> _Programs:
    named = () if route is None else (route,)

    def encode(params, frames, conditions, key):
        return shapes.encode(model, params, frames, conditions, key)

    def look(params, state, frames, told, key, first):
        def see(state, inputs):
            frame, told_t, number = inputs
            seen = frame.astype(jnp.float32) / 255
            step_key = jax.random.fold_in(key, number)
            return model.step(params, state, told_t, seen, step_key), None

        numbers = first + jnp.arange(frames.shape[1])
        return jax.lax.scan(see, state, (*shapes.time_major((frames, told)), numbers))[0]

    def roll(params, state, told, key, first):
        def imagine(state, inputs):
            told_t, number = inputs
            state = model.step(params, state, told_t, None, jax.random.fold_in(key, number))
            frames = jnp.clip(model.decode(params, state), 0, 1)
            return state, jnp.round(frames * 255).astype(jnp.uint8)

        steps = told.actions.mask.shape[1]
        inputs = (shapes.time_major(told), first + jnp.arange(steps))
        state, frames = jax.lax.scan(imagine, state, inputs)
        return state, jnp.swapaxes(frames, 0, 1)

    def edit(params, state, edits):
        return model.edit(params, state, edits, *named)

    return _Programs(*(jax.jit(program) for program in (encode, edit, look, roll)))


@functools.partial(jax.jit, static_argnums=1)
def _of_steps(conditions: shapes.Conditions, context: int) -> shapes.Conditions:
    told = shapes.conditions_for_steps(conditions)
    return jax.tree.map(lambda x: x[:, context:], told)


def _padded(tree: PyTree) -> PyTree:
    """To a power of two of streams, so that one program or two serve every batch."""
    count = len(jax.tree.leaves(tree)[0])
    filler = (1 << (count - 1).bit_length()) - count
    return jax.tree.map(lambda x: np.pad(x, [(0, filler)] + [(0, 0)] * (np.ndim(x) - 1)), tree)


def _told_otherwise(told: shapes.Conditions, stage: Stage) -> shapes.Conditions:
    """What the steps of the horizon are told after a change of light or camera."""
    name = TOLD[stage.changes.kind]
    signal = getattr(told, name)
    by = jnp.zeros_like(signal.value).at[:, stage.at :].set(_padded(stage.told)[:, None])
    return told._replace(**{name: signal._replace(value=signal.value + by)})


class Simulated:
    """The true simulator as a subject: started from the true scene (``truth``), or from what the
    instrument saw of the context (``see_then_simulate``), of which ``typical`` makes what is
    believed of it."""

    def __init__(
        self,
        name: str,
        world: TrueWorld,
        protocol: CausalProtocol,
        instrument: Instrument | None,
        typical: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ):
        self.name, self.edits = name, protocol.kinds
        self.world, self.protocol, self.instrument = world, protocol, instrument
        self._typical = typical

    def encode(self, clips: Clips, sample: int) -> SimulatedState:
        return self._believe(clips, self.protocol.context)

    def imagine(self, state, clips, stages, sample):
        scenes = counterfactual.play(state.scene, stages, clips, self.world, self.protocol)
        return self.world.draw(scenes).frames

    def hear(self, state, clips, sound, sample):
        if sound == "shuffled":  # blows of another scene mean nothing in this one
            return None
        scene, rules = state.scene, self.protocol
        future = counterfactual.play(scene, (), clips, self.world, rules)
        if sound is None:
            future = sounds.told_of_blows(scene, future, clips, self.world, rules)
        return self.world.draw(future).frames

    def observe(self, state, clips, count, sample):
        last = self.protocol.context + count
        scene = self._believe(clips, last, state.belief).scene
        future = self.world.future(scene, clips.actions[:, last - 1 : -1])
        told = clips.scenes[:, last:]
        schedule = {name: self.world.get(told, name) for name in TOLD.values()}
        return self.world.draw(self.world.put(future, **schedule)).frames

    def _believe(
        self, clips: Clips, frames: int, before: informed.Belief | None = None
    ) -> SimulatedState:
        if self.instrument is None:
            return SimulatedState(clips.scenes[:, frames - 1])
        belief = informed.believe(clips, self.world, self.instrument, frames, before)
        return SimulatedState(self._typical(belief.scene), belief)


class SimulatedState(NamedTuple):
    """The scene from which is simulated, and what was seen, unless that is the true one."""

    scene: np.ndarray
    belief: informed.Belief | None = None
