"""``wm-jax checkpoint``: what is there, and whether it is whole."""

import json

import jax.numpy as jnp
import pytest

from tests import tiny
from tests.test_warm_start import fresh
from wm_jax import checkpoint
from wm_jax.__main__ import main as wm_jax
from wm_jax.checkpoint_cli import main
from wm_jax.errors import UserError


@pytest.fixture
def run(tmp_path):
    state, checkpoints = fresh(), checkpoint.Checkpoints(tmp_path)
    for step, psnr in ((10, 21.5), (20, 20.25)):
        scores = {"clip/psnr_db": psnr}
        checkpoints.save(
            state._replace(step=jnp.int32(step)), {"batches": 1}, tiny.config(), scores
        )
    checkpoints.wait()
    return tmp_path


def largest(run, step):
    files = (run / "checkpoints" / str(step)).rglob("*")
    return max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)


def test_list_tells_steps_sizes_and_scores(run, capsys):
    assert main(["list", "--workdir", str(run)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "10" and "clip/psnr_db 21.50  finished" in first
    assert second.split()[0] == "20" and "MB" in second
    assert main(["list", "--workdir", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in result["steps"]] == [10, 20]
    assert result["steps"][1]["scores"] == {"clip/psnr_db": 20.25}
    assert result["newest"] == 20 and result["damaged"] == 0


def test_verify_of_whole_checkpoints_tells_the_speed(run, capsys):
    assert main(["verify", "--workdir", str(run)]) == 0
    assert capsys.readouterr().out.count("whole  ") == 2
    assert main(["verify", "--workdir", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    files = [p for p in (run / "checkpoints").rglob("*") if p.is_file()]
    assert result["bytes"] == sum(p.stat().st_size for p in files)
    assert result["gigabytes_per_second"] > 0


@pytest.mark.parametrize("json_too", [False, True])
def test_verify_names_the_damaged_file_and_leaves_with_1(run, capsys, json_too):
    file = largest(run, 20)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    flags = ["--json"] if json_too else []
    assert main(["list", "--workdir", str(run), *flags]) == 0
    capsys.readouterr()
    assert main(["verify", "--workdir", str(run), *flags]) == 1
    out, words = capsys.readouterr()
    name = file.relative_to(run / "checkpoints" / "20")
    assert words == (
        f"checkpoint {run}/checkpoints/20 is damaged: the content of {name} has changed.\n"
    )
    if json_too:
        result = json.loads(out)
        assert result["newest"] == 10 and result["damaged"] == 1
        assert str(name) in result["steps"][1]["problem"]


def test_nothing_is_changed(run):
    largest(run, 20).unlink()
    before = sorted(run.rglob("*"))
    main(["verify", "--workdir", str(run)])
    assert sorted(run.rglob("*")) == before


def test_what_was_set_aside_is_told(run, capsys):
    largest(run, 20).unlink()
    checkpoint.Checkpoints(run).newest()
    assert main(["verify", "--workdir", str(run)]) == 0
    assert "checkpoints/20.damaged was set aside" in capsys.readouterr().out


def test_no_run_there_is_one_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="holds no run"):
        main(["verify", "--workdir", str(tmp_path / "nowhere")])
    assert wm_jax(["checkpoint", "list", "--workdir", str(tmp_path)]) == 2
    (tmp_path / "checkpoints").mkdir()
    assert main(["list", "--workdir", str(tmp_path)]) == 0
    assert "has no checkpoint yet" in capsys.readouterr().out
