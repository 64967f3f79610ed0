"""A workdir in a bucket: what is copied there, what comes back, and what a lost network does."""

import os
import signal
import subprocess
import sys

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests import tiny
from tests.test_train import compiled_once, on_batch  # noqa: F401, a fixture of all tests here
from wm_jax import checkpoint, manifest, remote, warm_start, world
from wm_jax.errors import UserError

URL = "memory://bucket/runs/a"


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    """An empty one, and this machine's folder; ``bucket.leave()`` moves to another machine."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    monkeypatch.setenv("WM_JAX_REMOTE", str(tmp_path / "here"))

    class Bucket(MemoryFileSystem):
        def names(self, below=""):
            prefix = f"/bucket/runs/a/{below}"
            return sorted(p.removeprefix(prefix) for p in self.find(prefix))

        def leave(self):
            monkeypatch.setenv("WM_JAX_REMOTE", str(tmp_path / "there"))

    return Bucket()


def stopped(monkeypatch, batch, **changes):
    """A run that is asked to stop as it reads that batch."""
    with monkeypatch.context() as patch:
        on_batch(patch, batch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return tiny.train(URL, **changes)


def steps(bucket):
    names = bucket.names("checkpoints/")
    return sorted({int(n.split("/")[0]) for n in names if n.endswith(manifest.MANIFEST)})


def test_a_run_goes_on_from_a_bucket_on_another_machine(bucket, tmp_path, monkeypatch):
    changes = {"train.checkpoint_every": 2, "train.keep": 2, "train.steps": 8}
    tiny.train(tmp_path / "whole", **changes)
    assert stopped(monkeypatch, 5, **changes)["stopped"]
    assert steps(bucket) == [2, 4]
    bucket.leave()
    result = tiny.train(URL, **changes)
    assert (result["workdir"], result["step"], result["stopped"]) == (URL, 8, False)
    assert steps(bucket) == [6, 8]
    here = remote.folder(URL)
    assert tiny.digest(here, 8) == tiny.digest(tmp_path / "whole", 8)
    assert tiny.rows(here) == tiny.rows(tmp_path / "whole")
    for name in ("config.json", "metrics.jsonl", "events.jsonl"):
        assert bucket.cat(f"/bucket/runs/a/{name}") == (here / name).read_bytes()


def test_what_reads_a_run_reads_it_from_a_bucket(bucket):
    tiny.train(URL, **{"train.steps": 4, "train.checkpoint_every": 2})
    bucket.leave()
    assert checkpoint.restore_params(URL)[2] == 4
    assert manifest.steps(manifest.folder(remote.folder(URL))) == [4]  # and no more than that
    assert checkpoint.restore_params(URL, 2)[2] == 2
    assert warm_start.place(f"{URL}/checkpoints/2") == (URL, 2)
    assert remote.fetched_whole(f"{URL}/") == remote.folder(URL)


def test_the_policy_holds_in_the_bucket_too(bucket, monkeypatch):
    changes = {"train.checkpoint_every": 1, "train.keep": 1, "train.keep_every": 4}
    stopped(monkeypatch, 6, **changes, **{"train.steps": 7})
    assert steps(bucket) == [4, 5]
    bucket.leave()  # where the fourth will not be
    tiny.train(URL, **changes, **{"train.steps": 7})
    assert steps(bucket) == [4, 7]
    assert manifest.steps(manifest.folder(remote.folder(URL))) == [7]


def test_a_damaged_step_in_a_bucket_is_left_out_and_said(bucket, monkeypatch, capsys):
    changes = {"train.checkpoint_every": 2, "train.steps": 6}
    stopped(monkeypatch, 5, **changes)
    there = "/bucket/runs/a/checkpoints/4"
    path = max(bucket.find(there), key=bucket.size)
    content = bytearray(bucket.cat(path))
    content[len(content) // 2] ^= 1
    bucket.pipe(path, bytes(content))
    bucket.leave()
    assert tiny.train(URL, **changes)["step"] == 6
    said = capsys.readouterr().err
    name = path.removeprefix(f"{there}/")
    assert f"checkpoints/4 is damaged: the content of {name} has changed; it is left out" in said
    assert f"resuming {remote.folder(URL)} after update 2" in said


def test_a_step_without_its_manifest_is_none(bucket):
    tiny.train(URL, **{"train.steps": 4, "train.checkpoint_every": 2})
    bucket.rm("/bucket/runs/a/checkpoints/4/manifest.json")
    bucket.leave()
    assert checkpoint.restore_params(URL)[2] == 2


def test_a_lost_network_costs_no_update(bucket, monkeypatch, capsys):
    put, lost = MemoryFileSystem.put_file, []

    def fails(*args, **more):
        if len(lost) < 3:  # the first save, the second, and the third once
            lost.append(args)
            raise ConnectionError("no route to host")
        return put(*args, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", fails)
    tiny.train(URL, **{"train.steps": 10, "train.checkpoint_every": 2, "train.keep": 9})
    said = capsys.readouterr().err
    assert said.count("could not be written (no route to host); everything is whole in") == 3
    assert steps(bucket) == [2, 4, 6, 8, 10]
    assert bucket.cat("/bucket/runs/a/events.jsonl").count(b'"event": "mirror"') == 3


def test_an_end_that_is_not_in_the_bucket_is_no_success(bucket, monkeypatch):
    def fails(*args, **more):
        raise PermissionError("403")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", fails)
        with pytest.raises(UserError, match="the end of the run is not in memory://.*same command"):
            tiny.train(URL, **{"train.steps": 2})
    assert steps(bucket) == []
    tiny.train(URL, **{"train.steps": 2})  # has its updates; copies them
    assert steps(bucket) == [2]


def test_what_cannot_be_read_is_one_sentence(monkeypatch):
    def fails(*args, **more):
        raise PermissionError("403\nand a long page")

    monkeypatch.setattr(MemoryFileSystem, "glob", fails)
    with pytest.raises(UserError, match=r"memory://bucket/runs/a cannot be read \(403\); is the"):
        checkpoint.restore_params(URL)


def test_an_unknown_kind_of_place_is_one_sentence():
    with pytest.raises(UserError, match="cannot be opened .*gs://bucket/runs/a"):
        remote.of("nosuch://a/b")


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"gs://bucket/a: .*pip install 'wm_jax\[remote\]'"):
        remote.of("gs://bucket/a")


def test_nothing_there_is_a_run_without_checkpoints(bucket):
    with pytest.raises(UserError, match=f"{URL} holds no whole checkpoint; train there first"):
        world.load(URL)


def test_several_processes_are_told_to_mount(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(UserError, match="a workdir that all of them see; mount the bucket"):
        tiny.train(URL, **{"train.steps": 2})


@pytest.mark.slow
@pytest.mark.ci
def test_killed_while_it_copies_it_goes_on_elsewhere(tmp_path):
    """A real process, a bucket that is a folder, kill -9 after the first copied step."""
    url = f"file://{tmp_path}/bucket/a"
    code = (
        "from tests import tiny\n"
        f"tiny.train({url!r}, **{{'train.steps': 400, 'train.checkpoint_every': 5}})"
    )
    there = tmp_path / "bucket/a/checkpoints"
    environment = os.environ | {"WM_JAX_REMOTE": str(tmp_path / "here")}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while not manifest.steps(there):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    environment["WM_JAX_REMOTE"] = str(tmp_path / "elsewhere")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    tiny.train(tmp_path / "whole", **{"train.steps": 400, "train.checkpoint_every": 5})
    assert manifest.damage(there / "400") is None
    assert tiny.digest(there.parent, 400) == tiny.digest(tmp_path / "whole", 400)
