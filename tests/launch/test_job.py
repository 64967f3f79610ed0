"""Job descriptions: what is read, and one sentence for what is wrong."""

from pathlib import Path

import pytest

from wm_jax.errors import UserError
from wm_jax.launch import accelerators, job
from wm_jax.launch.cli import TARGETS

ROOT = Path(__file__).parent.parent.parent

GOOD = """\
name = "a"
arguments = "--config c.py:x --config.data.directory='with space'"
workdir = "/runs/a"
"""


def read(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    return job.read(path, TARGETS)


def test_what_is_left_out_has_a_default(tmp_path):
    found = read(tmp_path, GOOD)
    assert (found.hosts, found.devices, found.accelerator) == (1, 1, "cpu")
    assert found.arguments == ("--config", "c.py:x", "--config.data.directory=with space")
    start = ["wm-jax", "train", *found.arguments, "--workdir", "/runs/a"]
    assert found.command() == [*start, "--stopped-status", "75"]
    assert found.command(stopped=0) == start


def test_the_example_is_a_job():
    found = job.read(ROOT / "launch/job.toml", TARGETS)
    assert accelerators.chips(found.accelerator, found.topology) == found.hosts * found.devices


@pytest.mark.parametrize("extra, value", [("hours = 2", 2.0), ("hours = 0.5", 0.5)])
def test_a_whole_number_will_do_for_a_number(tmp_path, extra, value):
    assert read(tmp_path, GOOD + extra).hours == value


V5P = 'accelerator = "v5p"\n'


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("name =", "is not TOML"),
        ('name = "a"', "a job needs arguments = …"),
        (GOOD + "host = 2", "a job has no 'host'; did you mean 'hosts'?"),
        (GOOD + "colour = 2", "a job has no 'colour'."),
        (GOOD + 'hosts = "2"', "hosts of a job is '2' and must be a whole number."),
        (GOOD + "hosts = true", "hosts of a job is True and must be a whole number."),
        (GOOD + "hosts = 0", "hosts = 0 must be more than 0."),
        (GOOD + "restarts = -1", "restarts = -1 must be at least 0."),
        (GOOD + "slurm = 3", "slurm must be a table: [slurm]."),
        (GOOD + "[environment]\nN = 1", "must be a table of texts."),
        (GOOD + "[environment]\n'a b' = '1'", "environment.a b is no name of a variable."),
        (GOOD.replace('"a"', '"A job"'), "name 'A job' must be at most 40 small letters"),
        (GOOD.replace('"a"', '"a-"'), "not ending with a dash"),
        (GOOD.replace("/runs", "runs"), "workdir 'runs/a' must be absolute"),
        (GOOD.replace("space'", "space"), "arguments cannot be split as a shell would"),
        (GOOD.replace("--config c.py:x", "--workdir /b"), "arguments hold --workdir"),
        (GOOD.replace("--config c.py:x", ""), "arguments lack --config FILE.py:VARIANT"),
        (GOOD + 'bucket = "my-bucket"', "bucket 'my-bucket' must be gs://NAME"),
        (GOOD + 'bucket = "gs://lab"', "gs://lab is mounted at /storage, and workdir is /runs/a"),
        (GOOD + 'accelerator = "h1000"', "did you mean 'h100'?"),
        (GOOD + 'topology = "2x2"', "topology is for TPUs; leave it out with cpu."),
        (GOOD + V5P, "topology '' is no slice of a v5p; it has 3 sides, as 4x4x4."),
        (GOOD + V5P + 'topology = "4x4"', "topology '4x4' is no slice of a v5p"),
        (GOOD + V5P + 'topology = "2x2x4"', "has 16 chips, and hosts = 1 × devices = 1 make 1"),
    ],
)
def test_a_bad_job_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    assert sentence in message and "job.toml" in message
    assert "\n" not in message


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot read the job .*none.toml: No such file"):
        job.read(tmp_path / "none.toml", TARGETS)
