"""The causal suite: when the scene is changed, does the model's future change as the real one?

A *subject* encodes a context, imagines a future, with or without changes made in its state, and may
look at some true frames first (the oracle). Everything is read off its frames by the instrument and
scored against twins (`counterfactual`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree, UInt8

from wm_jax import shapes
from wm_jax.edit import KINDS, TOLD, Edits
from wm_jax.evaluation import counterfactual, informed, physics, pixel, statistics
from wm_jax.evaluation.counterfactual import Stage, Twins
from wm_jax.evaluation.lighting import light_error
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Changes, Clips, World

#: metric -> (unit, whether more is better)
METRICS = {
    "edit_success": ("1", True),
    "edit_success_common": ("1", True),
    "edit_success_ssim": ("1", True),
    "locality": ("px", False),
    "onset_within": ("1", True),
    "onset_error": ("frames", False),
    "onset_missing": ("1", False),
    "undo_error": ("px", False),
    "null_change": ("level", False),
    "action_sensitivity": ("1", True),
}
#: What is done to a subject: its edit, the same kind drawn anew, true frames in place of an edit.
CONTROLS = (None, "shuffled", "oracle")
STEPS = (5, 8, 10, 15, 20, 30, 40, 60)


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


class ModelSubject:
    """A world model; see `wm_jax.shapes.WorldModel` and `wm_jax.edit`."""

    def __init__(self, name: str, model: Any, params: PyTree, protocol: CausalProtocol):
        self.name, self.model, self.params, self.protocol = name, model, params, protocol
        self.edits = tuple(getattr(model, "edits", ()))
        self._programs = _programs(cast(Hashable, model))

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
            ahead = jax.tree.map(lambda x, a=first, b=end: x[:, a:b], told)
            # Keys go on, so that an edit on the way leaves the randomness what it was.
            state, frames = self._programs.roll(self.params, state, ahead, key, first)
            parts.append(np.asarray(frames))
        return np.concatenate(parts, 1)[: len(clips.frames)]

    def observe(self, state, clips, count, sample):
        told, key = self._told(clips), self._keys(sample)[1]
        context = self.protocol.context
        frames = _padded(clips.frames[:, context : context + count])
        seen = jax.tree.map(lambda x: x[:, :count], told)
        ahead = jax.tree.map(lambda x: x[:, count:], told)
        state = self._programs.look(self.params, state, frames, seen, key)
        rolled = self._programs.roll(self.params, state, ahead, key, count)[1]
        return np.asarray(rolled)[: len(clips.frames)]

    def _told(self, clips: Clips) -> shapes.Conditions:
        """What the steps of the horizon are told."""
        told = shapes.conditions_for_steps(_padded(clips.conditions))
        return jax.tree.map(lambda x: x[:, self.protocol.context :], told)

    def _keys(self, sample: int):
        return jax.random.split(jax.random.fold_in(jax.random.key(self.protocol.seed), sample))


class _Programs(NamedTuple):
    encode: Callable
    edit: Callable
    look: Callable
    roll: Callable


@functools.lru_cache(maxsize=4)
def _programs(model: Any) -> _Programs:
    def encode(params, frames, conditions, key):
        return shapes.encode(model, params, frames, conditions, key)

    def look(params, state, frames, told, key):
        def see(state, inputs):
            frame, told_t, key_t = inputs
            return model.step(params, state, told_t, frame.astype(jnp.float32) / 255, key_t), None

        keys = shapes.step_keys(key, frames.shape[1])
        return jax.lax.scan(see, state, (*shapes.time_major((frames, told)), keys))[0]

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
        return model.edit(params, state, edits)

    return _Programs(*(jax.jit(program) for program in (encode, edit, look, roll)))


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
    instrument saw of the context (``see_then_simulate``)."""

    def __init__(
        self, name: str, world: World, protocol: CausalProtocol, instrument: Instrument | None
    ):
        self.name, self.edits = name, protocol.kinds
        self.world, self.protocol, self.instrument = world, protocol, instrument

    def encode(self, clips: Clips, sample: int) -> np.ndarray:
        return self._believe(clips, self.protocol.context)

    def imagine(self, state, clips, stages, sample):
        scenes = counterfactual.play(state, stages, clips, self.world, self.protocol)
        return self.world.draw(scenes).frames

    def observe(self, state, clips, count, sample):
        last = self.protocol.context + count
        scene = self._believe(clips, last)
        future = self.world.future(scene, clips.actions[:, last - 1 : -1])
        told = clips.scenes[:, last:]
        schedule = {name: self.world.get(told, name) for name in TOLD.values()}
        return self.world.draw(self.world.put(future, **schedule)).frames

    def _believe(self, clips: Clips, frames: int) -> np.ndarray:
        if self.instrument is None:
            return clips.scenes[:, frames - 1]
        return informed.believe(clips, self.world, self.instrument, frames)[0]


