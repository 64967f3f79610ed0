"""A worker's own decisions, without a training: what becomes of a run that fails or is stopped."""

import json

import pytest

from wm_jax.config import base_config
from wm_jax.errors import UserError
from wm_jax.studies import worker
from wm_jax.train import TrainingDiverged


@pytest.fixture
def job(tmp_path, monkeypatch):
    """On disk, for a process that keeps its stdin to itself."""
    monkeypatch.setattr(worker, "_leave_with_parent", lambda: None)
    content = {
        "study": "trial", "scale": "small", "kind": "run", "arm": "a", "seed": 3, "rate": 1e-3,
        "tuning": {}, "identity": "abc", "cores": [], "workdir": str(tmp_path / "work"),
        "result": str(tmp_path / "results" / "a-3.json"), "config": base_config().to_dict(),
    }  # fmt: skip
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text(json.dumps(content["config"]))
    path = tmp_path / "job.json"
    path.write_text(json.dumps(content))
    return path


def trained(monkeypatch, outcome):
    def train(config, workdir):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(worker, "train", train)


def result(job):
    return json.loads((job.parent / "results" / "a-3.json").read_text())


def test_a_run_that_diverges_is_a_result(job, monkeypatch):
    trained(monkeypatch, TrainingDiverged("train/loss/total is nan at update 7"))
    assert worker.main([str(job)]) == 0
    stored = result(job)
    assert stored["failed"] == "train/loss/total is nan at update 7"
    assert (stored["arm"], stored["seed"], stored["identity"]) == ("a", 3, "abc")
    assert "sums" not in stored
    assert stored["versions"].keys() >= {"python", "jax"}
    assert stored["hardware"]["cores"] >= 1


def test_a_run_that_is_stopped_leaves_its_cost_and_no_result(job, monkeypatch):
    trained(monkeypatch, {"stopped": True})
    assert worker.main([str(job)]) == worker.STOPPED
    assert not (job.parent / "results").exists()
    assert json.loads((job.parent / "work" / "cost.json").read_text())["core_minutes"] > 0


def test_bad_input_is_one_sentence_and_status_2(job, monkeypatch, capsys):
    trained(monkeypatch, UserError("data/studies/x holds no data set."))
    assert worker.main([str(job)]) == 2
    assert capsys.readouterr().err == "data/studies/x holds no data set.\n"


def test_a_finished_run_is_judged_and_keeps_its_last_checkpoint(job, monkeypatch):
    trained(monkeypatch, {"stopped": False})
    monkeypatch.setattr(worker, "_judged", lambda *_: {"updates": 9})
    for step in (1, 5, 9):
        (job.parent / "work" / "checkpoints" / str(step)).mkdir(parents=True)
    assert worker.main([str(job)]) == 0
    assert result(job)["updates"] == 9
    assert [p.name for p in (job.parent / "work" / "checkpoints").iterdir()] == ["9"]
