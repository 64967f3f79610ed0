"""Every word that the twins world says has an id of its own, and any other word has one."""

import numpy as np

from data_pipelines.twins import make_group
from data_pipelines.twins.language import place_words
from data_pipelines.twins.world import HUES, SHAPES, WORLDS
from wm_jax import naming, words


def test_what_the_world_says_is_in_the_vocabulary():
    known = set(words.VOCABULARY)
    assert set(HUES) | set(SHAPES) <= known
    assert set(naming.HUES) <= known
    said = [place_words(np.array(p)) for p in ((1, 1), (32, 32), (63, 63), (1, 63))]
    for world in WORLDS:
        for seed in range(4):
            group = make_group(world, seed, resolution=32, sound=False, twins=8)
            said += [str(e[f]) for e in group for f in ("text", "intervention/sentence")]
    unknown = {w for s in said for w in s.replace(",", "").replace(";", "").split()} - known
    assert not unknown, "a word that training says often shares no id"


def test_ids_are_stable_and_apart():
    assert len(set(words.VOCABULARY)) == len(words.VOCABULARY)
    assert len(words.VOCABULARY) < words.IDS - words.SPARE
    ids = words.encode("The red CIRCLE disappears.")
    assert ids.shape == (words.LENGTH,) and ids.dtype == np.float32
    assert ids[:4].tolist() == [
        1 + words.VOCABULARY.index(w) for w in ("the", "red", "circle", "disappears")
    ]
    assert not ids[4:].any() and not words.encode("").any()


def test_a_number_is_told_as_itself():
    ids = words.encode("the ball is pushed by (-1.25, 0), 3 px at box2 and 12.")
    numbers = ids[ids < 0] + words.NUMBERS
    np.testing.assert_allclose(numbers, [-1.25, 0, 3, 12], atol=1e-4)
    assert (ids[:5] > 0).all() and ids[4] < words.NUMBER, "'by' is a word of its own"
    between = words.encode("from 2-3 to 4x4, 2nd")
    np.testing.assert_allclose(between[between < 0] + words.NUMBERS, [2, 3], atol=1e-4)
    far = words.encode("100000 -100000")[:2] + words.NUMBERS
    assert far.tolist() == [words.NUMBERS - 1, 1 - words.NUMBERS]
    assert len(words.VOCABULARY) < words.NUMBER < words.IDS - words.SPARE


def test_a_strange_word_has_an_id_and_a_long_sentence_an_end():
    strange = words.encode("zebra zebra giraffe")
    assert strange[0] == strange[1] >= words.IDS - words.SPARE
    assert strange.max() < words.IDS
    assert (words.encode("red " * 50) == 1).all()
