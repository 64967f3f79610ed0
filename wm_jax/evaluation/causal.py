"""The causal suite: when the scene is changed, does the model's future change as the real one?

A *subject* encodes a context, imagines a future, with or without changes made in its state, and may
look at some true frames first (the oracle). Everything is read off its frames by the instrument and
scored against twins (`counterfactual`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.edit import KINDS, Edits
from wm_jax.evaluation import adherence, pixel
from wm_jax.evaluation.causal_subjects import Hearing, Subject
from wm_jax.evaluation.counterfactual import Stage, Twins
from wm_jax.evaluation.lighting import light_error
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.sound import HearsSound
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Changes, Clips

#: What is done to a subject: its edit, the same kind drawn anew, true frames in place of an edit,
#: a sentence in place of an edit, and one that says all its numbers too.
CONTROLS = (None, "shuffled", "oracle", "sentence", "numbers")
STEPS = (5, 8, 10, 15, 20, 30, 40, 60)


class Futures(NamedTuple):
    """Rollouts of one subject against the twins of one scenario.

    objects: px, distance from the twin, by horizon step
    ssim:    1 - SSIM, the same; NaN where it is not reported
    place, found: of the twin's objects: where they are, px, if they are
    happened: whether what the sentence says did; False where it was not asked. None of an unedited
        rollout, and of a scenario that no sentence says
    """

    objects: Float[np.ndarray, "r t"]
    ssim: Float[np.ndarray, "r t"]
    place: Float[np.ndarray, "r t n 2"]
    found: Bool[np.ndarray, "r t n"]
    happened: Bool[np.ndarray, " r"] | None = None


#: Where objects are, px (r, t, n, 2), and whether they are found (r, t, n).
Whereabouts = tuple[np.ndarray, np.ndarray]


class Measured(NamedTuple):
    """Of one subject: what it made of each scenario under each control (see `CONTROLS`) that it
    supports, and unedited.

    unedited: where the objects of the factual truth are in the unedited rollout, px, and whether
    acted: the same when it is told the actions of another clip; None without a hand
    noise: px, by which two unedited rollouts differ (0 of a deterministic one)
    heard: where they are in rollouts that hear the true sound (None) and others (see `sound`);
        empty of a subject that is not told sound
    null:  largest change, in grey levels, that an edit made which changes nothing, by clip
    """

    edited: dict[tuple[str, str | None], Futures]
    plain: dict[str, Futures]
    unedited: Whereabouts
    acted: Whereabouts | None
    noise: float
    null: Int[np.ndarray, " r"] | None
    heard: dict[str | None, Whereabouts]


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
    at = [step - 1 for step in steps_of(protocol)[1:]]
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
    sounds: Mapping[str | None, Clips] | None = None,
) -> Measured:
    """Everything about one subject, averaged over ``samples``. ``progress`` is called with the
    number of clips that are done; ``otherwise`` is from `counterfactual.acted_otherwise`,
    ``sounds`` from `sound.heard_otherwise`."""
    edited: dict[tuple[str, str | None], list[Futures]] = {}
    plain: dict[str, list[Futures]] = {}
    nulls, noises, whereabouts, acted = [], [], [], []
    heard: dict[str | None, list[Whereabouts]] = {}
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
        for sound, clips in (sounds or {}).items():
            if isinstance(subject, HearsSound):
                rolled = subject.hear(states[0], take(clips, index), sound, 0)
                if rolled is not None:
                    where = places(instrument.track(rolled), batch, protocol)
                    heard.setdefault(sound, []).append(where)
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
                made = read(futures, told)
                if twin.asked is not None:
                    both = (
                        adherence.View(unedited[0], tracks[0]),
                        adherence.View(futures[0], told[0]),
                    )
                    asked = [twin.asked[i] for i in index]
                    happened = adherence.answer(asked, *both, protocol.resolution)
                    made = made._replace(happened=happened)
                edited.setdefault((twin.name, control), []).append(made)
        still = next((twin.stages[0] for twin in twins if twin.name == "push"), None)
        if still is not None and "push" in subject.edits:
            stage = _without_effect(_take_stage(still, index))
            after = subject.imagine(states[0], batch, (stage,), 0)
            nulls.append(np.abs(after.astype(int) - unedited[0]).max((1, 2, 3, 4)))
        progress(int(index[-1]) + 1)

    def join(parts: Sequence[Futures]) -> Futures:
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return Measured(
        {key: join(parts) for key, parts in edited.items()},
        {key: join(parts) for key, parts in plain.items()},
        _beside(whereabouts),
        _beside(acted) if acted else None,
        max(noises),
        np.concatenate(nulls) if nulls else None,
        {sound: _beside(parts) for sound, parts in heard.items()},
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
    if twin.name not in (*KINDS, "sequence"):
        return (None,)
    if twin.asked is None or not isinstance(subject, Hearing):
        return CONTROLS[:3]
    return CONTROLS if twin.stages[0].exact != twin.stages[0].words else CONTROLS[:4]


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
    stages = twin.shuffled if control == "shuffled" else twin.stages
    some = [_take_stage(stage, index) for stage in stages]
    if control == "numbers":
        some = [stage._replace(words=stage.exact) for stage in some]
    if control in ("sentence", "numbers") and isinstance(subject, Hearing):
        some = [subject.understand(state, batch, stage) for stage in some]
    return subject.imagine(state, batch, some, sample)


def _take_stage(stage: Stage, index: np.ndarray) -> Stage:
    kind, *arrays = stage.changes
    changes = Changes(kind, *(x[index] for x in arrays))
    edits = Edits(*(x[index] for x in stage.edits))
    each = (stage.words, stage.exact)
    words, exact = (tuple(said[i] for i in index) if said else () for said in each)
    return Stage(stage.at, changes, edits, stage.told[index], words, exact)


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


def steps_of(protocol: CausalProtocol) -> list[int]:
    """The steps that have a row; 0 is all of them together."""
    return [0, *(step for step in STEPS if step <= protocol.horizon)]
