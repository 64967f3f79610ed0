"""Configs: complete, locked, checked; every refusal names the key and the fix."""

import json

import pytest

from wm_jax import config as configs
from wm_jax import config_rules
from wm_jax.config import base_config, change, difference, flat, from_json, load, to_json, validate
from wm_jax.errors import UserError

EXPERIMENT = """
from wm_jax.config import base_config, change, pick
VARIANTS = {"tiny": {"train.steps": 200}, "long": {"train.steps": 20_000}}
def get_config(variant):
    return change(base_config(), pick(VARIANTS, variant, "variant"))
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "worlds.py"
    path.write_text(EXPERIMENT)
    return path


def test_overrides_take_the_type_of_the_key(experiment):
    config = load(
        f"{experiment}:tiny",
        [
            "--config.train.batch_size=16",
            "--config.optim.learning_rate=3e-4",
            "--config.optim.schedule=wsd",
            "--config.data.conditions=actions,light",
            "--config.train.init_skip=('decoder/network', \"looks\")",
            "config.train.steps=1e3",
        ],
    )
    assert config.train.batch_size == 16 and isinstance(config.train.batch_size, int)
    assert config.optim.learning_rate == 3e-4
    assert config.optim.schedule == "wsd"
    assert config.data.conditions == ("actions", "light")
    assert config.train.init_skip == ("decoder/network", "looks")
    assert config.train.steps == 1000 and isinstance(config.train.steps, int)


@pytest.mark.parametrize(
    "override, words",
    [
        ("--config.train.batchsize=16", r"config key 'train\.batchsize'.*'train\.batch_size'"),
        ("--config.optim.lerning_rate=1", r"did you mean 'optim\.learning_rate'"),
        ("--config.train.batch_size=large", r"train\.batch_size='large' is not a whole number"),
        ("--config.train.batch_size=1.5", "not a whole number"),
        ("--config.optim.learning_rate=fast", "not a number"),
        ("--config.train=3", "unknown config key 'train'"),
        ("--train.steps=3", r"write --config\.KEY=VALUE"),
        ("--config.optim.schedule=cosin", "optim.schedule='cosin' is not one of constant, cosine"),
        ("--config.train.keep=0", "train.keep=0 must be at least 1"),
        ("--config.train.keep_best=psnr", "keep_best='psnr' is not one of .*clip/psnr_db"),
        ("--config.train.spike_factor=0.5", "spike_factor=0.5 must be above 1, or 0"),
        ("--config.train.ema=1", r"must lie in \[0, 1\)"),
        ("--config.model.patch=7", "patch=7 does not divide model.resolution=64"),
        ("--config.model.dynamics.slots=0", "dynamics.slots=0 must be at least 1"),
        ("--config.model.dynamics.foresight=-3", "foresight=-3 must be at least 1"),
        ("--config.model.dynamics.pull=-0.1", "dynamics.pull=-0.1 must be at least 0"),
        ("--config.model.loss.painted=0", "loss.painted=0 must be at least 1"),
        ("--config.model.loss.decoded=-1", "loss.decoded=-1 must be at least 0"),
        ("--config.model.loss.place=-0.5", "loss.place=-0.5 must be at least 0"),
        ("--config.train.steps=0", "train.steps and train.minutes are both 0"),
        ("--config.train.window_doublings=0.7,0.4", "in rising order"),
        ("--config.data.workers=2", "needs data.loader=grain"),
        ("--config.mesh.fsdp=-1", "at most one of them may be -1"),
        ("--config.mesh.tensor=-1", "mesh.tensor=-1: each is .* at most one of them may be -1"),
        ("--config.mesh.tensor=0", "mesh.tensor=0: each is a number of devices"),
        ("--config.mesh.cells=3", "mesh.cells=3 must divide the 32 rows of cells of a frame"),
        ("--config.mesh.cells=-1", "mesh.cells=-1 must divide"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(experiment, override, words):
    with pytest.raises(UserError, match=words) as error:
        load(f"{experiment}:tiny", [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("every", [0, 750])
def test_the_best_checkpoint_needs_clips_to_be_judged_by(experiment, every):
    changes = ["--config.train.keep_best=clip/psnr_db", f"--config.train.clip_every={every}"]
    with pytest.raises(UserError, match=f"clip_every={every} to a multiple of train.checkpoint_"):
        load(f"{experiment}:tiny", changes)


def test_a_missing_config_lists_what_exists(tmp_path, monkeypatch, experiment):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "configs"
    folder.mkdir(parents=True)
    (folder / "worlds.py").write_text(EXPERIMENT)
    with pytest.raises(UserError, match=r"no config file word\.py; .*configs/worlds\.py"):
        load("word.py:tiny")
    with pytest.raises(UserError, match="unknown variant 'tyni': did you mean 'tiny'"):
        load(f"{experiment}:tyni")
    with pytest.raises(UserError, match="needs a variant"):
        load(str(experiment))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="must define get_config"):
        load("empty.py")


def test_a_config_is_locked():
    with pytest.raises(AttributeError):
        base_config().train.stesp = 3


def test_json_brings_back_the_same_config():
    config = change(base_config(), {"train.steps": 7, "data.conditions": "light", "seed": 3})
    again = from_json(to_json(config))
    assert flat(again) == flat(config)
    assert not difference(config, again)


def test_json_with_an_unknown_key_is_refused():
    values = json.loads(to_json(base_config()))
    values["train"]["speed"] = 3
    with pytest.raises(UserError, match=r"unknown config key 'train\.speed'"):
        from_json(json.dumps(values))


def test_a_run_from_before_a_mesh_had_a_third_axis_goes_on(tmp_path):
    values = json.loads(to_json(base_config()))
    del values["mesh"]["tensor"], values["mesh"]["cells"], values["mesh"]["auto"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert flat(configs.adopt(base_config(), tmp_path)) == flat(base_config())


def test_difference_names_the_keys():
    other = change(base_config(), {"train.steps": 7, "optim.name": "laprop"})
    assert difference(base_config(), other) == {
        "train.steps": (10_000, 7),
        "optim.name": ("adamw", "laprop"),
    }


def test_every_knob_has_a_default_that_holds():
    assert validate(base_config())
    names = set(flat(base_config()))
    assert (
        set(config_rules.CHOICES) | set(config_rules.AT_LEAST) | set(config_rules.FRACTIONS)
        <= names
    )


def test_a_workdir_of_another_config_names_the_keys(tmp_path):
    config = base_config()
    configs.write(config, tmp_path)
    other = change(base_config(), {"train.batch_size": 16, "train.log_every": 5, "mesh.fsdp": 2})
    with pytest.raises(
        UserError, match=r"another config \(train.batch_size is 2 there and 16 here\)"
    ):
        configs.adopt(other, tmp_path)
    free = change(base_config(), {"train.log_every": 5, "mesh.fsdp": 2, "eval.horizon": 3})
    assert configs.adopt(free, tmp_path).train.log_every == 5


def test_a_measured_number_of_updates_is_taken_over(tmp_path):
    asked = change(base_config(), {"train.steps": 0, "train.minutes": 5})
    configs.write(change(asked.copy_and_resolve_references(), {"train.steps": 1234}), tmp_path)
    assert configs.adopt(asked, tmp_path).train.steps == 1234
    assert asked.train.steps == 0


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        configs.adopt(base_config(), tmp_path / "file")


def test_a_list_that_is_empty_by_default_takes_numbers_and_refuses_words():
    key = "train.window_doublings"
    config = change(base_config(), {key: ()})
    assert change(config, {key: "(0.4,0.7)"}).train.window_doublings == (0.4, 0.7)
    config = change(base_config(), {key: ()})
    with pytest.raises(UserError, match="shares of the run"):
        validate(change(config, {key: "half", "train.steps": 5}))
