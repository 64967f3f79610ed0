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


def parsed(said, size):
    """What the grammar makes of the sentences, in a scene that has one object of each sort."""
    there = [
        Thing(slot, HUES[slot // 3], SHAPES[slot % 3], (3.0, 4.0), (0.0, 0.0), tuple(colour))
        for slot, colour in enumerate(np.repeat(PALETTE, 3, axis=0))
    ]
    edits = no_edits(len(said))
    for stream, sentence in enumerate(said):
        write(edits, stream, sentences.parse(sentence, there, size), there, size)
    return edits


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", paraphrases.KINDS)
def test_the_sentence_says_what_the_vector_says(kind, size):
    """Parsed by the grammar it is the vector, to the digits that it is said in."""
    said, vectors = paraphrases.made_up(np.random.default_rng(0), [kind], 40, size, plain=0.0)
    edits = parsed(said, size)
    if kind in ("add", "gravity"):  # of no object that is there
        edits = edits._replace(named=0 * edits.named)
    np.testing.assert_allclose(as_vector(edits), vectors, atol=0.55 / size)
    assert (vectors[:, KINDS.index(kind)] == 1).all()
    assert len(set(said)) > 20, "as many as there are"


@pytest.mark.parametrize("kind", ["push", "add", "gravity"])
def test_without_numbers_it_says_where_to_and_means_the_mean(kind):
    """The grammar puts there what it says; the vectors of one sentence lie around that."""
    said, vectors = paraphrases.made_up(np.random.default_rng(0), [kind], 3000, 64, plain=1.0)
    assert not any(any(c.isdigit() for c in sentence) for sentence in said)
    alike = {" ".join(s.split()[-2:]): [] for s in said}  # "pushed left", "top left", "pulls up"
    for row, sentence in enumerate(said):
        alike[" ".join(sentence.split()[-2:])].append(row)
    assert len(alike) == (9 if kind == "add" else 4)
    at = {"push": slice(13, 15), "add": slice(11, 13), "gravity": slice(22, 24)}[kind]
    for words_of, rows in alike.items():
        mean = vectors[rows, at].mean(0)
        want = as_vector(parsed([said[rows[0]]], 64))[0, at]
        cosine = mean @ want / (np.linalg.norm(mean) * np.linalg.norm(want) + 1e-9)
        assert cosine > 0.98 or np.abs(mean - want).max() < 0.06, (words_of, mean, want)


def test_a_move_is_always_said_with_its_numbers():
    said, _ = paraphrases.made_up(np.random.default_rng(0), ["move"], 20, 64, plain=1.0)
    assert all("(" in sentence for sentence in said)


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
