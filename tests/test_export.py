"""An export gives the same numbers as the model it came from, where wm_jax cannot be imported."""

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.models.quick import quick_jit
from wm_jax import checkpoint, export, export_loader, models, programs, shapes
from wm_jax import config as configs
from wm_jax.errors import MissingExtra, UserError
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.train_step import TrainState

SIZE, CONTEXT, STEPS = 16, 4, 5

#: Runs an export where only jax and its own needs, flatbuffers and safetensors can be imported.
ALONE = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    blocked = {"wm_jax", "data_pipelines", "flax", "optax", "orbax", "ml_collections", "jaxtyping",
               "grain", "tensorflow", "tensorflow_datasets", "pymunk", "PIL", "chex", "etils"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Blocker())
from pathlib import Path
work = Path(sys.argv[1])
sys.path.insert(0, str(work / "out"))
import numpy as np
import load
model = load.load()
for inputs in sorted(work.glob("in*.npz")):
    given = np.load(inputs)
    told = {"actions": given["actions"]}
    state = model.encode(given["frames"], told)
    other = model.encode(given["frames"][:, :-1], {"actions": given["actions"][:, :-1]})
    future = {"actions": given["future_actions"]}
    last, frames = model.rollout(state, given["future_actions"].shape[1], future, key=7)
    seen = model.step(state, frame=given["frames"][:, 0], key=np.array([0, 3], np.uint32))
    np.savez(work / inputs.name.replace("in", "out"), tokens=state["tokens"], frames=frames,
             seen=model.decode(seen), short=model.decode(other), last=model.decode(last))
