"""The probes suite: what of the scene can be read off a model's state, and for how long?

States of training episodes train small read-outs (`readouts`), states of test episodes score them:
posteriors, which have seen the frames up to their own, and priors some steps ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from wm_jax.evaluation import film, informed, readouts, statistics
from wm_jax.evaluation.probe_states import Reader
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.readouts import Examples, Features, Tuning
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World

#: What is read out, and which of the numbers of `Examples.value` it is.
FIELDS = {
    "position": slice(0, 2),
    "velocity": slice(2, 4),
    "mass": slice(4, 5),
    "contact": slice(5, 6),
    "presence": slice(6, 7),
}
NUMBERS = 7
#: What is scored -> the field it is a score of.
SCORES = {
    "position": "position",
    "velocity": "velocity",
    "hidden_position": "position",
    "hidden_presence": "presence",
    "contact": "contact",
    "mass": "mass",
}
#: Those that have an error in px, too.
IN_PX = ("position", "hidden_position")
#: What is done to a tested model, beside nothing, and in words.
CONTROLS = {
    "random_weights": "random weights",
    "one_frame": "one frame shown",
    "shuffled_labels": "labels shuffled",
}


class Targets(NamedTuple):
    """What is true at each of s moments of some clips, by hue.

    asked:  what a read-out learns from and is scored on
    hidden: it was seen and now cannot be; seen: at least visible_share of it can
    """

    value: Float[np.ndarray, "r s h f"]
    asked: Bool[np.ndarray, "r s h f"]
    hidden: Bool[np.ndarray, "r s h"]
    seen: Bool[np.ndarray, "r s h"]


def targets(clips: Clips, world: World, protocol: ProbeProtocol) -> Targets:
    """At the moments of the protocol."""
    truth, moments = clips.truth, list(protocol.moments)
    # After the context nothing more is seen.
    seen_by = [min(m, protocol.context - 1) for m in moments]
    there, visible = truth.present[:, moments], truth.visible[:, moments]
    clear = np.maximum.accumulate(truth.visible >= protocol.visible_share, 1)
    known = clear[:, seen_by] & there
    met = np.maximum.accumulate(truth.meeting, 1)[:, moments]
    struck = np.any([truth.touching[:, np.array(moments) - k] for k in range(protocol.recent)], 0)
    hidden = known & (visible < protocol.hidden_share)

    scenes = clips.scenes[:, moments]
    position = world.to_pixels(world.get(scenes, "position"), scenes)
    velocity = world.get(scenes, "velocity") * protocol.unit
    mass = np.log(np.maximum(world.get(scenes, "mass"), 1e-6))
    told = np.stack([mass, struck, there], -1)
    value = np.concatenate([position, velocity, told], -1)
    asked = np.repeat(known[..., None], NUMBERS, -1)
    asked[..., FIELDS["mass"]] &= met[..., None]
    asked[..., FIELDS["presence"]] = hidden[..., None]

    hues = len(world.palette)
    lead = (*there.shape[:2], hues)
    out = Targets(
        np.zeros((*lead, NUMBERS)), np.zeros((*lead, NUMBERS), bool),
        np.zeros(lead, bool), np.zeros(lead, bool),
    )  # fmt: skip
    out.asked[..., FIELDS["presence"]] = True  # of hues that nothing has: that nothing is there
    clip, moment, slot = np.nonzero(there)
    of = clip, moment, slot
    at = clip, moment, truth.hue[:, moments][of]
    out.value[at], out.asked[at], out.hidden[at] = value[of], asked[of], hidden[of]
    out.seen[at] = visible[of] >= protocol.visible_share
    return out


def truth_reader(world: World, protocol: ProbeProtocol) -> Reader:
    """The true scene as a state, ordered by hue, so that a linear map reads all of it."""

    def read(clips: Clips) -> np.ndarray:
        told = targets(clips, world, protocol)
        there = told.value[..., FIELDS["presence"]]
        state = told.value * np.maximum(there, 0)
        return state.reshape(*state.shape[:2], 1, -1).astype(np.float32)

    return read


#: (score, probe) -> squared errors and squared distances from the training mean; and (score, probe,
#: "px") -> errors in px and how many: per episode, and at step 0 and the steps ahead.
Scores = dict[tuple[str, ...], Sums]


class Measured(NamedTuple):
    """Scores, and what each probe read off the states of the test clips."""

    scores: Scores
    guesses: dict[str, Float[np.ndarray, "r s h f"]]


def measure(
    both: tuple[Features, Features],
    told: tuple[Targets, Targets],
    units: tuple[np.ndarray, np.ndarray],
    protocol: ProbeProtocol,
    shuffled: bool = False,
) -> Measured:
    """Trains and scores every read-out. ``units`` are the episodes of the clips of both splits."""
    tuning = Tuning(protocol.hidden, protocol.updates, protocol.batch, protocol.learning_rates)
    looks, moments = len(protocol.looks), len(protocol.moments)
    guesses: dict[str, list[np.ndarray]] = {}
    means = np.zeros((moments, 1, NUMBERS))
    for part in (slice(0, looks), slice(looks, moments)):
        train = _examples(both[0], told[0], units[0], part)
        if shuffled:
            order = np.random.default_rng(protocol.seed).permutation(len(train.value))
            train = train._replace(value=train.value[order], asked=train.asked[order])
        means[part] = readouts.moments(train)[0]
        test = jax.tree.map(lambda x, p=part: x[:, p], both[1])
        lead = test.whole.shape[:2]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), test)
        for probe in protocol.probes:
            guess = readouts.fit(probe, train, tuning, protocol.seed)(flat)
            guesses.setdefault(probe, []).append(guess.reshape(*lead, *guess.shape[1:]))
    joined = {probe: np.concatenate(parts, 1) for probe, parts in guesses.items()}
    scores = {
        (key[0], probe, *key[1:]): sums
        for probe, guess in joined.items()
        for key, sums in _errors(guess, told[1], means, units[1], protocol).items()
    }
    return Measured(scores, joined)


def _examples(features: Features, told: Targets, unit: np.ndarray, part: slice) -> Examples:
    def flat(x: Any) -> Any:
        x = x[:, part]
        return x.reshape(-1, *x.shape[2:])

    group = np.repeat(unit, part.stop - part.start)
    return Examples(Features(*map(flat, features)), flat(told.value), flat(told.asked), group)


def _where(score: str, told: Targets) -> Bool[np.ndarray, "r s h"]:
    """The objects that count in a score."""
    asked = told.asked[..., FIELDS[SCORES[score]].start]
    if score == "position":
        return asked & told.seen
    return asked & told.hidden if score == "hidden_position" else asked


def _errors(
    guess: Float[np.ndarray, "r s h f"],
    told: Targets,
    mean: Float[np.ndarray, "s 1 f"],
    unit: np.ndarray,
    protocol: ProbeProtocol,
) -> Scores:
    """By score, and by score and 'px'; summed over hues. Posteriors are all of step 0."""
    looks = len(protocol.looks)

    def sums(*pair: np.ndarray) -> Sums:
        each = (x.sum(2) for x in pair)
        steps = (
            np.concatenate([x[:, :looks].sum(1, keepdims=True), x[:, looks:]], 1) for x in each
        )
        return Sums(*(statistics.sums_by_unit(x, unit).total for x in steps))

    out: Scores = {}
    for score, name in SCORES.items():
        field, where = FIELDS[name], _where(score, told)
        off = np.square(guess[..., field] - told.value[..., field]).sum(-1)
        far = np.square(told.value[..., field] - mean[..., field]).sum(-1)
        out[(score,)] = sums(off * where, far * where)
        if score in IN_PX:
            out[score, "px"] = sums(np.minimum(np.sqrt(off), protocol.cap) * where, where)
    return out


def straight_on(
    clips: Clips, told: Targets, world: World, instrument: Instrument, protocol: ProbeProtocol
) -> Scores:
    """Errors in px of constant velocity, which trains nothing."""
    guess = np.full((*told.seen.shape, NUMBERS), np.nan)
    for number, moment in enumerate(protocol.moments):
        context = min(moment + 1, protocol.context)
        place, known = informed.straight_on(clips, world, instrument, context, np.array([moment]))
        place = world.to_pixels(place, clips.scenes[:, [moment]])[:, 0]
        clip, slot = np.nonzero(known)
        hue = clips.truth.hue[clip, moment, slot]
        guess[clip, number, hue, :2] = place[clip, slot]
    guess = np.where(np.isnan(guess), 1e6, guess)  # never seen: as far off as can be
    errors = _errors(guess, told, np.zeros((1, 1, NUMBERS)), clips.unit, protocol)
    return {key: sums for key, sums in errors.items() if key[1:] == ("px",)}


def table(
    measured: Mapping[tuple[str, str | None], Scores],
    straight: Scores,
    protocol: ProbeProtocol,
    seed: int | None,
    tested: Sequence[str],
) -> list[Row]:
    """Rows of every model and control. The metric of a read-out is SCORE_PROBE, its selectivity and
    its error in px the same with a suffix."""
    steps, rows = [0, *protocol.ahead], []
    for (model, control), scores in measured.items():
        trained = seed if model in tested else None

        def add(estimate, metric, unit, control=control, model=model, trained=trained):
            rows.extend(
                make_rows(
                    estimate,
                    protocol,
                    model=model,
                    metric=metric,
                    unit=unit,
                    control=control,
                    seed=trained,
                    steps=steps,
                )
            )

        for (score, probe, *px), sums in scores.items():
            if px:
                estimate = statistics.estimate(sums, protocol.seed)
                add(estimate, f"{score}_error_{probe}", "px")
                if control is None and model in tested:
                    pair = sums, straight[score, "px"]
                    estimate = statistics.difference(*pair, protocol.seed)
                    add(estimate, f"{score}_error_{probe}_difference", "px", "constant_velocity")
                continue
            if not sums.weight.any() or _constant(score, measured, protocol):
                continue
            add(_explained(statistics.estimate(sums, protocol.seed)), f"{score}_{probe}", "1")
            labels = measured.get((model, "shuffled_labels"))
            if control is None and labels is not None:
                estimate = statistics.difference(labels[score, probe], sums, protocol.seed)
                add(estimate, f"{score}_{probe}_selectivity", "1")
    for (score, _), sums in straight.items():
        estimate = statistics.estimate(sums, protocol.seed)
        rows += make_rows(
            estimate, protocol, model="constant_velocity", metric=f"{score}_error", unit="px",
            steps=steps,
        )  # fmt: skip
    return rows


def best_probe(rows: Sequence[Row], model: str, protocol: ProbeProtocol) -> str:
    """The probe that reads the places of visible objects best off a model's posteriors."""
    value = {
        row["metric"]: row["value"]
        for row in rows
        if (row["model"], row["control"], row["step"]) == (model, None, 0)
    }
    return max(protocol.probes, key=lambda probe: value[f"position_{probe}"] or -np.inf)


