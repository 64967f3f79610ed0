"""The loop: exact resume, no NaN on disk, one sentence for every mishap."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.input import open_loader
from data_pipelines.memory import MemoryLoader
from tests import tiny
from wm_jax import checkpoint, mesh, optim
from wm_jax.config import from_json
from wm_jax.errors import UserError
from wm_jax.train import TrainingDiverged
from wm_jax.train_cli import main
from wm_jax.train_step import init_state, jit_train_step, make_train_step

KILLS_ITSELF = """
import os, signal, sys, time
from pathlib import Path
from data_pipelines.input import open_loader
from data_pipelines.memory import MemoryLoader
from tests import tiny

served, serve = 0, MemoryLoader.__next__
def serve_and_die(loader):
    global served
    served += 1
    if served == int(sys.argv[2]):
        time.sleep(float(sys.argv[3]))
        os.kill(os.getpid(), signal.SIGKILL)
    return serve(loader)
MemoryLoader.__next__ = serve_and_die
tiny.train(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """All runs of this file share their compiled programs."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], folder)
    jax.config.update(names[1], 0.1)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """A run that nothing stops."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, tiny.train(workdir)


def events(workdir, kind):
    lines = (workdir / "events.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == kind]


def on_batch(monkeypatch, number, act):
    """Calls ``act`` when the loader is asked for its ``number``-th batch."""
    served, serve = [0], MemoryLoader.__next__

    def watch(loader):
        served[0] += 1
        if served[0] == number:
            act()
        return serve(loader)

    monkeypatch.setattr(MemoryLoader, "__next__", watch)


def test_a_run_leaves_what_it_promises(whole):
    workdir, result = whole
    assert result["step"] == result["steps"] == 40 and not result["stopped"]
    assert checkpoint.steps(workdir / "checkpoints") == [30, 40]
    assert from_json((workdir / "config.json").read_text()).train.steps == 40
    steps = [row["step"] for row in tiny.rows(workdir) if "train/loss/total" in row]
    assert steps == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    assert any((workdir / "tensorboard").iterdir())
    assert events(workdir, "compiled")[0]["parameters"] == 192 * 16 * 2 + 16 * 16 + 16


def test_clips_of_held_out_episodes_are_drawn(tmp_path):
    tiny.train(tmp_path, train__steps=10, train__clip_every=6)
    clips = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert clips == ["000006.gif", "000006.png", "000010.gif", "000010.png"]
    scores = [row for row in tiny.rows(tmp_path) if "clip/psnr_db" in row]
    assert [row["step"] for row in scores] == [6, 10]
    assert all(0 < row["clip/psnr_db"] < 60 for row in scores)


def test_the_loop_is_the_plain_loop(whole):
    """Forty updates written out give the same weights and the same losses."""
    workdir, _ = whole
    config, model = tiny.config(), tiny.TinyModel()
    devices, optimizer = mesh.make_mesh(config.mesh), optim.make_optimizer(config.optim)
    loader = MemoryLoader(tiny.episodes(), length=6, batch_size=4, seed=0)
    state = init_state(model, optimizer, mesh.to_batch(tiny.arrays()), 0, devices, ema=0.9)
    short, long = (
        jit_train_step(make_train_step(model, optimizer, 0.9, window), state, devices)
        for window in (3, 6)
    )
    rate, losses = optim.learning_rate(config.optim, 40), {}
    for done in range(40):
        batch = mesh.shard_batch(next(loader), devices)
        step = short if done < 0.6 * 40 else long
        state, metrics = step(state, batch, np.float32(rate(done)))
        losses[done + 1] = float(metrics["train/loss/total"])
    restored = checkpoint.Checkpoints(workdir).restore(40, state)
    jax.tree.map(np.testing.assert_array_equal, restored.state, state)
    assert restored.position == loader.position()
    for row in tiny.rows(workdir):
        if "train/loss/total" in row:
            assert row["train/loss/total"] == losses[row["step"]]


def test_the_model_learns(whole):
    losses = [row["train/loss/total"] for row in tiny.rows(whole[0]) if "train/grad_norm" in row]
    assert losses[-1] < 0.9 * losses[0]


def test_a_finished_run_is_left_alone(whole, capsys):
    workdir, result = whole
    before = (workdir / "metrics.jsonl").read_text()
    assert tiny.train(workdir) == result
    assert "has its 40 updates already" in capsys.readouterr().err
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, whole, monkeypatch, capsys, number):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        # The first batch is read once more, for its size.
        on_batch(patch, 18, lambda: os.kill(os.getpid(), number))
        result = tiny.train(tmp_path)
    assert result["stopped"] and result["step"] == 17
    assert f"saved {tmp_path / 'checkpoints' / '17'}" in capsys.readouterr().err
    assert signal.getsignal(number) == handler  # what it was before, whatever that was
    assert not tiny.train(tmp_path)["stopped"]
    assert tiny.digest(tmp_path, 40) == tiny.digest(whole[0], 40)
    assert tiny.rows(tmp_path) == tiny.rows(whole[0])


@pytest.mark.slow
@pytest.mark.ci
def test_killed_and_restarted_ends_in_the_same_state(tmp_path, whole, compiled_once):
    """kill -9 twice: some updates after a checkpoint, and while the next one is being written."""
    command = [sys.executable, "-c", KILLS_ITSELF, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": ".", "JAX_COMPILATION_CACHE_DIR": compiled_once}
    for arguments, status in ((("17", "5"), -9), (("12", "0"), -9), (("999", "0"), 0)):
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True)
        assert done.returncode == status, done.stderr.decode()[-2000:]
    resumed = [row["step"] for row in events(tmp_path, "resumed")]
    assert len(resumed) == 2 and resumed[0] == 10 and resumed[1] in (10, 20)
    assert tiny.digest(tmp_path, 40) == tiny.digest(whole[0], 40)
    assert tiny.rows(tmp_path) == tiny.rows(whole[0])


@dataclasses.dataclass(frozen=True)
class Explodes(tiny.TinyModel):
    """Its loss is NaN from update ``at`` on."""

    at: int = 17

    def loss(self, params, batch, key, step=None):
        total, terms = super().loss(params, batch, key, step)
        bad = jnp.where(step + 1 >= self.at, jnp.nan, 0.0)
        return total + bad, {name: term + bad for name, term in terms.items()}


@pytest.mark.parametrize("at, last", [(20, 10), (21, 20)])
def test_a_nan_stops_the_run_and_reaches_no_checkpoint(tmp_path, at, last):
    words = rf"train/loss/next_frame is nan at update {at}.*checkpoint is .*/{last}\."
    with pytest.raises(TrainingDiverged, match=words):
        tiny.train(tmp_path, Explodes(at=at), train__window_doublings=())
    assert max(checkpoint.steps(tmp_path / "checkpoints")) == last
    params, _, _ = checkpoint.restore_params(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert events(tmp_path, "not_finite")[0]["metric"] == "train/loss/next_frame"
    tries = [row["tries"] for row in events(tmp_path, "went_back") if row["step"] == last]
    assert tries == [1, 2, 3]  # on other data each time, and then no more


def test_a_nan_at_once_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match="there is no checkpoint yet"):
        tiny.train(tmp_path, Explodes(at=2), train__window_doublings=())


def test_another_config_in_the_workdir_is_refused(whole):
    with pytest.raises(UserError, match="optim.learning_rate is 0.001 there and 0.1 here"):
        tiny.train(whole[0], optim__learning_rate=0.1)


def test_minutes_fix_the_updates_before_the_first(tmp_path, monkeypatch):
    from wm_jax import budget

    monkeypatch.setattr(budget, "measure", lambda *_: 0.1)
    on_batch(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    changes = {"train__steps": 0, "train__minutes": 1.0}
    result = tiny.train(tmp_path, **changes)
    config = from_json((tmp_path / "config.json").read_text())
    assert result["steps"] == config.train.steps
    assert 300 < result["steps"] < 600 * (1 - budget.SPARE)
    monkeypatch.setattr(budget, "measure", None)  # a resumed run does not measure again
    on_batch(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tiny.train(tmp_path, **changes)["steps"] == result["steps"]


def test_measuring_leaves_no_trace():
    from wm_jax import budget

    loader = MemoryLoader(tiny.episodes(), length=6, batch_size=4, seed=0)
    next(loader)
    before, rates = loader.position(), []

    def update(state, batch, rate):
        rates.append(float(rate))
        return state + 1, {}

    devices = mesh.make_mesh(tiny.config().mesh)
    state = jnp.zeros([])
    assert 0 < budget.measure(update, state, loader, devices, seconds=0.05) < 1
    assert loader.position() == before
    assert float(state) == 0 and set(rates) == {0.0}


def test_minutes_too_short_for_one_update_are_refused(tmp_path, monkeypatch):
    from wm_jax import budget

    monkeypatch.setattr(budget, "measure", lambda *_: 60.0)
    with pytest.raises(UserError, match="leaves no room for an update of 60.00 s"):
        tiny.train(tmp_path, train__steps=0, train__minutes=1.0)


@pytest.mark.parametrize("minutes", [0.0, 1.0])
def test_frames_of_another_size_are_refused(tmp_path, minutes):
    """Before anything is compiled, also where updates are measured first."""
    changes = {"train__minutes": minutes} | ({"train__steps": 0} if minutes else {})
    with pytest.raises(UserError, match="frames are 16×16 px and config.model.resolution is 8"):
        tiny.train(tmp_path, source=tiny.episodes(resolution=16), **changes)


def test_a_corrupt_record_is_told_and_counted(tmp_path, capsys):
    source = tiny.episodes()
    source[3] = {"frames": np.zeros(3)}
    tiny.train(tmp_path, source=source, train__steps=10)
    assert "skipped a corrupt record: record 3 of list" in capsys.readouterr().err
    assert len(events(tmp_path, "corrupt_record")) == 1
    assert all(row["data/corrupt_records"] == 1 for row in tiny.rows(tmp_path))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # inside Orbax
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_after_it(
    two_megabytes, whole, monkeypatch
):
    workdir = two_megabytes / "run"

    def fill():
        while not (workdir / "checkpoints" / "20" / "manifest.json").exists():
            time.sleep(0.05)
        free = shutil.disk_usage(two_megabytes).free
        (two_megabytes / "ballast").write_bytes(os.urandom(free))

    with monkeypatch.context() as patch:
        on_batch(patch, 22, fill)
        with pytest.raises(UserError, match=r"the disk (that holds .* )?is full"):
            tiny.train(workdir)
    assert max(checkpoint.steps(workdir / "checkpoints")) == 20
    (two_megabytes / "ballast").unlink()
    assert tiny.train(workdir)["step"] == 40
    assert tiny.digest(workdir, 40) == tiny.digest(whole[0], 40)
    assert tiny.rows(workdir) == tiny.rows(whole[0])


def test_without_tensorboard_the_rows_are_written_and_it_is_said(tmp_path, monkeypatch, capsys):
    for name in ("tensorboardX", "tensorboardX.event_file_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    tiny.train(tmp_path, train__steps=10)
    assert "no TensorBoard files" in capsys.readouterr().err
    assert len(tiny.rows(tmp_path)) == 3


def test_a_damaged_checkpoint_is_said_and_the_one_before_resumed(tmp_path, whole, capsys):
    tiny.train(tmp_path, train__steps=20)
    newest = tmp_path / "checkpoints" / "20"
    file = max(newest.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    (tmp_path / "config.json").unlink()
    result = tiny.train(tmp_path)
    assert f"checkpoint {newest} is damaged" in capsys.readouterr().err
    assert events(tmp_path, "resumed")[0]["step"] == 10
    assert result["step"] == 40


def test_the_command_refuses_a_missing_config_and_shows_an_example(tmp_path, capsys):
    with pytest.raises(UserError, match=r"no config file nowhere\.py"):
        main(["--config", "nowhere.py:x", "--workdir", str(tmp_path)])
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    assert "wm-jax train --config experiments/configs/twins.py:" in capsys.readouterr().out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small built data set."""
    from data_pipelines.twins.build import build, make_plan

    directory = tmp_path_factory.mktemp("data") / "motion"
    plan = make_plan("twins:motion", train=6, validation=2, test=1, resolution=32, length=16)
    build(plan, str(directory), progress=False)
    return directory


def command(data, workdir, *more):
    return [
        "--config",
        "experiments/configs/twins.py:debug",
        f"--config.data.directory={data}",
        "--workdir",
        str(workdir),
        "--json",
        *more,
    ]


@pytest.mark.slow
@pytest.mark.ci
def test_the_command_trains_the_default_model_and_prints_json(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "set by this test's fixture")
    assert main(command(data, tmp_path / "run")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == result["steps"] == 20
    assert (tmp_path / "run" / "clips" / "000020.gif").exists()
    params, config, step = checkpoint.restore_params(tmp_path / "run")
    assert step == 20 and config.model.resolution == 32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("loader", ["memory", "grain"])
def test_a_flipped_bit_in_the_records_is_named_skipped_and_counted(tmp_path, data, loader):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (file,) = copy.glob("*-train.array_record*")
    content = bytearray(file.read_bytes())
    content[30_000] ^= 1  # among the records; a file's second half is padding
    file.write_bytes(content)
    settings = tiny.config(data__directory=str(copy), data__loader=loader).data
    batches = open_loader(settings, batch_size=4, seed=0)
    for _ in range(6):
        assert next(batches)["frames"].any()
    assert len(batches.corrupt) == 1
    ((index, sentence),) = batches.corrupt.items()
    assert sentence.startswith(f"{file}, record {index}: ")
    batches.close()


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no data set .*make one with 'wm-jax data build"):
        main(command(tmp_path, tmp_path / "run"))
