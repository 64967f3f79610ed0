"""Published benchmarks of frozen states, on tiny files of their formats with planted signals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from wm_jax import shapes
from wm_jax.errors import UserError
from wm_jax.evaluation import cli, outside
from wm_jax.evaluation.benchmarks import READOUTS, memory_maze, physion, readout_page
from wm_jax.evaluation.benchmarks.memory_maze_probes import MazeProtocol
from wm_jax.evaluation.benchmarks.memory_maze_probes import judge as judge_maze
from wm_jax.evaluation.benchmarks.physion_probes import PhysionProtocol, size_of
from wm_jax.evaluation.benchmarks.physion_probes import judge as judge_physion
from wm_jax.evaluation.benchmarks.readout_states import clips_of, evenly
from wm_jax.evaluation.judge import Run
from wm_jax.evaluation.probe_states import ModelReader
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.summary import find

#: Remembers the brightest that every pixel ever was; imagines whether two lamps were on one side.
MINE = """
import numpy as np


class Mine:
    resolution = 8

    def encode(self, frames, conditions):
        seen = frames.astype(np.float32).max((1, 4)) / 255
        return seen, seen

    def step(self, state, conditions):
        seen, _ = state
        left = seen[:, :, :4].mean(2) > seen[:, :, 4:].mean(2)
        same = left[:, :4].mean(1).round() == left[:, 4:].mean(1).round()
        return seen, np.broadcast_to(2.0 * same[:, None, None] - 1, seen.shape)

    def decode(self, state):
        raise AssertionError("nobody asked for frames")

    def tokens(self, state):
        return state[1].reshape(len(state[1]), 1, -1)


class Told(Mine):
    conditions = ("actions",)

    def encode(self, frames, conditions):
        assert conditions["actions"].shape == (*frames.shape[:2], 2)
        return conditions["actions"].mean(1)[:, None, :]

    def tokens(self, state):
        return state


class Mute(Mine):
    tokens = None
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("outside") / "mine.py"
    path.write_text(MINE)
    return path


def value(rows, model, metric, step=0, control=None):
    return find(rows, model, metric, step, control)["value"]


# --- states


@dataclasses.dataclass(frozen=True)
class Leaky:
    """Half of what it knew and the mean of what it sees."""

    def initial(self, params, batch_size):
        tokens = jnp.zeros((batch_size, 1, 1))
        return shapes.LatentState((), tokens, None, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None):
        seen = 0 if frame is None else frame.mean((1, 2, 3))[:, None, None]
        return state._replace(tokens=state.tokens / 2 + seen, step=state.step + 1)


def test_a_state_is_read_after_the_frames_that_it_has_seen():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 8, 3), np.uint8)
    rules = ProbeProtocol(resolution=8, context=6, horizon=2, looks=(2, 6), ahead=(2,))
    got = ModelReader(Leaky(), {}, rules)(clips_of(frames, rules.length))
    state, states = np.zeros(2), []
    for t in range(8):
        state = state / 2 + (frames[:, t].mean((1, 2, 3)) / 255 if t < 6 else 0)
        states.append(state)
    assert got[..., 0, 0] == pytest.approx(np.stack([states[1], states[5], states[7]], 1), abs=1e-5)
    seen = dataclasses.replace(rules, ahead=())
    assert ModelReader(Leaky(), {}, seen)(clips_of(frames, 6)) == pytest.approx(got[:, :2])


def test_some_of_many_are_spread_evenly():
    assert evenly(5, 8) == [0, 1, 2, 3, 4]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


# --- Physion


