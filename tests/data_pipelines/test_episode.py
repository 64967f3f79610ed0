"""The episode specification: what passes, and the sentence for what doesn't."""

import numpy as np
import pytest

from data_pipelines.episode import EPISODE, EpisodeError, complete, validate
from data_pipelines.twins import make_episode
from wm_jax.errors import UserError


def video(length=5, side=8):
    return {"frames": np.zeros((length, side, side, 3), np.uint8), "fps": np.float32(25)}


def test_frames_and_fps_are_enough():
    episode = complete(video())
    assert validate(episode) == {"T": 5, "H": 8, "W": 8}
    assert episode["is_first"].tolist() == [True, False, False, False, False]
    assert episode["is_last"].tolist() == [False, False, False, False, True]
    assert int(episode["group"]) == -1 and "actions" not in episode


def test_complete_keeps_what_is_there():
    marks = np.array([True, False, True, False, False])
    assert complete({**video(), "is_first": marks})["is_first"] is marks


@pytest.mark.parametrize("branch", [0, 1])
def test_twins_episodes_pass(branch):
    episode = make_episode("twins:full", 3, length=40, resolution=32, branch=branch)
    sizes = validate(episode)
    assert (sizes["T"], sizes["H"], sizes["N"], sizes["A"]) == (40, 32, 8, 2)
    optional = {name for name, field in EPISODE.fields.items() if not field.required}
    # The twins fill in all the rest, in `twins:keys` discrete actions too; what a read-out shall
    # say is for a user to bring.
    assert optional - set(episode) == {"reward", "readout", "discrete_actions"}


BROKEN = {
    "missing frames": ({"frames": None}, "'frames' is missing"),
    "missing marks": ({"is_first": None}, "complete"),
    "float frames": ({"frames": np.zeros((5, 8, 8, 3))}, "'frames' is float64; give uint8"),
    "grey frames": ({"frames": np.zeros((5, 8, 8, 1), np.uint8)}, "(T, H, W, 3)"),
    "flat frames": ({"frames": np.zeros((5, 8, 8), np.uint8)}, "(5, 8, 8)"),
    "no frames": ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "at least one frame"),
    "short actions": ({"actions": np.zeros((4, 2), np.float32)}, "T is 5 in the other fields"),
    "nan actions": ({"actions": np.full((5, 2), np.nan, np.float32)}, "'actions' has NaN"),
    "loud audio": ({"audio": np.full((5, 4), 1.5, np.float32)}, "goes from 1.5 to 1.5"),
    "typing error": ({"action": np.zeros((5, 2), np.float32)}, "did you mean 'actions'?"),
    "unknown": ({"zzz": np.zeros(3)}, "there is no field 'zzz'; leave it out"),
    "bytes": ({"text": b"a circle"}, "'text' is bytes; give a str"),
    "one event": ({"events/text": "hit"}, "give a list of str"),
    "late event": ({"events/frame": np.array([5], np.int32)}, "a frame after the last, 4"),
    "start unmarked": ({"is_first": np.zeros(5, bool)}, "is_first must be true at frame 0"),
    "end unmarked": ({"is_terminal": np.array([1, 0, 0, 0, 0], bool)}, "where is_last isn't"),
    "zero fps": ({"fps": np.float32(0)}, "'fps' goes from 0 to 0"),
    "contact": (
        {
            "truth/mass": np.zeros(8, np.float32),
            "truth/contact": np.zeros((5, 8, 9), np.float32),
        },
        "N + 2",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_episodes_are_named_in_one_sentence(case):
    change, words = BROKEN[case]
    episode = {k: v for k, v in {**complete(video()), **change}.items() if v is not None}
    with pytest.raises(EpisodeError) as caught:
        validate(episode, name="clip 7")
    sentence = str(caught.value)
    assert words in sentence and sentence.startswith("clip 7: ") and "\n" not in sentence
    assert isinstance(caught.value, UserError)
