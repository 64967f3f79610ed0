"""Rows survive a kill, clips show what they should, progress tells the time left."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from wm_jax import progress
from wm_jax.progress import Progress
from wm_jax.writers import Writer, draw_clip, read_rows


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    writer = Writer(tmp_path)
    for step in (1, 2, 3):
        writer.row(step, {"loss": 1.0 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    writer = Writer(tmp_path, step=2)
    writer.row(3, {"loss": 7.0})
    writer.close()
    assert [(r["step"], r["loss"]) for r in read_rows(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 7.0),
    ]


def test_a_row_holds_finite_numbers_only(tmp_path):
    writer = Writer(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        writer.row(1, {"loss": float("nan")})
    writer.close()


def test_events_are_kept(tmp_path):
    for step in (0, 5):
        writer = Writer(tmp_path, step)
        writer.event("started", step, why="test")
        writer.close()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 5]


def test_tensorboard_reads_the_rows(tmp_path):
    from tensorboardX.proto import event_pb2

    writer = Writer(tmp_path, step=2)
    writer.row(3, {"train/loss": 0.5})
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # records: length, crc of it, data, crc of that
        size = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    version, start, row = events
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, event_pb2.SessionLog.START)
    assert (row.step, row.summary.value[0].tag) == (3, "train/loss")
    assert row.summary.value[0].simple_value == 0.5


def test_a_clip_shows_truth_prediction_and_error(tmp_path):
    truth = np.zeros((2, 8, 4, 4, 3), np.float32)
    truth[0] = 0.2
    prediction = truth + 0.4
    draw_clip(tmp_path / "clips" / "7", truth, prediction, every=4, scale=1)
    with Image.open(tmp_path / "clips" / "7.png") as image:
        strip = np.asarray(image).astype(int)
    assert strip.shape == (2 * 3 * 4, 2 * 4, 3)
    for row, want in enumerate([0.2, 0.6, 0.7, 0.0, 0.4, 0.7]):
        assert abs(strip[4 * row, 0, 0] - 255 * want) <= 1
    with Image.open(tmp_path / "clips" / "7.gif") as film:
        assert film.size == (2 * 4, 3 * 4)


def test_progress_without_a_terminal_is_plain_lines(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress(100, "train", stream=out, initial=20, seconds=10) as bar:
        for count in (30, 40):
            now[0] += 9
            bar.update(count, loss=0.123456, rate="800 frames/s")
    first, last = out.getvalue().splitlines()
    assert first == last
    assert first == ("train 40/100 updates  0:18 done, 0:54 left  loss 0.1235  800 frames/s")


def test_progress_on_a_terminal_is_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with Progress(10, "train", stream=out) as bar:
        bar.update(5, loss=0.5, rate="800 frames/s")
        bar.note("a sentence")
        bar.update(10, loss=0.25, rate="801 frames/s")
    text = out.getvalue()
    assert "a sentence" in text and "10/10" in text and "801 frames/s" in text
