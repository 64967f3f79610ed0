"""Data sets on disk: built whole or not at all, read back to the bit, looked at."""

import dataclasses
import errno
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines import cli
from data_pipelines.twins import make_group, open_source
from data_pipelines.twins.build import build, make_plan, split_hash
from data_pipelines.twins.builder import generate_groups
from wm_jax.errors import UserError

SMALL = {"train": 3, "validation": 1, "test": 1, "resolution": 32, "length": 40}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("data") / "full")
    plan = make_plan("full", **SMALL, shifted=1, twins=2, test_length=70, seed=3)
    return directory, plan, build(plan, directory, progress=False)


def same(one, other):
    if isinstance(one, (str, list)):
        return one == other
    one, other = np.asarray(one), np.asarray(other)
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()


def test_what_is_read_is_what_was_made(full):
    directory, plan, summary = full
    assert summary["built"] and summary["episodes"]["train"] == 9
    for split in ("train", "test", "test_strong_push"):
        source = open_source(directory, split)
        made = [e for group in generate_groups(plan, split, workers=1) for e in group]
        assert len(source) == len(made) == plan.episodes[split]
        for i, episode in enumerate(made):
            read = source[i]
            assert set(read) == set(episode)
            assert all(same(read[name], episode[name]) for name in episode)
    assert open_source(directory, "test")[0]["frames"].shape == (70, 32, 32, 3)


def test_scenes_of_another_seed_are_others(full):
    directory, plan, _ = full
    (first,) = make_group("full", 3 * 10_000_000, "train", 40, 32)
    assert open_source(directory, "train")[0]["group"] == first["group"]
    other = make_plan("full", **SMALL, seed=4)
    assert split_hash(other, "train") != split_hash(plan, "train")


def test_some_fields_alone(full):
    source = open_source(
        full[0], "train", fields=("frames", "is_first", "truth/hue", "events/text")
    )
    episode, whole = source[2], open_source(full[0], "train")[2]
    assert set(episode) == {"frames", "is_first", "truth/hue", "events/text"}
    assert all(same(episode[name], whole[name]) for name in episode)
    truth = open_source(full[0], "train", fields=("truth",))[0]
    assert all(name.startswith("truth/") for name in truth) and "truth/position" in truth


def test_a_source_is_a_sequence_that_travels(full):
    source = open_source(full[0], "validation", fields=("branch",))
    travelled = pickle.loads(pickle.dumps(source))
    assert [int(e["branch"]) for e in travelled] == [0, 1, 2]
    assert [int(e["branch"]) for e in source[1:]] == [1, 2] and source[-1]["branch"] == 2
    assert source.where(1).endswith("twins-validation.array_record-00000-of-00001, record 1")
    with pytest.raises(IndexError):
        source[3]


def test_two_workers_make_what_one_makes():
    plan = make_plan("motion", **SMALL, test_length=40)
    ones, twos = (list(generate_groups(plan, "train", workers)) for workers in (1, 2))
    assert len(ones) == len(twos) == 3
    for one, two in zip(ones, twos, strict=True):
        assert all(same(one[0][name], two[0][name]) for name in one[0])


