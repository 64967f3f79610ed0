"""Windows that go on from one another: in order, whole epochs, exact positions."""

import json

import numpy as np
import pytest

from data_pipelines.input import open_loader
from data_pipelines.memory import Consecutive, MemoryLoader
from tests.data_pipelines.test_input import EPISODES, episode
from wm_jax.config import data_config
from wm_jax.errors import UserError

LENGTH = 5


def loader(source=EPISODES, batch_size=3, **changes):
    settings = {"length": LENGTH, "batch_size": batch_size, "seed": 1, "conditions": ("camera",)}
    return MemoryLoader(source, **(settings | {"consecutive": True} | changes))


def names(batch):
    """(episode, first frame, whether it starts a stream) of every window."""
    first = [bool(x) for x in batch["is_first"][:, 0]]
    pixels = batch["frames"][:, 0, 0, 0].astype(int)
    return [(p[0], p[1], f) for p, f in zip(pixels, first, strict=True)]


def test_a_row_goes_on_where_the_row_before_ended():
    batches = loader()
    rows = np.array([names(next(batches)) for _ in range(30)])
    ends = starts = 0
    for before, after in zip(rows[:-1], rows[1:], strict=True):
        for (episode_a, frame_a, _), (episode_b, frame_b, begins) in zip(
            before, after, strict=True
        ):
            if begins:
                assert frame_a + 2 * LENGTH > 12  # there was no room for another window
                starts += 1
            else:
                assert episode_a == episode_b and frame_b == frame_a + LENGTH
                ends += 1
    assert starts and ends
    assert all(begins for *_, begins in rows[0])  # nothing came before a run's first windows
    assert len({tuple(row) for row in rows[1:, :, 2]}) > 1  # streams don't start anew together


def test_an_epoch_of_a_stream_visits_every_window_once():
    lengths = [12, 4, 30, 5]
    places = Consecutive(lengths, LENGTH, seed=3)
    total = 2 + 1 + 6 + 1
    shift = next(n for n in range(1, total + 1) if places.place(0, n).begins)
    begun = [places.place(0, n) for n in range(shift, shift + 4 * total)]
    seen = [place.episode for place in begun if place.begins]
    assert len(seen) == 16  # each of four epochs, from wherever an episode begins
    for place in begun:
        assert 0 <= place.start <= max(0, lengths[place.episode] - LENGTH)
    per_episode = np.bincount([place.episode for place in begun]) / 4
    np.testing.assert_allclose(per_episode, [2, 1, 6, 1], atol=1.5)


def test_offsets_within_an_episode_vary():
    places = Consecutive([14], LENGTH, seed=0)
    starts = {p.start for n in range(100) if (p := places.place(0, n)).begins and n}
    assert starts == {0, 1, 2, 3, 4}


def test_a_position_resumes_to_the_record():
    one = loader()
    for _ in range(7):
        next(one)
    position = json.loads(json.dumps(one.position()))
    want = [names(next(one)) for _ in range(9)]
    other = loader()
    other.seek(position)
    assert [names(next(other)) for _ in range(9)] == want
    with pytest.raises(UserError, match="loader was memory, consecutive windows and is memory"):
        loader(consecutive=False).seek(position)


def test_two_processes_read_the_streams_of_one():
    one = loader(batch_size=4)
    halves = [loader(batch_size=4, rows=rows) for rows in ([0, 2], [1, 3])]
    for number in range(6):
        want = names(next(one))
        assert [names(next(half)) for half in halves] == [want[::2], want[1::2]], number
    position = halves[0].position()
    assert position == one.position()
    again = loader(batch_size=4)
    again.seek(position)
    assert names(next(again)) == names(next(one))


def test_short_episodes_are_padded():
    batch = next(loader([episode(0, frames=3)], batch_size=1))
    assert batch["mask"].tolist() == [[True] * 3 + [False] * 2]


def test_open_loader_passes_it_on():

    config = data_config()
    config.update({"window": LENGTH, "conditions": (), "corrupt_budget": 0, "loader": "memory"})
    arguments = {"batch_size": 2, "seed": 0, "source": EPISODES, "consecutive": True}
    batches = open_loader(config, **arguments)
    next(batches)
    flags = [next(batches)["is_first"][:, 0] for _ in range(4)]
    assert not np.all(flags)
