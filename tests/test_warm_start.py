"""Another run's weights: by name, all of the shape that they have here, and what was not taken."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wm_jax
from tests import tiny
from wm_jax import checkpoint, mesh, optim, stored, warm_start
from wm_jax.errors import UserError
from wm_jax.train_step import init_state


def fresh(model=None, seed=1):
    config = tiny.config()
    return init_state(
        model or tiny.TinyModel(),
        optim.make_optimizer(config.optim),
        mesh.to_batch(tiny.arrays()),
        seed,
        mesh.make_mesh(config.mesh),
        ema=0.9,
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run with two checkpoints whose averages differ from their weights."""
    workdir, state = tmp_path_factory.mktemp("other"), fresh(seed=0)
    checkpoints = checkpoint.Checkpoints(workdir)
    for step in (3, 4):
        average = jax.tree.map(lambda x, step=step: x + step, state.params)
        state = state._replace(step=jnp.int32(step), ema=average)
        checkpoints.save(state, {"batches": step}, tiny.config())
    checkpoints.wait()
    return workdir, state


def test_all_weights_are_the_averages_of_the_other_run(other):
    workdir, theirs = other
    mine = fresh()
    state, report = warm_start.begin(mine, str(workdir), ())
    jax.tree.map(np.testing.assert_array_equal, state.params, theirs.ema)
    jax.tree.map(np.testing.assert_array_equal, state.ema, theirs.ema)
    assert int(state.step) == 0
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, mine.opt_state)
    np.testing.assert_array_equal(state.key, mine.key)
    assert len(report.taken) == 4 and not report.drawn and not report.left
    assert report.sentence().startswith("4 weights are those of ")


def test_a_checkpoint_may_be_named(other):
    workdir, theirs = other
    state, report = warm_start.begin(fresh(), f"{workdir}/checkpoints/3", ())
    assert report.update == 3
    np.testing.assert_array_equal(
        state.params["dynamics"]["bias"], theirs.params["dynamics"]["bias"] + 3
    )


def test_what_is_skipped_is_drawn_and_told(other):
    mine = fresh()
    state, report = warm_start.begin(mine, str(other[0]), ("decoder", "dynamics/bias"))
    assert report.drawn == report.left == ["decoder/kernel", "dynamics/bias"]
    np.testing.assert_array_equal(
        state.params["decoder"]["kernel"], mine.params["decoder"]["kernel"]
    )
    assert "drawn anew: decoder/kernel, dynamics/bias; not taken" in report.sentence()


def test_another_shape_is_refused_by_name(other):
    with pytest.raises(
        UserError,
        match=r"decoder/kernel is float32 \[16, 192\] there and float32 \[8, 192\] here; name it",
    ):
        warm_start.begin(fresh(tiny.TinyModel(width=8)), str(other[0]), ())


def test_no_shared_name_is_refused(other):
    with pytest.raises(UserError, match="shares no weight with this model"):
        warm_start.begin(fresh(), str(other[0]), ("encoder", "dynamics", "decoder"))


def test_no_run_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        warm_start.begin(fresh(), str(tmp_path), ())


def test_a_run_begins_with_them_and_resumes_as_its_own(tmp_path, other, capsys):
    changes = {"train__init_from": str(other[0]), "optim__learning_rate": 0.0}
    tiny.train(tmp_path, train__steps=10, **changes)
    assert "4 weights are those of" in capsys.readouterr().err
    params, _, _ = checkpoint.restore_params(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, other[1].ema)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    (event,) = [row for row in map(json.loads, lines) if row["event"] == "warm_start"]
    assert event["update"] == 4 and len(event["taken"]) == 4


def test_what_is_to_be_skipped_and_is_not_there_is_refused(other):
    with pytest.raises(UserError, match="no weight 'dynamic', .* did you mean 'dynamics'"):
        warm_start.begin(fresh(), str(other[0]), ("dynamic",))


def test_an_export_without_the_extra_names_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "wm_jax.export_loader", raising=False)
    monkeypatch.delattr(wm_jax, "export_loader", raising=False)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(UserError, match=r"safetensors.*wm_jax\[export\]"):
        stored.read("experiments/pretrained/motion")


def test_an_export_gives_its_weights_too():
    folder = "experiments/pretrained/motion"
    theirs, _, updates = stored.read(folder)
    mine = jax.tree.map(jnp.zeros_like, theirs) | {"more": {"bias": jnp.ones(2)}}
    state, report = warm_start.begin(fresh()._replace(params=mine), folder, ())
    assert updates == 0 and report.drawn == ["more/bias"]
    assert report.sentence().startswith(f"{len(report.taken)} weights are those of {folder};")
    jax.tree.map(np.testing.assert_array_equal, state.params, theirs | {"more": mine["more"]})
