"""Batches: windows are real stretches of episodes, positions resume to the record."""

import json
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import window
from data_pipelines.corrupt import CorruptData
from data_pipelines.input import GrainLoader, open_loader
from data_pipelines.memory import MemoryLoader
from wm_jax.config import data_config
from wm_jax.errors import UserError
from wm_jax.shapes import CONDITION_SIZES

LENGTH, BATCH = 5, 4


def episode(number: int, frames: int = 12) -> dict:
    """Pixel value and camera say which episode and which frame one looks at."""
    image = np.zeros((frames, 4, 4, 3), np.uint8)
    image[:, :, :, 0] = number
    image[:, :, :, 1] = np.arange(frames)[:, None, None]
    camera = np.stack([np.full(frames, number), np.arange(frames), np.ones(frames)], -1)
    first = np.arange(frames) == 0
    return {"frames": image, "is_first": first, "camera": camera.astype(np.float32)}


EPISODES = [episode(i) for i in range(10)]


class Damaged(list):
    """A source in which some records cannot be read, and which knows its files."""

    bad: tuple = ()

    def __getitem__(self, index):
        if index in self.bad:
            raise RuntimeError("crc mismatch")
        return super().__getitem__(index)

    def where(self, index):
        return f"shard-00000.array_record, record {index}"


def make(kind, source=EPISODES, **changes):
    settings = {"length": LENGTH, "batch_size": BATCH, "seed": 1, "conditions": ("camera",)}
    return kind(source, **(settings | changes))


def names(batch):
    """(episode, first frame) of every window."""
    return [(int(f[0, 0, 0, 0]), int(f[0, 0, 0, 1])) for f in batch["frames"]]


both = pytest.mark.parametrize("kind", [MemoryLoader, GrainLoader])


@both
def test_a_window_is_a_stretch_of_one_episode(kind):
    loader = make(kind)
    for _ in range(5):
        batch = next(loader)
        assert batch["frames"].shape == (BATCH, LENGTH, 4, 4, 3)
        assert batch["frames"].dtype == np.uint8
        assert (batch["frames"][..., 0] == batch["frames"][:, :1, :1, :1, 0]).all()
        steps = np.diff(batch["frames"][:, :, 0, 0, 1].astype(int), axis=1)
        assert (steps == 1).all()
        np.testing.assert_array_equal(batch["camera"][..., 1], batch["frames"][:, :, 0, 0, 1])
        assert batch["camera"].dtype == np.float32
        assert batch["is_first"][:, 0].all() and not batch["is_first"][:, 1:].any()
        assert batch["mask"].all() and batch["camera_mask"].all()
    loader.close()


@both
def test_an_epoch_visits_every_episode_once_and_epochs_differ(kind):
    loader = make(kind, batch_size=5)
    epochs = [names(next(loader)) + names(next(loader)) for _ in range(2)]
    for epoch in epochs:
        assert sorted(number for number, _ in epoch) == list(range(10))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])
    loader.close()


@both
def test_starts_cover_the_episode(kind):
    loader = make(kind)
    starts = {start for _ in range(60) for _, start in names(next(loader))}
    assert starts == set(range(12 - LENGTH + 1))
    loader.close()


@both
def test_a_position_is_small_json_and_resumes_to_the_record(kind):
    loader = make(kind)
    for _ in range(7):
        next(loader)
    position = json.dumps(loader.position())
    assert len(position) < 1000
    want = [names(next(loader)) for _ in range(6)]
    again = make(kind)
    next(again)
    again.seek(json.loads(position))
    assert [names(next(again)) for _ in range(6)] == want
    loader.close()
    again.close()


@both
@pytest.mark.parametrize(
    "change, word",
    [
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"batch_size": 2}, "batch_size"),
        ({"source": EPISODES[1:]}, "episodes was 10 and is 9"),
        ({"source": [*EPISODES[1:], EPISODES[0]]}, "content"),
    ],
)
def test_a_position_of_other_data_or_settings_is_refused(kind, change, word):
    saved = make(kind).position()
    with pytest.raises(UserError, match=word):
        make(kind, **change).seek(saved)


def test_a_changed_worker_count_is_refused():
    saved = make(GrainLoader).position()
    saved["fingerprint"]["workers"] = 2
    with pytest.raises(UserError, match="workers was 2 and is 0"):
        make(GrainLoader).seek(saved)


@both
@pytest.mark.parametrize(
    "dealt",
    [
        [[0, 1], [2, 3]],
        [[0, 2], [1, 3]],
        [[0, 1, 3], [2]],
        [[0], [1], [2], [3]],
        [[0, 1, 2, 3], [0, 1, 2, 3]],
    ],
)
def test_processes_read_the_batches_of_one_and_go_on_in_any_number(kind, dealt):
    """Row by row, whichever rows are theirs."""
    one = make(kind)
    want = [names(next(one)) for _ in range(8)]  # two epochs of ten do not end with a batch

    def parts():
        return [make(kind, rows=rows) for rows in dealt]

    def read(parts, number):
        """That many batches, put together."""
        batches = []
        for _ in range(number):
            batch = {}
            for rows, part in zip(dealt, parts, strict=True):
                for row, name in zip(rows, names(next(part)), strict=True):
                    assert batch.setdefault(row, name) == name
            batches.append([batch[row] for row in range(BATCH)])
        return batches

    many = parts()
    assert read(many, 3) == want[:3]
    position = json.loads(json.dumps(many[0].position()))
    again = make(kind)
    again.seek(position)
    assert [names(next(again)) for _ in range(5)] == want[3:]
    other = parts()
    for part in other:
        part.seek(position)
    assert read(other, 5) == want[3:]
    for loader in (one, again, *many, *other):
        loader.close()