def test_the_same_again_does_nothing_and_another_is_refused(full):
    directory, plan, summary = full
    stamp = os.stat(os.path.join(directory, "build.json")).st_mtime_ns
    again = build(plan, directory, progress=False)
    assert not again["built"] and again["split_hashes"] == summary["split_hashes"]
    assert os.stat(os.path.join(directory, "build.json")).st_mtime_ns == stamp
    with pytest.raises(UserError, match="another data set .*seed is 3, not 5.*choose another"):
        build(make_plan("full", **SMALL, shifted=1, twins=2, test_length=70, seed=5), directory)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="isn't a data set; choose another --out"):
        build(make_plan("motion", **SMALL), str(tmp_path))
    assert os.listdir(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize(
    ("error", "caught"),
    [
        (OSError(errno.ENOSPC, "no space"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_build_that_stops_leaves_nothing(tmp_path, monkeypatch, error, caught):
    def stop(*_):
        raise error
        yield

    monkeypatch.setattr("data_pipelines.twins.builder.generate_groups", stop)
    with pytest.raises(caught) as info:
        build(make_plan("motion", **SMALL), str(tmp_path / "d"), progress=False)
    if caught is UserError:
        assert "is full; free some space" in str(info.value)
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_build_are_cleared(tmp_path):
    (tmp_path / ".d.building").mkdir()
    (tmp_path / ".d.building" / "half").write_text("x")
    plan = make_plan("motion", train=1, validation=0, test=0, resolution=32, length=8)
    assert build(plan, str(tmp_path / "d"), progress=False)["episodes"] == {"train": 1}
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"train": 0, "validation": 0, "test": 0}, "one split must have some"),
        ({"train": -1}, "can't be negative"),
        ({"resolution": 48}, "choose 32, 64 or 128"),
        ({"length": 20, "twins": 1}, "at least 33 frames"),
        ({"seed": -1}, "outside 0 to 999999"),
        ({"world": "fool"}, "no world 'fool'"),
        ({"kinds": "push,pull"}, "--kinds has 'pull'; there are move, push, recolour"),
        ({"kinds": ","}, "--kinds has ''; there are move"),
        ({"kinds": "push", "twins": 0}, "ask for some with --twins"),
    ],
)
def test_impossible_plans_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        make_plan(**{"world": "full", **arguments})


def test_bad_directories_and_splits_are_told(full, tmp_path):
    with pytest.raises(UserError, match="holds no data set .*wm-jax data build"):
        open_source(str(tmp_path), "train")
    with pytest.raises(UserError, match="no split 'tset'; it has train, validation, test"):
        open_source(full[0], "tset")
    with pytest.raises(UserError, match="no field 'truth/hat'"):
        open_source(full[0], "train", fields=("truth/hat",))
    (tmp_path / "build.json").write_text("{")
    with pytest.raises(UserError, match="build.json is damaged"):
        open_source(str(tmp_path), "train")
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(UserError, match="can't be read"):
        open_source(str(tmp_path), "train")


def test_a_data_set_proves_itself(tmp_path, capsys):
    plan = make_plan("motion", train=2, validation=1, test=0, resolution=32, length=16)
    for seed, name in enumerate("ab"):
        build(dataclasses.replace(plan, seed=seed), str(tmp_path / name), progress=False)
    directory = tmp_path / "a"
    assert cli.main(["verify", str(directory), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = sorted(p.name for p in directory.iterdir())
    assert told["files"] == len(names) - 1  # build.json proves itself

    # A file of another data set, in itself whole.
    records = directory / next(name for name in names if "-train." in name)
    own = records.read_bytes()
    records.write_bytes((tmp_path / "b" / records.name).read_bytes())
    with pytest.raises(UserError, match="twins-train.* is not what was built; build the data set"):
        open_source(str(directory), "train")
    assert len(open_source(str(directory), "validation")) == 1  # which does not need it
    with pytest.raises(UserError, match="is damaged: twins-train.* is not what was built"):
        cli.main(["verify", str(directory)])
    records.unlink()
    with pytest.raises(UserError, match="twins-train.* is missing"):
        open_source(str(directory), "train")
    records.write_bytes(own)

    # A description that is still JSON, and a plan that is.
    described = directory / "dataset_info.json"
    text = described.read_text()
    described.write_text(text.replace("{SPLIT}", "{SXLIT}"))
    with pytest.raises(UserError, match="dataset_info.json is not what was built"):
        open_source(str(directory), "train")
    described.write_text(text)
    record = json.loads((directory / "build.json").read_text())
    record["plan"]["resolution"] = 64
    (directory / "build.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="build.json is damaged"):
        open_source(str(directory), "train")

    # One of before digests were kept is taken as it is.
    old = {key: record[key] for key in ("plan", "split_hashes")}
    (directory / "build.json").write_text(json.dumps(old))
    assert len(open_source(str(directory), "train")) == 2
    with pytest.raises(UserError, match="built before digests were kept"):
        cli.main(["verify", str(directory)])


def test_a_damaged_record_raises_and_the_others_are_read(tmp_path):
    plan = make_plan("motion", train=6, validation=0, test=0, resolution=32, length=16)
    directory = str(tmp_path / "d")
    build(plan, directory, progress=False)
    path = pathlib.Path(open_source(directory, "train").where(0).rpartition(",")[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 6] ^= 0xFF
    path.write_bytes(content)
    outcomes = []
    source = open_source(directory, "train")
    for i in range(6):
        try:
            source[i]
            outcomes.append("read")
        except Exception:  # noqa: BLE001, whatever array_record raises
            outcomes.append("raised")
    assert 0 < outcomes.count("raised") < 6


def test_command_line(tmp_path, capsys):
    directory, out = str(tmp_path / "motion"), str(tmp_path / "look")
    argv = ["build", "twins:motion", "--out", directory, "--train", "2", "--validation", "0"]
    argv += ["--test", "1", "--test-length", "20", "--length", "26", "--resolution", "32"]
    assert cli.main([*argv, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["built"] and summary["frames"] == 72 and summary["bytes"] > 10_000
    assert cli.main(argv) == 0 and "is there already" in capsys.readouterr().out
    look = ["inspect", directory, "--split", "test", "--index", "0", "--out", out]
    assert cli.main([*look, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sizes"]["T"] == 20 and [os.path.basename(p) for p in told["files"]] == [
        "sheet.png", "clip.gif", "sound.wav"]  # fmt: skip
    with Image.open(told["files"][0]) as sheet, Image.open(told["files"][1]) as clip:
        assert sheet.size[0] == 1280 and clip.n_frames == 20
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 20
    with pytest.raises(UserError, match="has 1 test episodes; give --index from 0 to 0, not 4"):
        cli.main(["inspect", directory, "--split", "test", "--index", "4"])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["build", "--help"])
    assert stopped.value.code == 0 and "examples:" in capsys.readouterr().out