"""


class Memory(NamedTuple):
    total: jax.Array


class Drift:
    """A tiny stochastic model with a nested carry: the state moves by actions, weights, noise."""

    def initial(self, params, batch_size):
        tokens = jnp.zeros((batch_size, 1, 3))
        carry = {"memory": Memory(tokens), "count": jnp.zeros((batch_size,), jnp.int32)}
        return shapes.LatentState(carry, tokens, None, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None):
        moved = state.carry["memory"].total @ params["dynamics"]["kernel"]
        moved += (conditions.actions.value * conditions.actions.mask[:, None]).sum(-1)[
            :, None, None
        ]
        if frame is not None:
            moved = 0.5 * moved + 0.5 * frame.mean((1, 2))[:, None]
        if key is not None:
            moved += 0.1 * jax.random.normal(key, moved.shape)
        carry = {"memory": Memory(moved), "count": state.carry["count"] + 1}
        return shapes.LatentState(carry, moved, None, state.step + 1)

    def decode(self, params, state):
        colour = jax.nn.sigmoid(state.tokens @ params["decoder"]["kernel"])
        return jnp.broadcast_to(colour[:, :, None], (colour.shape[0], SIZE, SIZE, 3))


def drift():
    keys = jax.random.split(jax.random.key(1))
    kernels = [jax.random.normal(k, (3, 3)) for k in keys]
    return Drift(), {"dynamics": {"kernel": kernels[0]}, "decoder": {"kernel": kernels[1]}}


def small_config(name):
    config = configs.base_config(name)
    config.model.resolution = SIZE
    config.model.modalities = ("actions",)
    return config


def learned(name, **changes):
    config = small_config(name)
    config.model.update(changes)
    model = models.build(config.model)
    batch = shapes.Batch(
        jnp.zeros((1, 2, SIZE, SIZE, 3), jnp.uint8),
        jnp.zeros((1, 2), bool),
        jnp.ones((1, 2), bool),
        shapes.no_conditions(1, 2),
    )
    return model, quick_jit(model.init)(jax.random.key(0), batch)


def write(pair, out):
    config = configs.base_config().to_dict()
    return export.export(
        *pair, out, resolution=SIZE, context=CONTEXT, config=config, card="# card\n"
    )


def given(batch):
    draw = np.random.default_rng(batch)
    return {
        "frames": draw.integers(0, 256, (batch, CONTEXT, SIZE, SIZE, 3), dtype=np.uint8),
        "actions": draw.normal(size=(batch, CONTEXT, 2)).astype(np.float32),
        "future_actions": draw.normal(size=(batch, STEPS, 2)).astype(np.float32),
    }


def told(actions):
    lead = actions.shape[:-1]
    signal = shapes.Signal(jnp.asarray(actions), jnp.ones(lead, bool))
    return shapes.no_conditions(*lead)._replace(actions=signal)


def original(pair, inputs):
    """What the subprocess computes, by the model itself, with weights rounded to float16."""
    model, params = pair
    params = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), params)

    @jax.jit
    def all_at_once(params, frames, actions, future_actions):
        state = shapes.encode(model, params, frames, told(actions))
        short = shapes.encode(model, params, frames[:, :-1], told(actions[:, :-1]))
        ahead, key = told(future_actions), jax.random.key(7)
        future = shapes.rollout(model, params, state, STEPS, ahead, key)
        nothing, frame = shapes.no_conditions(len(frames)), frames[:, 0] / 255.0
        seen = model.step(params, state, nothing, frame, jax.random.key(3))
        return {
            "tokens": state.tokens,
            "frames": future.frames,
            "last": model.decode(params, future.state),
            "seen": model.decode(params, seen),
            "short": model.decode(params, short),
        }

    return all_at_once(params, *(inputs[k] for k in ("frames", "actions", "future_actions")))


@pytest.mark.parametrize(
    "name",
    ["stochastic", *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.ci]) for n in DYNAMICS)],
)
def test_export_runs_alone_and_agrees(name, tmp_path):
    pair = drift() if name == "stochastic" else learned(name)
    manifest = write(pair, tmp_path / "out")
    assert manifest["stochastic"] == {"stochastic": True, "grid_gru": False}.get(
        name, manifest["stochastic"]
    )
    whole = given(3)
    inputs = {3: whole, 1: {name: array[:1] for name, array in whole.items()}}
    for batch, arrays in inputs.items():
        np.savez(tmp_path / f"in{batch}.npz", **arrays)
    script = [sys.executable, "-I", "-W", "error", "-c", ALONE, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = {3: original(pair, whole)}
    if manifest["stochastic"]:  # noise of one clip is not that of the first of three
        expected[1] = original(pair, inputs[1])
    else:
        expected[1] = {what: value[:1] for what, value in expected[3].items()}
    for batch, values in expected.items():
        result = np.load(tmp_path / f"out{batch}.npz")
        for what, value in values.items():
            np.testing.assert_allclose(result[what], value, atol=1e-5, err_msg=what)


@pytest.mark.slow
@pytest.mark.ci
def test_other_encoders_and_decoders_export(tmp_path):
    """The flow decoder's noise is part of the program, the same in every frame of a rollout."""
    small = {"patch": 4, "embed": 8, "vit_depth": 1, "vit_heads": 2, "sharp_width": 8}
    small["dynamics"] = {"width": 8, "hidden": 8}
    model, params = learned("grid_gru", encoder="vit", sharp_steps=2, **small)
    params = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), params)
    write((model, params), tmp_path / "out")
    exported = export_loader.load(tmp_path / "out")
    assert not exported.stochastic
    inputs = given(2)
    state = shapes.encode(model, params, inputs["frames"], told(inputs["actions"]))
    found = exported.encode(inputs["frames"], {"actions": inputs["actions"]})
    np.testing.assert_allclose(found["tokens"], state.tokens, atol=1e-5)
    sharp = model.decode(params, state)
    np.testing.assert_allclose(exported.decode(found), sharp, atol=1e-5)
    assert np.abs(sharp - model.plain(params, state)).max() > 1e-2  # both were told apart


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "drift"
    write(drift(), out)
    return out


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_one_artifact_for_three_platforms_with_the_weights_outside(folder):
    model, params = drift()
    large = {"dynamics": params["dynamics"], "decoder": params["decoder"]}
    large["unused"] = {"kernel": jnp.ones((500, 500))}
    traced, _, _ = programs.trace(model, programs.flatten(large), SIZE, CONTEXT)
    assert sum(map(len, traced.values())) < 250_000
    for name, program in traced.items():
        exported = jax.export.deserialize(bytearray(program))
        assert exported.platforms == ("cpu", "cuda", "tpu"), name
        assert b".py" not in program, f"{name} holds a path of this machine"
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {n: (x.dtype, x.shape) for n, x in stored.items()} == {
        "decoder/kernel": (np.float16, (3, 3)),
        "dynamics/kernel": (np.float16, (3, 3)),
    }


def test_same_key_same_future_and_a_fork_leaves_its_origin_alone(folder):
    model = export_loader.load(folder)
    state = model.encode(given(2)["frames"])
    kept = jax.tree.map(np.array, state)
    (_, a), (_, again), (_, b) = (model.rollout(state, 3, key=k) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, state, kept)


@pytest.mark.parametrize("file", ["model.safetensors", "step.stablehlo", "config.json"])
def test_a_changed_or_missing_file_is_refused(copy, file):
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(export_loader.LoadError, match=f"{file} was changed"):
        export_loader.load(copy)
    (copy / file).unlink()
    with pytest.raises(export_loader.LoadError, match=f"{file} is missing"):
        export_loader.load(copy)