def test_both_loaders_read_the_same_batches():
    memory, grain = make(MemoryLoader), make(GrainLoader)
    for _ in range(6):
        assert names(next(memory)) == names(next(grain))
    grain.close()


def test_a_position_of_processes_with_episodes_of_their_own_is_refused():
    saved = make(MemoryLoader).position()
    saved["fingerprint"]["process_count"] = 2  # as earlier versions wrote it
    with pytest.raises(UserError, match="process_count was 2 and is 1"):
        make(MemoryLoader).seek(saved)


@both
def test_short_episodes_are_padded_and_masked(kind):
    loader = make(kind, [episode(1, frames=3)])
    batch = next(loader)
    np.testing.assert_array_equal(batch["mask"], [[True] * 3 + [False] * 2] * BATCH)
    np.testing.assert_array_equal(batch["camera_mask"], batch["mask"])
    assert not batch["frames"][:, 3:].any()
    loader.close()


@both
def test_a_corrupt_record_is_named_skipped_and_counted(kind):
    source = Damaged(EPISODES)
    source.bad = (3, 7)
    loader = make(kind, source, corrupt_budget=2)
    seen = {number for _ in range(10) for number, _ in names(next(loader))}
    assert seen == set(range(10)) - {3, 7}
    assert sorted(loader.corrupt) == [3, 7]
    assert "shard-00000.array_record, record 3: crc mismatch" in loader.corrupt[3]
    loader.close()


@both
def test_more_corrupt_records_than_the_budget_stop_the_run(kind):
    source = Damaged(EPISODES)
    source.bad = (3, 7)
    with pytest.raises(CorruptData, match=r"2 records are corrupt.*record [37]: crc mismatch"):
        loader = make(kind, source, corrupt_budget=1)
        for _ in range(5):
            next(loader)


def test_an_empty_source_is_refused():
    for kind in (MemoryLoader, GrainLoader):
        with pytest.raises(UserError, match="there are 0 episodes"):
            make(kind, [])


@pytest.mark.parametrize(
    "change, word",
    [
        ({"frames": np.zeros((12, 4, 4, 3), np.float32)}, "must be uint8"),
        ({"frames": np.zeros((12, 4, 4), np.uint8)}, "must be uint8"),
        ({"camera": np.zeros((11, 3), np.float32)}, "12 frames but 11 of 'camera'"),
        ({"camera": None}, "lacks camera"),
    ],
)
def test_wrong_dtype_and_shape_are_named(change, word):
    broken = {k: v for k, v in (episode(0) | change).items() if v is not None}
    with pytest.raises(UserError, match=word):
        window.trim(broken, ("camera",))


def test_unknown_modality_is_refused():
    with pytest.raises(UserError, match="smell"):
        make(MemoryLoader, conditions=("smell",))


def test_sound_becomes_bands_of_the_agreed_width():
    rate = np.arange(256) / 256
    tones = np.stack([0 * rate, np.sin(2 * np.pi * 2 * rate), np.sin(2 * np.pi * 90 * rate)])
    bands = window.log_bands(tones)
    assert bands.shape == (3, CONDITION_SIZES["audio"])
    np.testing.assert_array_equal(bands[0], 0)
    assert bands[1].argmax() < bands[2].argmax()


@both
@pytest.mark.parametrize("rows", [[], [1, 0], [0, 0], [3, 4], [-1]])
def test_rows_that_a_batch_has_not_are_refused(kind, rows):
    with pytest.raises(UserError, match="cannot read the rows .* of a batch of 4; name at least"):
        make(kind, rows=rows)


@pytest.mark.parametrize("loader", ["memory", "grain"])
def test_open_loader_reads_the_rows_that_it_is_told(loader):
    config = data_config()
    config.update({"window": 5, "conditions": (), "corrupt_budget": 0, "loader": loader})
    arguments = {"batch_size": BATCH, "seed": 0, "source": EPISODES}
    whole, some = open_loader(config, **arguments), open_loader(config, **arguments, rows=[0, 3])
    want = names(next(whole))
    assert names(next(some)) == [want[0], want[3]]
    for opened in (whole, some):
        opened.close()


def test_a_missing_grain_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"grain is not installed; .*data\.loader=memory"):
        make(GrainLoader)


def test_memory_needs_neither_grain_nor_tfds_nor_jax():
    code = (
        "import sys\n"
        "for name in ('grain', 'tensorflow_datasets', 'array_record', 'jax'):\n"
        "    sys.modules[name] = None\n"
        "import data_pipelines.input, data_pipelines.memory\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