def lamps(path: Path, upper: bool, lower: bool, frames: int) -> None:
    """A video in which two lamps are on, each on the left or on the right, but not at its end."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            picture = np.full((32, 32, 3), 40, np.uint8)
            if t < 2:
                for top, left in ((0, upper), (16, lower)):
                    picture[top : top + 16, slice(0, 16) if left else slice(16, 32)] = 220
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    """Of Dominoes the upper lamp is the label; of Collide whether both are on the same side."""
    folder = tmp_path_factory.mktemp("physion")
    tables = {"readout_labels.csv": [], "labels.csv": []}
    for scenario, frames in (("Dominoes", 46), ("Collide", 16)):
        for number in range(64):
            upper, lower = number % 2 == 0, number // 2 % 2 == 0
            touch = upper if scenario == "Dominoes" else upper == lower
            kind = f"pilot_{scenario.lower()}"
            if number < 32:
                name = f"{kind}_{number:04}"
                path = folder / "PhysionTrainMP4s" / f"{scenario}_readout_MP4s" / f"{name}_img.mp4"
                tables["readout_labels.csv"].append(f"{name},{touch}")
            else:
                name = f"{kind}_{number:04}_img"
                file = f"{kind}-redyellow_{number:04}_img.mp4"
                path = folder / "PhysionTestMP4s" / scenario / "mp4s-redyellow" / file
                tables["labels.csv"].append(f"{name},{touch}")
            lamps(path, upper, lower, frames)
    for table, where in zip(tables, ("PhysionTrainMP4s", "PhysionTestMP4s"), strict=True):
        text = "\n".join([",ground truth outcome", *tables[table]])
        (folder / where / table).write_text(text + "\n")
    return folder


def test_physion_reads_what_was_seen_and_what_is_imagined(stimuli, mine):
    rules, rows, _ = judge_physion({"outside": outside.load(f"{mine}:Mine")}, stimuli, 32)
    assert rules.scenarios == ("Dominoes", "Collide") and rules.resolution == 8
    assert value(rows, "outside", "accuracy_dominoes_observed") == 1
    # Sameness is no linear function of two sides, but of what the model makes of them.
    assert value(rows, "outside", "accuracy_collide_observed") <= 0.75
    assert value(rows, "outside", "accuracy_collide_rollout") == 1
    assert value(rows, "outside", "accuracy_rollout") == 1
    both = [value(rows, "outside", f"accuracy_{s}_observed") for s in ("dominoes", "collide")]
    assert value(rows, "outside", "accuracy_observed") == pytest.approx(np.mean(both), abs=1e-5)
    # The lamps are off in the last frame, so that what has no memory is at chance.
    for model, control in (("copy_last", None), ("outside", "one_frame")):
        assert value(rows, model, "accuracy_dominoes_observed", 0, control) <= 0.75
    assert value(rows, "outside", "accuracy_dominoes_observed", 0, "shuffled_labels") <= 0.75
    assert value(rows, "majority", "accuracy") == 0.5
    assert find(rows, "copy_last", "accuracy_rollout", 0) is None
    assert find(rows, "outside", "accuracy_observed", 0)["n"] == 64


def test_a_trained_run_is_read_beside_random_weights(stimuli, tmp_path):
    for part in ("PhysionTrainMP4s", "PhysionTestMP4s"):
        (tmp_path / part).mkdir()
        for path in (stimuli / part).iterdir():
            if "Collide" not in path.name:
                (tmp_path / part / path.name).symlink_to(path)
    model = tiny.TinyModel()
    run = Run(Path("runs/a"), model, model.init(jax.random.key(1), None), tiny.config(), 7)
    rules = PhysionProtocol(looks=(15,), ahead=(), width=16, train_share=1)
    rules, rows, _ = judge_physion({"default": run}, tmp_path, 2, rules)
    assert rules.scenarios == ("Dominoes",)
    found = {row["control"] for row in rows if row["model"] == "default"}
    assert found == {None, "random_weights", "one_frame", "shuffled_labels"}
    assert find(rows, "default", "accuracy_observed", 0)["seed"] == tiny.config().seed


def test_the_verb_writes_what_it_read_with_the_people_beside(stimuli, mine, tmp_path, capsys):
    base = ["--benchmark", "physion", "--data", str(stimuli), "--episodes", "32"]
    assert cli.main([*base, "--model", f"{mine}:Mine", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "evaluation" / "physion.json").read_text())
    assert result["protocol"]["scenarios"] == ["Dominoes", "Collide"]
    assert result["protocol"]["train_episodes"] == 256 and len(result["protocol"]["differs"]) == 4
    assert result["published"]["values"]["people"]["accuracy_roll"] == 0.883
    said = capsys.readouterr().out
    assert "people (published)" in said and "physion, rollout" in said
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<table") == 2 and page.count("<svg") == 1
    assert "the last frame&#x27;s pixels" in page and "Not as published" in page
    for option in ("--videos", "--contexts"):
        with pytest.raises(UserError, match="reads states, which a folder of videos"):
            cli.main([*base, option, str(tmp_path)])
    with pytest.raises(UserError, match="did you mean 'physion'"):
        cli.main(["--benchmark", "physics", "--data", "x", "--model", f"{mine}:Mine"])


def test_what_is_faulty_is_left_out_and_what_is_missing_is_said(stimuli, tmp_path, mine):
    assert len(physion.GLITCHES) == 26
    assert physion.stem("a/test10-redyellow_0014_img.mp4") in physion.GLITCHES
    with pytest.raises(UserError, match="has no folder PhysionTestMP4s"):
        physion.scenarios_of(tmp_path, 2, 2)
    trains, tests = tmp_path / "PhysionTrainMP4s", tmp_path / "Physion"
    trains.mkdir()
    tests.mkdir()
    with pytest.raises(UserError, match=r"readout_labels.csv is missing"):
        physion.scenarios_of(tmp_path, 2, 2)
    for table in (trains / "readout_labels.csv", tests / "labels.csv"):
        table.write_text(",outcome\na,True\n")
        with pytest.raises(UserError, match="has no column 'ground truth outcome'"):
            physion.scenarios_of(tmp_path, 2, 2)
        table.write_text(",ground truth outcome\na_0001,maybe\n")
        with pytest.raises(UserError, match="says 'maybe' where"):
            physion.scenarios_of(tmp_path, 2, 2)
        table.write_text(",ground truth outcome\na_0001,True\n")
    with pytest.raises(UserError, match="has no scenario with both"):
        physion.scenarios_of(tmp_path, 2, 2)
    (trains / "Drop_readout_MP4s").mkdir()
    (tests / "Drop" / "mp4s-redyellow").mkdir(parents=True)
    (trains / "Drop_readout_MP4s" / "a_0001_img.mp4").touch()
    for name in ("a-redyellow_0001_img.mp4", "test10-redyellow_0014_img.mp4"):
        (tests / "Drop" / "mp4s-redyellow" / name).touch()
    (scenario,) = physion.scenarios_of(tmp_path, 2, 2).values()
    assert [one.path.name for one in scenario.test] == ["a-redyellow_0001_img.mp4"]
    (trains / "Drop_readout_MP4s" / "b_0001_img.mp4").touch()
    with pytest.raises(UserError, match="b_0001_img.mp4 has no label"):
        physion.scenarios_of(tmp_path, 2, 2)
    with pytest.raises(UserError, match="no function 'tokens'"):
        judge_physion({"outside": outside.load(f"{mine}:Mute")}, stimuli, 2)


def test_models_of_two_sizes_are_not_shown_the_same_frames(mine):
    model = tiny.TinyModel(resolution=16)
    run = Run(Path("runs/a"), model, {}, tiny.config(**{"model.resolution": 16}), 7)
    loaded = outside.load(f"{mine}:Mine")
    assert size_of({"outside": loaded}) == 8 and size_of({"default": run}) == 16
    with pytest.raises(UserError, match="default is a model of 16 px and outside of 8 px"):
        size_of({"default": run, "outside": loaded})


# --- Memory Maze

FEW = MazeProtocol(looks=(250, 500, 1000), probes=("linear",))


def trajectory(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A maze of 3x3 cells that is seen in frame 300, and two objects that are seen in frame 5."""
    times = 1001
    layout = (rng.random((3, 3)) < 0.5).astype(np.uint8)
    objects = rng.uniform(-1, 1, (2, 2))
    image = np.zeros((times, 8, 8, 3), np.uint8)
    image[300, :3, :3] = 255 * layout[..., None]
    image[5, 5:7, 5:7] = (100 + 100 * objects[..., None]).round()
    action = np.eye(6, dtype=np.uint8)[rng.integers(0, 6, times)]
    angle = rng.uniform(0, 2 * np.pi, times)
    return {
        "image": image,
        "action": action,
        "maze_layout": np.repeat(layout[None], times, 0),
        "agent_pos": rng.uniform(0, 3, (times, 2)),
        "agent_dir": np.stack([np.cos(angle), np.sin(angle)], -1),
        "targets_vec": np.repeat(objects[None], times, 0),
    }