def test_the_loader_reads_the_format_that_is_written():
    assert export.FORMAT == export_loader.FORMAT


@pytest.mark.parametrize("package", ["flatbuffers", "safetensors"])
def test_a_missing_extra_is_said_before_any_work(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} .* pip install 'wm_jax\[export\]'"):
        export.main(["--workdir", str(tmp_path), "--out", str(tmp_path / "out")])


def test_what_jax_cannot_read_names_the_version_to_use(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "step.stablehlo").write_bytes(b"from the future")
    manifest["sha256"]["step.stablehlo"] = hashlib.sha256(b"from the future").hexdigest()
    manifest["jax"] = "99.1"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(export_loader.LoadError, match="which jax 99.1 wrote"):
        export_loader.load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(export_loader.LoadError, match="holds no exported model"):
        export_loader.load(copy)


def test_inputs_that_do_not_fit_are_told_what_fits(folder):
    model, frames = export_loader.load(folder), given(1)["frames"]
    state = model.encode(frames)
    for call, message in [
        (lambda: model.encode(frames / 255), r"uint8 \(b, t, 16, 16, 3\); got float64"),
        (lambda: model.encode(frames[:, :, :8]), r"got uint8 \(1, 4, 8, 16, 3\)"),
        (lambda: model.step(state, frame=frames), r"frame must be uint8 \(b, 16, 16, 3\)"),
        (lambda: model.step(state, {"wind": frames}), "unknown condition 'wind'"),
        (lambda: model.step(state, {"actions": np.zeros(2)}), r"shape \(2,\); it must be \(1, 2\)"),
        (lambda: model.decode({"tokens": frames}), "not a state of this model"),
    ]:
        with pytest.raises(export_loader.LoadError, match=message):
            call()


def test_out_that_is_not_an_export_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something that is not an export"):
        write(drift(), tmp_path)
    with pytest.raises(UserError, match="is a file"):
        write(drift(), tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_earlier_export_is_replaced_whole(copy):
    (copy / "stale.stablehlo").write_bytes(b"old")
    write(drift(), copy)
    assert not (copy / "stale.stablehlo").exists()
    assert not copy.with_name("copy.partial").exists()
    export_loader.load(copy)


def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_export(copy, monkeypatch):
    before = (copy / "manifest.json").read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        write(drift(), copy)
    assert (copy / "manifest.json").read_bytes() == before
    assert not copy.with_name("copy.partial").exists()


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    model, params = drift()
    params["decoder"]["kernel"] = params["decoder"]["kernel"].at[0, 0].set(1e6)
    with pytest.raises(UserError, match="beyond float16"):
        write((model, params), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flatten_sorts_as_safetensors_does_and_unflatten_undoes_it():
    y, x, w, c = jnp.arange(4)
    params = {"b": {"y": y, "x": x}, "a": {"z": {"w": w}}, "a.b": {"c": c}}
    flat = programs.flatten(params)
    assert list(flat) == sorted(flat)
    assert programs.unflatten(flat) == params


def test_the_verb_exports_the_newest_checkpoint_of_a_run(tmp_path, capsys):
    config, (_, params) = small_config("grid_gru"), learned("grid_gru")
    state = TrainState(
        jnp.asarray(7), jax.random.PRNGKey(0), params, opt_state={"count": jnp.zeros(1)}
    )
    run = checkpoint.Checkpoints(tmp_path / "run")
    run.save(state, {"record": 0}, config)
    run.wait()
    argv = ["--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "deep" / "out")]
    assert export.main([*argv, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert manifest["context"] == config.eval.context
    assert "7 updates" in (tmp_path / "deep/out/MODEL_CARD.md").read_text()
    stored = json.loads((tmp_path / "deep/out/config.json").read_text())
    assert configs.flat(stored) == configs.flat(json.loads(configs.to_json(config)))
    assert export.main(argv) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/deep/out: ")


def test_a_run_without_a_checkpoint_is_told_to_train(tmp_path):
    with pytest.raises(UserError, match="train there first"):
        export.main(["--workdir", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_tell_where_its_data_was():
    config = {"data": {"directory": "/home/somebody/data/small", "window": 3}, "seed": 1}
    assert export.portable(config) == {"data": {"directory": "small", "window": 3}, "seed": 1}
    once = export.portable(config)
    assert export.portable(once) == once
    tuned = export.portable(config | {"train": {"init_from": "/home/somebody/runs/a", "keep": 2}})
    assert tuned["train"] == {"init_from": "a", "keep": 2}