def films(
    clips: Clips, told: Targets, guess: np.ndarray, world: World, protocol: ProbeProtocol
) -> list[list[np.ndarray]]:
    """True frames of some clips, four times as large, at the last look and the steps ahead, with a
    ring where each object that counts is read out, in its colour."""
    chosen = list(range(len(protocol.looks) - 1, len(protocol.moments)))
    out = []
    for clip in range(len(clips.frames)):
        pictures = []
        for moment in chosen:
            frame = clips.frames[clip, protocol.moments[moment]]
            places = {
                int(hue): guess[clip, moment, hue, FIELDS["position"]]
                for hue in np.flatnonzero(told.asked[clip, moment, :, 0])
            }
            pictures.append(film.ringed(frame, places, world.palette))
        out.append(pictures)
    return out


def _explained(estimate: statistics.Estimate) -> statistics.Estimate:
    """From the share that is left to the share that is explained."""
    value, low, high, n = estimate
    return statistics.Estimate(1 - value, 1 - high, 1 - low, n)


def _constant(score: str, measured: Mapping[Any, Scores], protocol: ProbeProtocol) -> bool:
    """Whether there is nothing to explain: all masses are equal in some worlds."""
    any_scores = next(iter(measured.values()))
    return float(any_scores[score, protocol.probes[0]].weight.sum()) < 1e-6
