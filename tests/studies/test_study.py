"""What a study file may say, and that every one in the repository says it."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from wm_jax import config as configs
from wm_jax.errors import UserError
from wm_jax.studies import cli
from wm_jax.studies import study as studies
from wm_jax.studies.plan import Plan
from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

ROOT = Path(__file__).parents[2]
CLAIM = Claim("A is ahead of b.", "a paper", "a", "b", "position_error", 5, "lower", 0.5)
SCALE = Scale(
    budget=Budget(frames=640),
    seeds=(0, 1, 2),
    data=Data("twins:motion", 32, train=4, validation=2, test=2, test_length=64),
    steps=(1, 5),
    horizon=8,
    starts=(0,),
)
GRU = {"model.name": "grid_gru", "model.patch": 8, "train.batch_size": 2, "data.window": 16}
STUDY = Study(
    claims=(CLAIM,),
    base="experiments/configs/twins.py:quickstart",
    arms={"a": Arm(GRU, (1e-3, 3e-3)), "b": Arm({**GRU, "data.window": 8}, (1e-3, 2e-3))},
    scales={"small": SCALE},
    name="trial",
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", studies.names())
def test_every_study_validates_at_every_scale(name, capsys):
    study = studies.load(name)
    assert set(study.scales) == set(studies.SCALES), "smoke, small and paper"
    for scale in study.scales:
        assert cli.main([name, "--scale", scale, "--dry-run", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["runs"] == len(study.arms) * len(study.scales[scale].seeds)
    assert study.claims[0].sentence.endswith(".")
    assert study.scales["smoke"].quick
    assert len(study.scales["small"].seeds) >= 3, "fewer can decide nothing"


def test_there_are_studies():
    assert "backbones" in studies.names()


def with_scale(**changes):
    scale = dataclasses.replace(SCALE, **changes)
    return dataclasses.replace(STUDY, scales={"small": scale})


def with_claim(**changes):
    return dataclasses.replace(STUDY, claims=(dataclasses.replace(CLAIM, **changes),))


def with_arm(changes, rates=(1e-3, 3e-3)):
    return dataclasses.replace(STUDY, arms={**STUDY.arms, "a": Arm({**GRU, **changes}, rates)})


@pytest.mark.parametrize(
    "study, sentence",
    [
        (with_arm({"model.dynamics.hiden": 4}), "arm a: unknown config key.*did you mean.*hidden"),
        (with_arm({"model.dynamics.hidden": "many"}), "arm a: config.*is not a whole number"),
        (with_arm({"model.patch": 5}), "arm a: .*patch=5"),
        (with_arm({"model.name": "grid_slot"}), "grid_slot"),
        (with_arm({"train.steps": 7}), "arm a: train.steps is set by the study"),
        (with_arm({"optim.learning_rate": 1.0}), "optim.learning_rate is set by the study"),
        (with_arm({}, rates=(1e-3,)), "same number of learning rates.*a 1, b 2"),
        (with_arm({"train.window_doublings": (0.5,)}), "window_doublings must be"),
        (with_claim(arm="c"), "unknown arm in a claim.*'c'"),
        (with_claim(against="a"), "with itself"),
        (with_claim(metric="position_eror"), "did you mean 'position_error'"),
        (with_claim(step=4), "position_error at step 4 is not in the table"),
        (with_claim(metric="psnr"), "psnr at step 5 is not in the table"),
        (with_claim(expected="less"), "'lower' or 'higher'"),
        (with_claim(smallest=-1.0), "at least 0"),
        (with_scale(budget=Budget()), "either minutes or frames"),
        (with_scale(budget=Budget(minutes=1, frames=1)), "either minutes or frames"),
        (with_scale(tuning=Budget(frames=-1)), "either minutes or frames"),
        (with_scale(seeds=(0, 0)), "distinct"),
        (with_scale(seeds=(1000,)), "not 1000"),
        (with_scale(steps=(5, 9)), "between 1 and the horizon 8"),
        (with_scale(arms={"c": {}}), "unknown arm in .*'c'"),
        (with_scale(starts=(0, 60)), "does not fit into test episodes of 64"),
        (dataclasses.replace(STUDY, claims=()), "there is no claim"),
        (dataclasses.replace(STUDY, metrics=("sharpness",)), "unknown metric"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(study, sentence):
    with pytest.raises(UserError, match=sentence):
        studies.check(study, "small")


def test_an_unknown_scale_or_study_is_told():
    with pytest.raises(UserError, match="unknown scale of study trial 'smal'"):
        studies.check(STUDY, "smal")
    with pytest.raises(UserError, match="there is no study backbone; there are: .*backbones"):
        studies.load("backbone")


def test_a_file_that_is_no_study_is_told(tmp_path):
    (tmp_path / "empty.py").write_text("STUDY = None\n")
    with pytest.raises(UserError, match="must define STUDY"):
        studies.load(str(tmp_path / "empty.py"))


def test_the_same_frames_are_the_same_frames():
    studies.check(STUDY, "small")
    for arm in STUDY.arms:
        config = STUDY.config(SCALE, arm, seed=0, rate=1e-3)
        assert config.train.steps * config.train.batch_size * config.data.window == 640


def test_minutes_leave_the_number_of_updates_to_the_trainer():
    config = STUDY.config(SCALE, "a", 3, 2e-3, Budget(minutes=1.5))
    assert (config.train.minutes, config.train.steps) == (1.5, 0)
    assert (config.seed, config.optim.learning_rate) == (3, 2e-3)
    assert config.train.clip_every == 0, "drawing costs time of training"


def plan(scale=SCALE, seeds=(0, 1), out=Path("out")):
    return Plan(STUDY, "small", scale, seeds, out, out / "results")


TUNED = dataclasses.replace(SCALE, tuning=Budget(frames=64))


def test_every_arm_gets_the_same_tuning():
    jobs = plan(TUNED).tuning()
    assert [(j.content["arm"], j.content["rate"]) for j in jobs] == [
        *(("a", 1e-3), ("a", 3e-3)),
        *(("b", 1e-3), ("b", 2e-3)),
    ]
    frames = {
        j.content["config"]["train"]["steps"]
        * j.content["config"]["train"]["batch_size"]
        * j.content["config"]["data"]["window"]
        for j in jobs
    }
    assert frames == {64}
    assert {j.content["seed"] for j in jobs} == {1000}, "no seed of a result"
    assert plan(SCALE).tuning() == []


def test_the_winner_is_the_best_on_validation_and_a_failure_never_wins():
    tried = [
        {"arm": "a", "rate": 1e-3, "validation": 4.0, "updates": 9},
        {"arm": "a", "rate": 3e-3, "validation": 2.0, "updates": 8},
        {"arm": "b", "rate": 1e-3, "validation": 3.0, "updates": 7},
        {"arm": "b", "rate": 2e-3, "failed": "loss is nan"},
    ]
    chosen = plan(TUNED).choose(tried)
    assert {arm: rate for arm, (rate, _) in chosen.items()} == {"a": 3e-3, "b": 1e-3}
    assert chosen["b"][1]["rates"] == {"0.001": 3.0, "0.002": None}
    with pytest.raises(UserError, match="no learning rate of the arm b"):
        plan(TUNED).choose([*tried[:2], tried[3]])
    assert {arm: rate for arm, (rate, _) in plan().choose([]).items()} == {"a": 1e-3, "b": 1e-3}


def test_a_metric_that_should_be_high_is_chosen_high():
    claim = dataclasses.replace(CLAIM, metric="ssim", expected="higher")
    high = dataclasses.replace(plan(TUNED), study=dataclasses.replace(STUDY, claims=(claim,)))
    tried = [{"arm": a, "rate": r, "validation": r} for a in "ab" for r in (1e-3, 2e-3)]
    assert {rate for rate, _ in high.choose(tried).values()} == {2e-3}


def jobs_of(scale=SCALE, seeds=(0, 1), out=Path("out")):
    of = plan(scale, seeds, out)
    return of.runs(of.choose([]))


def test_runs_go_seed_by_seed_so_that_all_arms_have_some():
    names = [job.name for job in jobs_of()]
    assert names == ["a seed 0", "b seed 0", "a seed 1", "b seed 1"]
    assert len({job.workdir for job in jobs_of()}) == 4


def test_a_job_is_known_by_what_decides_its_numbers():
    def identities(**changes):
        return [j.content["identity"] for j in jobs_of(dataclasses.replace(SCALE, **changes))]

    same = identities()
    assert len(set(same)) == 4
    assert identities(jobs=2, quick=True) == same
    for changes in ({"horizon": 9}, {"episodes": 3}, {"budget": Budget(frames=320)}):
        assert not set(identities(**changes)) & set(same), changes


def test_a_knob_that_is_added_later_disowns_no_run(monkeypatch):
    before = [job.content["identity"] for job in jobs_of()]
    real = configs.base_config

    def with_another_knob(model="grid_slots"):
        config = real(model)
        with config.unlocked():
            config.train.brand_new = 7
        return config

    monkeypatch.setattr(configs, "base_config", with_another_knob)
    config = with_another_knob()
    job = jobs_of()[0].content["config"]
    monkeypatch.setattr(Study, "config", lambda *_: config_with(job, config.train.brand_new))
    assert jobs_of()[0].content["identity"] == before[0]
    monkeypatch.setattr(Study, "config", lambda *_: config_with(job, 8))
    assert jobs_of()[0].content["identity"] != before[0]


def config_with(content, value):
    """A config of another time, with one more knob."""
    config = configs.base_config(content["model"]["name"])
    return configs.change(config, configs.flat(content) | {"train.brand_new": value})


def test_a_result_of_something_else_is_never_taken_for_this_one(tmp_path):
    job = jobs_of(out=tmp_path)[0]
    assert not job.done()
    job.result.parent.mkdir(parents=True)
    job.result.write_text(json.dumps({"identity": job.content["identity"]}))
    assert job.done()
    job.result.write_text(json.dumps({"identity": "another"}))
    with pytest.raises(UserError, match="another config, protocol or data set"):
        job.done()


def test_two_data_sets_never_share_a_folder():
    data = SCALE.data
    variants = [data, *(dataclasses.replace(data, **{f: 7}) for f in ("train", "test", "seed"))]
    variants += [dataclasses.replace(data, twins=2), dataclasses.replace(data, shifted=1)]
    assert len({v.directory() for v in variants}) == len(variants)


def test_the_list_of_studies_names_their_claims(capsys):
    assert cli.main([]) == 0
    assert "backbones" in capsys.readouterr().out
    assert cli.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbones"].endswith(".")


def test_bad_options_are_one_sentence():
    with pytest.raises(UserError, match="not whole numbers by commas"):
        cli.main(["backbones", "--seeds", "one"])
    with pytest.raises(UserError, match="seed 1000 is that of the tuning"):
        cli.main(["backbones", "--seeds", "0,1000", "--dry-run"])


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    begin = time.time()
    out = tmp_path / "out"
    assert cli.main(["backbones", "--dry-run", "--out", str(out), "--results", str(out)]) == 0
    told = capsys.readouterr().out
    assert "training takes" in told
    assert "rssm: model.name=rssm" in told
    assert not out.exists()
    assert not any(p.stat().st_mtime > begin for p in Path("experiments/results").glob("studies/*"))
