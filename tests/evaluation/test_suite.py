"""The pixel suite from clips to rows, with subjects whose scores are known."""

import json

import jax
import numpy as np
import pytest

from wm_jax.evaluation import judge, likeness, suite
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.suite import METRICS, PAIRED, Subject
from wm_jax.models.baselines import CopyLast

KEYS = {
    *("suite", "metric", "unit", "split", "step", "value", "low", "high", "n", "model"),
    *("control", "seed", "intervention"),
}


def value(sums, step=0):
    return sums.total[:, step].sum() / sums.weight[:, step].sum()


@pytest.fixture(scope="module")
def small(clips):
    return suite.take(clips, np.arange(4))


def test_a_perfect_prediction_gets_perfect_scores(small, protocol, instrument):
    perfect = Subject("perfect", lambda c, _: Prediction(c.frames[:, protocol.context :]))
    scores, errors = suite.measure(perfect, small, protocol, instrument)
    for step in (0, protocol.horizon - 1):
        assert value(scores["psnr"], step) == pytest.approx(100, abs=1e-3)
        assert value(scores["ssim"], step) == pytest.approx(1, abs=1e-5)
        assert value(scores["position_error"], step) < 0.1
        assert value(scores["matched_share"], step) == 1
        assert value(scores["missed_share"], step) == 0
        assert value(scores["invented_objects"], step) == 0
    assert errors.max() < 0.1


def test_a_grey_prediction_misses_everything_at_the_cap(small, protocol, instrument):
    grey = Subject(
        "grey", lambda c, _: Prediction(np.full_like(c.frames[:, protocol.context :], 100))
    )
    scores, errors = suite.measure(grey, small, protocol, instrument)
    assert value(scores["position_error"]) == pytest.approx(8.0), "16 px at 64 is 8 px at 32"
    assert value(scores["missed_share"]) == 1
    assert value(scores["matched_share"]) == 0
    np.testing.assert_allclose(errors, 8.0)


def test_a_clip_with_nothing_in_sight_has_no_error_and_is_in_no_film(small, protocol, instrument):
    empty = small.truth._replace(visible=small.truth.visible.copy())
    empty.visible[1] = 0
    still = Subject(
        "still", lambda c, _: Prediction(c.frames[:, [protocol.context - 1] * protocol.horizon])
    )
    hidden = small._replace(truth=empty)
    errors = suite.measure(still, hidden, protocol, instrument)[1]
    assert np.isnan(errors).tolist() == [False, True, False, False]
    shown = [film.error for film in judge._films(still, hidden, errors)]
    assert shown == sorted(np.delete(errors, 1)) and len(shown) == 3
    assert judge._films(still, hidden, np.full(4, np.nan)) == []


def test_an_invented_object_costs_the_cap_and_is_shared_out(small, protocol, instrument):
    def with_a_foreign_square(clips, _):
        frames = clips.frames[:, protocol.context :].copy()
        for clip, future in enumerate(frames):
            owned = set(clips.truth.hue[clip][clips.truth.present[clip]].tolist())
            foreign = next(h for h in range(9) if not {h - 1, h, h + 1} & owned)
            future[:, 1:7, 1:7] = np.round(255 * instrument.palette[foreign]).astype(np.uint8)
        return Prediction(frames)

    scores, _ = suite.measure(Subject("x", with_a_foreign_square), small, protocol, instrument)
    assert value(scores["invented_objects"]) == 1
    asked = scores["missed_share"].weight[:, 0].sum()
    assert value(scores["position_error"]) >= 8 * len(small.frames) / (asked + len(small.frames))


def test_a_model_that_draws_gets_all_samples_and_one_that_does_not_gets_one(small, protocol):
    class Noisy(CopyLast):
        def step(self, params, state, conditions, frame=None, key=None):
            state = super().step(params, state, conditions, frame, key)
            if frame is not None:
                return state
            return state._replace(tokens=state.tokens + jax.random.normal(key) * 0.1)

    for model, samples in ((CopyLast((32, 32)), 1), (Noisy((32, 32)), protocol.samples)):
        subject = suite.model_subject("m", model, {}, protocol)
        assert suite.with_samples(subject, small, protocol).samples == samples


def test_scores_of_samples_are_averaged_not_taken_from_the_mean_frame(small, protocol, instrument):
    def alternate(clips, sample):
        frames = clips.frames[:, protocol.context :]
        return Prediction(frames if sample == 0 else np.full_like(frames, 100))

    both = Subject("both", alternate, samples=2)
    scores, _ = suite.measure(both, small, protocol, instrument)
    assert value(scores["missed_share"]) == pytest.approx(0.5)
    assert value(scores["position_error"]) == pytest.approx(4.0, abs=0.1)


def test_rows_have_the_agreed_fields_and_survive_json(judged):
    _, result = judged
    rows = json.loads(json.dumps(result["rows"], allow_nan=False))
    assert all(set(row) - {"note", "clips", "frames"} == KEYS for row in rows)
    assert {row["model"] for row in rows} == {
        *("default", "copy_last", "mean_image", "context_median"),
        *("constant_velocity", "see_then_simulate", "instrument"),
    }
    plain = [
        row for row in rows if row["control"] is None and row["metric"] not in likeness.METRICS
    ]
    assert {row["metric"] for row in plain} == set(METRICS)
    assert {row["step"] for row in plain} == set(range(1, 31))
    assert {row["unit"] for row in plain if row["metric"] == "psnr"} == {"dB"}
    assert {row["n"] for row in plain if row["metric"] == "psnr"} == {3}
    for row in plain:
        if row["value"] is not None:
            assert row["low"] - 1e-6 <= row["value"] <= row["high"] + 1e-6


def test_a_copy_of_a_baseline_scores_as_the_baseline_does(judged):
    _, result = judged
    rows = {}
    for row in result["rows"]:
        rows.setdefault((row["model"], row["control"]), []).append(row)
    for own, other in zip(rows["default", None], rows["copy_last", None], strict=True):
        assert [own[k] for k in ("metric", "step", "value", "low", "high", "n")] == [
            other[k] for k in ("metric", "step", "value", "low", "high", "n")
        ]
    differences = rows["default", "copy_last"]
    assert {row["metric"] for row in differences} == {f"{metric}_difference" for metric in PAIRED}
    assert all(row["value"] in (0, None) for row in differences)


def test_the_result_says_by_which_rules_and_of_what(judged):
    _, result = judged
    protocol = result["protocol"]
    assert protocol["world"] == "twins:motion"
    assert len(protocol["split_hash"]) == len(protocol["digest"]) == 16
    assert result["instrument_holds"] is True
    assert result["models"]["default"]["parameters"] == 3
    assert result["models"]["default"]["updates"] == 7


def test_the_films_are_the_best_a_median_and_the_worst_clip(judged):
    report, _ = judged
    errors = [film.error for film in report.films]
    assert errors == sorted(errors)
    for film in report.films:
        last_shown = film.truth[report.protocol.context - 1]
        assert np.abs(film.predicted.astype(int) - last_shown).max() == 0, "copy-last"
