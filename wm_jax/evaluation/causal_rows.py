"""The causal suite's rows: how far edits succeed, what they must not touch, when they arrive."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Int

from wm_jax.edit import TOLD
from wm_jax.evaluation import causal, counterfactual, physics, sound, statistics
from wm_jax.evaluation.causal import steps_of
from wm_jax.evaluation.counterfactual import Twins
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.score import capped
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.world import Clips, World

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
    "prompt_adherence": ("1", True),
    **sound.METRICS,
}


def table(
    measured: dict[str, causal.Measured],
    facts: Clips,
    twins: Sequence[Twins],
    world: World,
    protocol: CausalProtocol,
    seed: int | None,
    tested: Sequence[str],
    otherwise: Clips | None = None,
    sounds: Mapping[str | None, Clips] | None = None,
) -> list[Row]:
    """Rows of every subject and scenario, with ``intervention`` the scenario's name. Of the scores
    of success, ``share`` is how many of the clips qualify at that step."""
    rows: list[Row] = []
    for twin in twins:
        base = causal.truth_of(facts, twin, protocol)
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
            for control in causal.CONTROLS:
                if (twin.name, control) in m.edited:
                    rows += _success(m, twin, control, base, make, protocol)
                    rows += _adherence(m, twin, control, make, protocol)
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
                sums, steps = _pooled(sums, protocol), steps_of(protocol)
            rows += make_rows(
                statistics.estimate(sums, protocol.seed), protocol, model=name, metric=metric,
                unit=physics.METRICS[metric], steps=steps, seed=trained,
            )  # fmt: skip
        if otherwise is not None and m.acted is not None:
            sums = _sensitivity(m.unedited, m.acted, facts, otherwise, world, protocol)
            rows += make_rows(
                statistics.estimate(_pooled(sums, protocol), protocol.seed), protocol, model=name,
                metric="action_sensitivity", unit="1", steps=steps_of(protocol), seed=trained,
            )  # fmt: skip
        if sounds is not None:
            for (metric, control), sums in sound.measure(m.heard, sounds[None], protocol).items():
                rows += make_rows(
                    statistics.estimate(_pooled(sums, protocol), protocol.seed), protocol,
                    model=name, metric=metric, unit="px", control=control,
                    steps=steps_of(protocol), seed=trained,
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
    told: causal.Whereabouts,
    mistold: causal.Whereabouts,
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
        off = capped(place, found, ahead, protocol.cap)
        sums.append(statistics.sums_by_unit(off, facts.unit, asked).total)
    return Sums(*sums)


def _actual(facts: Clips, world: World, protocol: CausalProtocol) -> physics.Course:
    """What the true scenes say, without any instrument."""
    scenes = facts.scenes[:, protocol.context :]
    place = world.to_pixels(world.get(scenes, "position"), scenes)
    there = facts.truth.present[:, protocol.context :]
    return physics.course(place, there, facts, world, protocol)


def scored(twin: Twins, protocol: CausalProtocol) -> Bool[np.ndarray, "r t"]:
    """Clips and steps that count."""
    steps = np.arange(1, protocol.horizon + 1)
    after = steps > twin.stages[-1].at + protocol.oracle_frames
    return twin.differs & after & (steps <= twin.span[:, None])


def _pooled(sums: Sums, protocol: CausalProtocol) -> Sums:
    """All steps together, then the ones that are reported."""
    at = [step - 1 for step in steps_of(protocol)[1:]]
    return Sums(*(np.concatenate([x.sum(1, keepdims=True), x[:, at]], 1) for x in sums))


def _success(
    m: causal.Measured,
    twin: Twins,
    control: str | None,
    base: causal.Futures,
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
        made = make(estimate, metric=metric, unit="1", control=control, steps=steps_of(protocol))
        shares = [
            counted.any(1).mean(),
            *counted[:, [s - 1 for s in steps_of(protocol)[1:]]].mean(0),
        ]
        for row, share in zip(made, shares, strict=True):
            row["share"] = round(float(share), 4)
        rows += made
    return rows


def _adherence(
    m: causal.Measured,
    twin: Twins,
    control: str | None,
    make: Callable[..., list[Row]],
    protocol: CausalProtocol,
) -> list[Row]:
    """Whether what the sentence says happened: after the sentence, after the edit itself, after
    another edit of the kind. The oracle has seen it happen."""
    happened = m.edited[twin.name, control].happened
    if happened is None or twin.asked is None or control == "oracle":
        return []
    asked = np.array([one is not None for one in twin.asked])[:, None]
    sums = statistics.sums_by_unit(happened[:, None].astype(float), twin.clips.unit, asked)
    estimate = statistics.estimate(sums, protocol.seed)
    made = make(estimate, metric="prompt_adherence", unit="1", control=control, steps=[0])
    return [{**row, "share": round(float(asked.mean()), 4)} for row in made]


def _undone(
    m: causal.Measured, twin: Twins, make: Callable[..., list[Row]], protocol: CausalProtocol
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
    return make(estimate, metric="undo_error", unit="px", steps=steps_of(protocol))


def _locality(
    m: causal.Measured,
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
    return make(estimate, metric="locality", unit="px", steps=steps_of(protocol))


def _seen_in_both(facts: Clips, twin: Twins, protocol: CausalProtocol) -> np.ndarray:
    shown = [c.truth.visible[:, protocol.context :] for c in (facts, twin.clips)]
    return np.minimum(*shown) >= protocol.visible_share


def _onset(
    m: causal.Measured,
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
