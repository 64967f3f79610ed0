"""Changes that are made up are said twice, and both times the same."""

import numpy as np
import pytest

from data_pipelines.input import GrainLoader
from data_pipelines.memory import MemoryLoader
from data_pipelines.twins import make_group, paraphrases
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import HUES, SHAPES
from wm_jax import sentences, words
from wm_jax.edit import KINDS, as_vector, no_edits
from wm_jax.errors import UserError
from wm_jax.naming import Thing
from wm_jax.telling import write

BOTH = ("intervention", "text")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", paraphrases.KINDS)
def test_the_sentence_says_what_the_vector_says(kind, size):
    """Parsed by the grammar it is the vector, to the digits that it is said in."""
    said, vectors = paraphrases.made_up(np.random.default_rng(0), [kind], 40, size)
    there = [
        Thing(slot, HUES[slot // 3], SHAPES[slot % 3], (3.0, 4.0), (0.0, 0.0), tuple(colour))
        for slot, colour in enumerate(np.repeat(PALETTE, 3, axis=0))
    ]
    edits = no_edits(len(said))
    for stream, sentence in enumerate(said):
        write(edits, stream, sentences.parse(sentence, there, size), there, size)
    if kind in ("add", "gravity"):  # of no object that is there
        edits = edits._replace(named=0 * edits.named)
    np.testing.assert_allclose(as_vector(edits), vectors, atol=0.55 / size)
    assert (vectors[:, KINDS.index(kind)] == 1).all()
    assert len(set(said)) > 20, "as many as there are"


def test_words_fit_into_what_is_read():
    said, _ = paraphrases.made_up(np.random.default_rng(1), paraphrases.KINDS, 500, 64)
    longest = max(said, key=lambda sentence: np.count_nonzero(words.encode(sentence)))
    assert np.count_nonzero(words.encode(longest)) < words.LENGTH, longest
    spare = words.IDS - words.SPARE
    assert max(words.encode(sentence).max() for sentence in said) < spare - 1, "no word is unknown"


@pytest.fixture(scope="module")
def episodes():
    return make_group("twins:motion", 0, length=34, resolution=16, sound=False, twins=2)


@pytest.mark.parametrize("loader", [MemoryLoader, GrainLoader])
def test_every_frame_of_a_batch_has_one_and_they_come_again(episodes, loader):
    told = {"length": 8, "batch_size": 2, "seed": 3, "conditions": BOTH}
    made = loader(episodes, **told, paraphrases=("push", "add"))
    plain = next(loader(episodes, **told))
    first, second = next(made), next(made)
    assert first["paraphrase/text"].shape == (2, 8, 32)
    assert first["paraphrase/intervention"].shape == (2, 8, 24)
    assert set(first) - set(plain) == {"paraphrase/text", "paraphrase/intervention"}
    for name, value in plain.items():
        np.testing.assert_array_equal(value, first[name], err_msg=name)
    assert (first["paraphrase/text"] != second["paraphrase/text"]).any()
    again = loader(episodes, **told, paraphrases=("push", "add"))
    again.seek(made.position())
    third = next(made)
    np.testing.assert_array_equal(next(again)["paraphrase/text"], third["paraphrase/text"])
    with pytest.raises(UserError, match="paraphrases"):
        loader(episodes, **told).seek(made.position())


def test_consecutive_windows_have_their_own(episodes):
    told = {"length": 8, "batch_size": 2, "seed": 3, "conditions": BOTH, "consecutive": True}
    batch = next(MemoryLoader(episodes, **told, paraphrases=("move",)))
    text = batch["paraphrase/text"]
    assert text.shape == (2, 8, 32) and (text[0] != text[1]).any()


def test_what_no_sentence_says_in_full_is_refused(episodes):
    with pytest.raises(UserError, match="'light', which no sentence says in full; choose .*push"):
        MemoryLoader(episodes, length=8, batch_size=2, seed=0, paraphrases=("light",))