@pytest.fixture(scope="module")
def mazes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mazes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 64), ("eval", 9)):
        (folder / split).mkdir()
        for number in range(count):
            np.savez(folder / split / f"{number:03}.npz", **trajectory(rng))
    return folder


def test_memory_maze_is_read_from_what_remembers_and_from_nothing_else(mazes, mine):
    rules, rows, told = judge_maze({"outside": outside.load(f"{mine}:Mine")}, mazes, 8, FEW)
    assert (
        told == [] and rules.episodes == 8 and rules.train_episodes == 64 and rules.resolution == 8
    )
    assert rules.world == "Memory Maze, 9 cells, 2 objects"
    assert value(rows, "outside", "walls_accuracy_linear") > 0.97
    # Walls are first seen after the first look, objects before it.
    assert value(rows, "outside", "walls_accuracy_linear", 250) < 0.7
    assert value(rows, "outside", "walls_accuracy_linear", 1000) > 0.97
    for step in (0, 250, 500, 1000):
        assert value(rows, "outside", "objects_mse_linear", step) < 0.05
    mean = value(rows, "constant", "objects_mse")
    assert 0.4 < mean < 1  # two numbers of variance 1/3
    assert value(rows, "constant", "objects_rmse") == pytest.approx(np.sqrt(mean), abs=1e-5)
    for model, control in (
        ("copy_last", None), ("outside", "one_frame"), ("outside", "shuffled_labels")
    ):  # fmt: skip
        assert value(rows, model, "walls_accuracy_linear", 0, control) < 0.65
        assert value(rows, model, "objects_mse_linear", 0, control) > 0.8 * mean
    assert value(rows, "pose_alone", "walls_accuracy_linear") < 0.65
    assert find(rows, "pose_alone", "objects_mse_linear", 0) is None
    assert find(rows, "outside", "walls_accuracy_linear", 0)["n"] == 8
    benchmark = READOUTS["memory_maze"]
    more = [{**row, "metric": row["metric"].replace("linear", "mlp")} for row in rows]
    result = {"rows": rows + more, "protocol": rules.to_dict(), "command": "wm-jax evaluate"}
    page = readout_page.render(benchmark, result, {"outside": None})
    assert page.count("<svg") == 2 and "the agent&#x27;s pose alone" in page
    assert "memory_maze, mlp" in readout_page.terminal_table(benchmark, result)