class Futures(NamedTuple):
    """Rollouts of one subject against the twins of one scenario.

    objects: px, distance from the twin, by horizon step
    ssim:    1 - SSIM, the same; NaN where it is not reported
    place, found: of the twin's objects: where they are, px, if they are
    """

    objects: Float[np.ndarray, "r t"]
    ssim: Float[np.ndarray, "r t"]
    place: Float[np.ndarray, "r t n 2"]
    found: Bool[np.ndarray, "r t n"]


#: Where objects are, px (r, t, n, 2), and whether they are found (r, t, n).
Whereabouts = tuple[np.ndarray, np.ndarray]


class Measured(NamedTuple):
    """Of one subject: what it made of each scenario under each control (see `CONTROLS`) that it
    supports, and unedited.

    unedited: where the objects of the factual truth are in the unedited rollout, px, and whether
    acted: the same when it is told the actions of another clip; None without a hand
    noise: px, by which two unedited rollouts differ (0 of a deterministic one)
    null:  largest change, in grey levels, that an edit made which changes nothing, by clip
    """

    edited: dict[tuple[str, str | None], Futures]
    plain: dict[str, Futures]
    unedited: Whereabouts
    acted: Whereabouts | None
    noise: float
    null: Int[np.ndarray, " r"] | None


def distances(
    tracks: Tracks, frames: np.ndarray, clips: Clips, protocol: CausalProtocol, lit: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Of rollouts from the future of ``clips``: by objects, px, and 1 - SSIM, (r, t) each. Where
    the light was changed (``lit``), errors of its gain and gradient take the place of px. SSIM,
    which costs more than all else, is of the reported steps, NaN at others."""
    truth = jax.tree.map(lambda x: x[:, protocol.context :], clips.truth)
    objects = score_objects(tracks, truth, protocol)
    far = (objects.error * objects.asked).sum(2) + protocol.cap * objects.invented
    if lit:
        far = sum(light_error(frames, clips.frames[:, protocol.context :]))
    at = [step - 1 for step in _steps(protocol)[1:]]
    similar = np.full(far.shape, np.nan)
    similar[:, at] = pixel.ssim(clips.frames[:, protocol.context :][:, at], frames[:, at])
    return far, 1 - similar


def places(tracks: Tracks, clips: Clips, protocol: CausalProtocol):
    """Where the clips' objects are in rollouts, (r, t, n, 2), and whether they are."""
    ahead = jax.tree.map(lambda x: x[:, protocol.context :], clips.truth)
    hue = np.where(ahead.present, ahead.hue, 0)
    found = np.take_along_axis(tracks.present, hue, 2) & ahead.present
    return np.take_along_axis(tracks.position, hue[..., None], 2), found


def measure(
    subject: Subject,
    facts: Clips,
    twins: Sequence[Twins],
    protocol: CausalProtocol,
    instrument: Instrument,
    samples: int = 1,
    progress: Callable[[int], None] = lambda done: None,
    otherwise: Clips | None = None,
) -> Measured:
    """Everything about one subject, averaged over ``samples``. ``progress`` is called with the
    number of clips that are done; ``otherwise`` is from `counterfactual.acted_otherwise`."""
    edited: dict[tuple[str, str | None], list[Futures]] = {}
    plain: dict[str, list[Futures]] = {}
    nulls, noises, whereabouts, acted = [], [], [], []
    for index in batches(facts):
        batch = take(facts, index)
        states = [subject.encode(batch, sample) for sample in range(samples)]
        unedited = [subject.imagine(s, batch, (), sample) for sample, s in enumerate(states)]
        tracks = [instrument.track(frames) for frames in unedited]
        noises.append(_noise(tracks, batch, protocol))
        whereabouts.append(places(tracks[0], batch, protocol))
        if otherwise is not None:
            frames = subject.imagine(states[0], take(otherwise, index), (), 0)
            acted.append(places(instrument.track(frames), batch, protocol))
        for twin in twins:
            clips = take(twin.clips, index)
            lit = twin.name == "light"
            read = functools.partial(_read, clips=clips, protocol=protocol, lit=lit)
            plain.setdefault(twin.name, []).append(read(unedited, tracks))
            for control in controls(subject, twin):
                futures = [
                    _future(subject, state, batch, clips, twin, control, index, protocol, sample)
                    for sample, state in enumerate(states)
                ]
                told = [instrument.track(frames) for frames in futures]
                edited.setdefault((twin.name, control), []).append(read(futures, told))
        still = next((twin.stages[0] for twin in twins if twin.name == "push"), None)
        if still is not None and "push" in subject.edits:
            stage = _without_effect(_take_stage(still, index))
            after = subject.imagine(states[0], batch, (stage,), 0)
            nulls.append(np.abs(after.astype(int) - unedited[0]).max((1, 2, 3, 4)))
        progress(int(index[-1]) + 1)
    join = lambda parts: Futures(*map(np.concatenate, zip(*parts, strict=True)))  # noqa: E731
    return Measured(
        {key: join(parts) for key, parts in edited.items()},
        {key: join(parts) for key, parts in plain.items()},
        _beside(whereabouts),
        _beside(acted) if acted else None,
        max(noises),
        np.concatenate(nulls) if nulls else None,
    )


def _beside(parts: Sequence[Whereabouts]) -> Whereabouts:
    first, second = (np.concatenate(x) for x in zip(*parts, strict=True))
    return first, second


def samples_of(subject: Subject, facts: Clips, protocol: CausalProtocol) -> int:
    """The samples that are its due: one if two of them agree in every byte."""
    few = take(facts, batches(facts)[0])
    first, second = (subject.imagine(subject.encode(few, s), few, (), s) for s in range(2))
    return 1 if np.array_equal(first, second) else protocol.samples


def both_futures(subject: Subject, facts: Clips, twin: Twins, index: np.ndarray):
    """The unedited and the edited rollout of some clips, the first sample of each."""
    batch = take(facts, index)
    state = subject.encode(batch, 0)
    stages = [_take_stage(stage, index) for stage in twin.stages]
    return subject.imagine(state, batch, (), 0), subject.imagine(state, batch, stages, 0)


def controls(subject: Subject, twin: Twins) -> tuple[str | None, ...]:
    """Those of `CONTROLS` that a subject can be asked for."""
    if not set(twin.kinds) <= set(subject.edits):
        return ("oracle",)
    return CONTROLS if twin.name in (*KINDS, "sequence") else (None,)


def _future(
    subject: Subject,
    state: Any,
    batch: Clips,
    clips: Clips,
    twin: Twins,
    control: str | None,
    index: np.ndarray,
    protocol: CausalProtocol,
    sample: int,
) -> np.ndarray:
    """A rollout of the horizon; the oracle's begins with the frames that it saw."""
    if control == "oracle":
        seen = twin.stages[-1].at + protocol.oracle_frames
        first = clips.frames[:, protocol.context : protocol.context + seen]
        return np.concatenate([first, subject.observe(state, clips, seen, sample)], 1)
    stages = twin.stages if control is None else twin.shuffled
    return subject.imagine(state, batch, [_take_stage(stage, index) for stage in stages], sample)


def _take_stage(stage: Stage, index: np.ndarray) -> Stage:
    kind, *arrays = stage.changes
    changes = Changes(kind, *(x[index] for x in arrays))
    edits = Edits(*(x[index] for x in stage.edits))
    return Stage(stage.at, changes, edits, stage.told[index])


def _without_effect(push: Stage) -> Stage:
    changes = push.changes._replace(params=np.zeros_like(push.changes.params))
    return Stage(0, changes, push.edits._replace(speed=0 * push.edits.speed), push.told)


def _read(
    futures: Sequence[np.ndarray],
    tracks: Sequence[Tracks],
    clips: Clips,
    protocol: CausalProtocol,
    lit: bool = False,
) -> Futures:
    """Distances are means over samples, places those of the first."""
    each = [distances(t, f, clips, protocol, lit) for t, f in zip(tracks, futures, strict=True)]
    objects, ssim = np.mean(each, 0)
    return Futures(objects, ssim, *places(tracks[0], clips, protocol))


def _noise(tracks: Sequence[Tracks], clips: Clips, protocol: CausalProtocol) -> float:
    """px: 99th percentile of how far objects of two unedited rollouts are apart."""
    if len(tracks) < 2:
        return 0.0
    (a, in_a), (b, in_b) = (places(each, clips, protocol) for each in tracks[:2])
    both = in_a & in_b
    return float(np.quantile(np.linalg.norm(a - b, axis=-1)[both], 0.99)) if both.any() else 0.0


def table(
    measured: dict[str, Measured],
    facts: Clips,
    twins: Sequence[Twins],
    world: World,
    protocol: CausalProtocol,
    seed: int | None,
    tested: Sequence[str],
    otherwise: Clips | None = None,
) -> list[Row]:
    """Rows of every subject and scenario, with ``intervention`` the scenario's name. Of the scores
    of success, ``share`` is how many of the clips qualify at that step."""
    rows: list[Row] = []
    for twin in twins:
        base = truth_of(facts, twin, protocol)
        for name, m in measured.items():
            make = functools.partial(
                make_rows,
                protocol=protocol,
                model=name,
                seed=seed if name in tested else None,
                intervention=twin.name,
            )
            if twin.name == "undone":
                rows += _undone(m, twin, make, protocol)
                continue
            for control in CONTROLS:
                if (twin.name, control) in m.edited:
                    rows += _success(m, twin, control, base, make, protocol)
            if (twin.name, None) in m.edited and len(twin.stages) == 1:
                rows += _locality(m, twin, facts, world, make, protocol)
                rows += _onset(m, twin, facts, world, make, protocol)
    actual = _actual(facts, world, protocol)
    for name, m in measured.items():
        trained = seed if name in tested else None
        own = physics.course(*m.unedited, facts, world, protocol)
        for metric, sums in physics.measure(own, actual, facts, world, protocol).items():
            steps = [0]
            if metric == "energy_ratio":
                sums, steps = _pooled(sums, protocol), _steps(protocol)
            rows += make_rows(
                statistics.estimate(sums, protocol.seed), protocol, model=name, metric=metric,
                unit=physics.METRICS[metric], steps=steps, seed=trained,
            )  # fmt: skip
        if otherwise is not None and m.acted is not None:
            sums = _sensitivity(m.unedited, m.acted, facts, otherwise, world, protocol)
            rows += make_rows(
                statistics.estimate(_pooled(sums, protocol), protocol.seed), protocol, model=name,
                metric="action_sensitivity", unit="1", steps=_steps(protocol), seed=trained,
            )  # fmt: skip
        if m.null is not None:
            sums = statistics.sums_by_unit(m.null[:, None], facts.unit)
            estimate = statistics.estimate(sums, protocol.seed)
            rows += make_rows(
                estimate, protocol, model=name, metric="null_change", unit="level", steps=[0],
                seed=trained, intervention="null", control="null",
            )  # fmt: skip
    return rows


def _sensitivity(
    told: Whereabouts,
    mistold: Whereabouts,
    facts: Clips,
    otherwise: Clips,
    world: World,
    protocol: CausalProtocol,
) -> Sums:
    """Errors when it is told the actions of another clip over those when it is told the true ones,
    of objects that the other actions would truly have moved."""
    ahead = jax.tree.map(lambda x: x[:, protocol.context :], facts.truth)
    far, both = counterfactual.displacement(facts, otherwise, world, protocol)
    asked = both & (far >= protocol.differs) & (ahead.visible >= protocol.visible_share)
    sums = []
    for place, found in (mistold, told):
        off = np.linalg.norm(place - ahead.centroid, axis=-1)
        off = np.where(found, np.minimum(off, protocol.cap), protocol.cap)
        sums.append(statistics.sums_by_unit(off, facts.unit, asked).total)
    return Sums(*sums)


def _actual(facts: Clips, world: World, protocol: CausalProtocol) -> physics.Course:
    """What the true scenes say, without any instrument."""
    scenes = facts.scenes[:, protocol.context :]
    place = world.to_pixels(world.get(scenes, "position"), scenes)
    there = facts.truth.present[:, protocol.context :]
    return physics.course(place, there, facts, world, protocol)


def truth_of(facts: Clips, twin: Twins, protocol: CausalProtocol) -> Futures:
    """The factual truth against the twins: the denominator that no model is in."""
    frames = facts.frames[:, protocol.context :]
    truth = jax.tree.map(lambda x: x[:, protocol.context :], facts.truth)
    # As an instrument without error would read it.
    hues = 1 + int(max(facts.truth.hue.max(), twin.clips.truth.hue.max()))
    shape = (*frames.shape[:2], hues)
    seen = truth.present & (truth.visible > 0.05)
    index = np.nonzero(seen)
    where = (index[0], index[1], truth.hue[index])
    present, position = np.zeros(shape, bool), np.full((*shape, 2), np.nan, np.float32)
    present[where], position[where] = True, truth.centroid[index]
    none = np.zeros(shape, int)
    tracks = Tracks(present, position, none.astype(np.float32), none - 1, none)
    return _read([frames], [tracks], twin.clips, protocol, twin.name == "light")


def scored(twin: Twins, protocol: CausalProtocol) -> Bool[np.ndarray, "r t"]:
    """Clips and steps that count."""
    steps = np.arange(1, protocol.horizon + 1)
    after = steps > twin.stages[-1].at + protocol.oracle_frames
    return twin.differs & after & (steps <= twin.span[:, None])


def _steps(protocol: CausalProtocol) -> list[int]:
    return [0, *(step for step in STEPS if step <= protocol.horizon)]


def _pooled(sums: Sums, protocol: CausalProtocol) -> Sums:
    """All steps together, then the ones that are reported."""
    at = [step - 1 for step in _steps(protocol)[1:]]
    return Sums(*(np.concatenate([x.sum(1, keepdims=True), x[:, at]], 1) for x in sums))


def _success(
    m: Measured,
    twin: Twins,
    control: str | None,
    base: Futures,
    make: Callable[..., list[Row]],
    protocol: CausalProtocol,
) -> list[Row]:
    counted, unit = scored(twin, protocol), twin.clips.unit
    own, plain = m.edited[twin.name, control], m.plain[twin.name]
    rows = []
    for metric, far, scale in (
        ("edit_success", own.objects, plain.objects),
        ("edit_success_common", own.objects, base.objects),
        ("edit_success_ssim", own.ssim, plain.ssim),
    ):
        known = counted & ~np.isnan(scale)
        total, weight = (
            statistics.sums_by_unit(x, unit, known).total for x in (scale - far, scale)
        )
        estimate = statistics.estimate(_pooled(Sums(total, weight), protocol), protocol.seed)
        made = make(estimate, metric=metric, unit="1", control=control, steps=_steps(protocol))
        shares = [counted.any(1).mean(), *counted[:, [s - 1 for s in _steps(protocol)[1:]]].mean(0)]
        for row, share in zip(made, shares, strict=True):
            row["share"] = round(float(share), 4)
        rows += made
    return rows


def _undone(
    m: Measured, twin: Twins, make: Callable[..., list[Row]], protocol: CausalProtocol
) -> list[Row]:
    """How much further from the truth an edit that was taken back leaves objects, px."""
    if (twin.name, None) not in m.edited:
        return []
    steps = np.arange(1, protocol.horizon + 1)
    counted = (steps > twin.stages[-1].at) & (steps <= twin.span[:, None])
    counted = counted & twin.stages[0].changes.valid[:, None]
    visible = twin.clips.truth.visible[:, protocol.context :] >= protocol.visible_share
    more = m.edited[twin.name, None].objects - m.plain[twin.name].objects
    unit = twin.clips.unit
    total = statistics.sums_by_unit(more, unit, counted).total
    weight = statistics.sums_by_unit(visible.sum(2), unit, counted).total
    estimate = statistics.estimate(_pooled(Sums(total, weight), protocol), protocol.seed)
    return make(estimate, metric="undo_error", unit="px", steps=_steps(protocol))


def _locality(
    m: Measured,
    twin: Twins,
    facts: Clips,
    world: World,
    make: Callable[..., list[Row]],
    protocol: CausalProtocol,
) -> list[Row]:
    if set(twin.kinds) & {*TOLD, "gravity"}:  # nothing is left untouched
        return []
    far, both = counterfactual.displacement(facts, twin.clips, world, protocol)
    touched = np.maximum.accumulate(np.where(both, far, np.inf), 1) > protocol.untouched
    seen = _seen_in_both(facts, twin, protocol)
    asked = ~touched & both & seen & ~twin.edited()[:, None]
    asked &= twin.stages[0].changes.valid[:, None, None]
    own, plain = m.edited[twin.name, None], m.plain[twin.name]
    moved = np.linalg.norm(own.place - plain.place, axis=-1)
    moved = np.where(own.found & plain.found, np.minimum(moved, protocol.cap), protocol.cap)
    moved = np.where(own.found | plain.found, moved, 0.0)  # lost in both: the edit did not do it
    sums = statistics.sums_by_unit(moved, twin.clips.unit, asked)
    estimate = statistics.estimate(_pooled(sums, protocol), protocol.seed)
    return make(estimate, metric="locality", unit="px", steps=_steps(protocol))


def _seen_in_both(facts: Clips, twin: Twins, protocol: CausalProtocol) -> np.ndarray:
    shown = [c.truth.visible[:, protocol.context :] for c in (facts, twin.clips)]
    return np.minimum(*shown) >= protocol.visible_share


def _onset(
    m: Measured,
    twin: Twins,
    facts: Clips,
    world: World,
    make: Callable[..., list[Row]],
    protocol: CausalProtocol,
) -> list[Row]:
    if set(twin.kinds) & {*TOLD, "gravity"}:
        return []
    threshold = max(protocol.onset, m.noise)
    seen = _seen_in_both(facts, twin, protocol)
    far, both = counterfactual.displacement(facts, twin.clips, world, protocol)
    steps = np.arange(1, protocol.horizon + 1)[:, None]
    inside = steps <= twin.span[:, None, None]
    true = _first((far > threshold) & both & seen & inside)
    own, plain = m.edited[twin.name, None], m.plain[twin.name]
    moved = np.linalg.norm(own.place - plain.place, axis=-1)
    guess = _first((moved > threshold) & own.found & plain.found & seen)
    asked = (true > 0) & ~twin.edited() & twin.stages[0].changes.valid[:, None]
    diverged = asked & (guess > 0)
    late = np.where(diverged, guess - true, 0)
    unit, number = twin.clips.unit, int(twin.clips.unit.max()) + 1

    def rows(metric: str, value: np.ndarray, where: np.ndarray, name: str) -> list[Row]:
        sums = statistics.sums_by_unit(value[:, None].astype(float), unit, where[:, None], number)
        estimate = statistics.estimate(sums, protocol.seed)
        return make(estimate, metric=metric, unit=name, steps=[0])

    near = diverged & (np.abs(late) <= protocol.onset_within)
    return [
        *rows("onset_within", near, asked, "1"),
        *rows("onset_error", late, diverged, "frames"),
        *rows("onset_missing", asked & ~diverged, asked, "1"),
    ]


def _first(where: Bool[np.ndarray, "r t n"]) -> Int[np.ndarray, "r n"]:
    """The first horizon step at which it holds; 0 where it never does."""
    return np.where(where.any(1), where.argmax(1) + 1, 0)
