"""Pictures of told changes: the twin's sentence, said when it acts, beside its own future."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import wm_jax
from data_pipelines.twins.build import build, make_plan
from experiments.benchmarks import told
from wm_jax.errors import UserError

KINDS = ("push", "recolour", "add")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("told") / "data")
    few = {"train": 0, "validation": 0, "test": 2, "twins": 3, "kinds": ",".join(KINDS)}
    build(make_plan("twins:motion", resolution=32, test_length=64, **few), directory, 1, False)
    return directory


class Still:
    """Keeps the last frame it was shown, and writes down what it is told."""

    resolution, modalities = 32, ("text",)

    def __init__(self):
        self.said = []

    def encode(self, frames):
        assert len(frames) == told.CONTEXT
        return frames[-1]

    def rollout(self, scene, steps, text=None, route=None):
        self.said.append((text, route))
        return SimpleNamespace(frames=np.repeat(scene[None, None], steps, 1))


def test_a_film_begins_where_the_change_does(data):
    for episode in told.twins_of(data, scenes=1):
        world, at = Still(), int(episode["intervention/frame"])
        film = told.film_of(world, episode)
        assert film.frames.shape == (3, told.STEPS, 32, 32, 3)
        np.testing.assert_array_equal(film.frames[0, 0], episode["frames"][at])
        np.testing.assert_array_equal(film.frames[2, 0], episode["frames"][at + 1])
        assert world.said == [(None, None), ({0: film.sentence}, "text")]
        numbers = any(c.isdigit() for c in film.sentence)
        assert numbers == (film.kind in ("push", "add")), film.sentence
        assert film.error > 0


def test_it_is_drawn_with_the_worst_and_says_what_is_missing(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wm_jax, "load", lambda path: Still())
    out = tmp_path / "told.png"
    assert told.main(["--model", "a", "--data", data, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    kinds = {str(e["intervention/kind"]) for e in told.twins_of(data, scenes=12)}
    rows = -(-(len(kinds) + 1) // 2)
    with Image.open(out) as picture:
        assert picture.height == rows * (told.LINE + 3 * 32 + 6)
    with pytest.raises(UserError, match="has no twins"):
        told.main(["--model", "a", "--data", data, "--scenes", "0"])
    monkeypatch.setattr(Still, "modalities", ())
    with pytest.raises(UserError, match="not trained to hear words"):
        told.main(["--model", "a", "--data", data])