def test_actions_are_those_that_leave_from_a_frame(mazes, mine):
    file = memory_maze.files_of(mazes, "eval", 1)
    (some,) = memory_maze.batches(file, 1000, FEW.looks, 1)
    with np.load(file[0]) as data:
        done = data["action"].argmax(-1)
    assert some.actions.shape == (1, 1000, 2)
    assert np.array_equal(some.actions[0], memory_maze.ACTIONS[done[1:]])
    model = outside.load(f"{mine}:Told")
    _, rows, told = judge_maze({"outside": model}, mazes, 1, FEW)
    assert told == ["outside"]
    assert find(rows, "outside", "walls_accuracy_linear", 0) is not None


def test_a_folder_that_is_no_maze_is_told_so(tmp_path, mazes, mine):
    model = {"outside": outside.load(f"{mine}:Mine")}
    with pytest.raises(UserError, match=r"has no file train/\*.npz"):
        judge_maze(model, tmp_path, 2, FEW)
    rng = np.random.default_rng(0)
    for split in ("train", "eval"):
        (tmp_path / split).mkdir()
        np.savez(tmp_path / split / "0.npz", **trajectory(rng))
    with pytest.raises(UserError, match="read-outs learn from at least 5"):
        judge_maze(model, tmp_path, 2, FEW)
    path = tmp_path / "eval" / "0.npz"

    def read():
        return list(memory_maze.batches([path], 1000, FEW.looks, 1))

    whole = trajectory(rng)
    flat = {**whole, "maze_layout": whole["maze_layout"][0]}
    np.savez(path, **flat)
    assert read()[0].layout.shape == (1, 3, 9)
    other = tmp_path / "eval" / "1.npz"
    np.savez(other, **{**whole, "maze_layout": np.zeros((1001, 5, 5))})
    with pytest.raises(UserError, match="1.npz is of another size than .*0.npz"):
        list(memory_maze.batches([path, other], 1000, FEW.looks, 1))
    other.unlink()
    for change, match in (
        ({"image": whole["image"][:900]}, r"image is uint8 \(900, 8, 8, 3\) and must be uint8"),
        ({"targets_vec": whole["targets_vec"][..., 0]}, r"targets_vec is .* \(at least 1000, o, 2"),
        ({"maze_layout": whole["maze_layout"][:, :2]}, r"must be \(at least 1000, c, c\)"),
    ):
        np.savez(path, **{**whole, **change})
        with pytest.raises(UserError, match=match):
            read()
    del whole["agent_dir"]
    np.savez(path, **whole)
    with pytest.raises(UserError, match="has no array 'agent_dir'"):
        read()
    path.write_text("no array")
    with pytest.raises(UserError, match="is no file of arrays"):
        read()
    run = Run(Path("runs/a"), tiny.TinyModel(), {}, tiny.config(**{"model.resolution": 16}), 7)
    with pytest.raises(UserError, match=r"a model of 16 px and the images .* have 8 px"):
        judge_maze({"default": run}, mazes, 2, FEW)
