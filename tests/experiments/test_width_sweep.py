"""The sweep of widths: what it calls the optimum, and that it moves."""

import math

import pytest

from experiments.benchmarks import width_sweep
from tests import tiny
from wm_jax.config import flat

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]


def parabola(best):
    return [(math.log2(rate / best)) ** 2 + 3 for rate in RATES]


@pytest.mark.parametrize("best", [2e-3, 2.7e-3, 5e-3])
def test_the_optimum_of_a_parabola_is_exact(best):
    rate, edge = width_sweep.optimum(RATES, parabola(best))
    assert rate == pytest.approx(best, rel=1e-6) and not edge


def test_an_optimum_at_the_edge_is_said():
    assert width_sweep.optimum(RATES, [1, 2, 3, 4, 5]) == (1e-3, True)
    rate, edge = width_sweep.optimum(RATES, [3, 2, 1, math.inf, math.inf])
    assert rate == 4e-3 and not edge  # a neighbour that diverged says nothing of where


@pytest.mark.parametrize("bests, moves", [((2e-3, 2.5e-3), False), ((2e-3, 6e-3), True)])
def test_the_verdict(monkeypatch, bests, moves):
    left = iter(bests)
    monkeypatch.setattr(width_sweep, "curve", lambda *_: parabola(next(left)))
    rows = width_sweep.sweep(tiny.config(), (1.0, 2.0), RATES, (0,), 10)
    assert rows[-1]["moves"] == moves
    assert rows[-1]["spread"] == pytest.approx(bests[1] / bests[0], rel=1e-6)
    assert len(rows) == 2 * (len(RATES) + 1) + 1


def test_a_width_is_a_factor_on_all_keys_at_once():
    config = tiny.config()
    wide = width_sweep.widened(config, 2.0, ("model.dynamics.width", "model.embed", "model.none"))
    before, after = flat(config), flat(wide)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"model.dynamics.width", "model.embed"}
    assert after["model.embed"] == 2 * before["model.embed"]


@pytest.mark.parametrize("rate, better", [(3e-3, True), (1e9, False)])
def test_a_curve_is_a_run_at_each_rate(monkeypatch, rate, better):
    """A sensible rate ends lower than none; an absurd one does not, and does not stop the sweep."""
    monkeypatch.setattr(width_sweep.models, "build", lambda _: tiny.TinyModel())
    config = tiny.config(train__window_doublings=(), optim__clip="none")
    none, some = width_sweep.curve(config, [0.0, rate], 0, 40, tiny.episodes())
    assert (some < 0.98 * none) == better
