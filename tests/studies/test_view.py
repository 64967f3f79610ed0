"""All arms in one view: a block that is redrawn on a terminal, plain lines elsewhere."""

import io
import json

import pytest

from wm_jax.studies import view
from wm_jax.studies.plan import Job


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def jobs(tmp_path):
    """Two arms with two seeds: one run done, one half done, two waiting."""
    made = []
    for seed in (0, 1):
        for arm in ("near", "farther"):
            workdir = tmp_path / f"{arm}-{seed}"
            workdir.mkdir()
            content = {"arm": arm, "identity": "x"}
            made.append(Job(f"{arm} seed {seed}", content, workdir, workdir / "result.json"))
    made[0].result.write_text(json.dumps({"identity": "x"}))
    train(made[1], step=50, steps=100)
    return made


def train(job, step, steps):
    (job.workdir / "config.json").write_text(json.dumps({"train": {"steps": steps}}))
    row = {"step": step, "train/loss/total": 0.123456}
    (job.workdir / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_a_terminal_shows_a_line_an_arm_and_a_bar_a_run(jobs):
    stream = Terminal()
    shown = view.View("trial", jobs, stream)
    shown.show([jobs[1]], last=True)
    head, near, farther = stream.getvalue().replace("\x1b[2K", "").splitlines()
    assert head.startswith("trial 1/4 runs")
    assert near == f"  near     {'█' * 10}  {'·' * 10}"
    assert farther == f"  farther  {'█' * 5}{'░' * 5}  {'·' * 10}"
    shown.show([jobs[1]], last=True)
    assert "\x1b[3A" in stream.getvalue(), "the block is drawn over itself"


def test_elsewhere_it_is_a_line_that_says_what_runs(jobs):
    stream = io.StringIO()
    view.View("trial", jobs, stream).show([jobs[1], jobs[2]], last=True)
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert line.endswith("farther seed 0 update 50/100 loss 0.1235; near seed 1 starting")


def test_nothing_is_written_more_often_than_every_half_minute(jobs):
    stream = io.StringIO()
    shown = view.View("trial", jobs, stream)
    for _ in range(3):
        shown.show([jobs[1]])
    assert stream.getvalue() == ""


def test_how_far_a_run_is(jobs):
    assert [view.share(job) for job in jobs[1:]] == [0.5, 0.0, 0.0]
    train(jobs[2], step=100, steps=100)
    assert view.share(jobs[2]) == 1.0
    assert view.progress_text(jobs[2]) == "judging"
    assert view.progress_text(jobs[3]) == "starting"
    (jobs[3].workdir / "config.json").write_text("{half")
    assert view.progress_text(jobs[3]) == "starting"
