"""Sizes are what their names say, for every backbone; the exact counts are golden.

``python -m tests.models.test_sizes`` writes the counts anew after a change that is meant.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from wm_jax import shapes
from wm_jax.config import base_config, change, flat, from_json, to_json
from wm_jax.errors import UserError
from wm_jax.models import build
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.sizes import SIZES, TARGETS

GOLDEN = Path(__file__).parent.parent / "golden" / "parameters.json"
HINT = "if the change is meant, run python -m tests.models.test_sizes"


def parameters(name: str, size: str) -> int:
    """Of encoder, dynamics and decoder at 64 px; allocates nothing."""

    def batch():
        frames = jnp.zeros((1, 2, 64, 64, 3), jnp.uint8)
        flags = jnp.zeros((1, 2), bool)
        return shapes.Batch(frames, flags, ~flags, shapes.no_conditions(1, 2))

    model = build(change(base_config(), {"model.name": name, "model.size": size}).model)
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0), jax.eval_shape(batch))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_every_backbone_has_every_size():
    missing = [
        f"{name}:{size}" for name in DYNAMICS for size in TARGETS if size not in SIZES.get(name, {})
    ]
    assert not missing, f"add to wm_jax/models/sizes.py: {', '.join(missing)}"
    assert SIZES.keys() <= DYNAMICS.keys()


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_size_has_as_many_parameters_as_its_name_says(name):
    golden = json.loads(GOLDEN.read_text())
    for size, target in TARGETS.items():
        count = parameters(name, size)
        assert count == golden[name][size], f"{name}:{size} has {count} parameters; {HINT}"
        if size == "debug":
            assert count <= target
        else:
            assert 0.85 * target <= count <= 1.15 * target, f"{name}:{size} has {count}"


@pytest.mark.parametrize(
    ("size", "deter", "hidden", "classes"),
    [("1m", 512, 64, 4), ("12m", 2048, 256, 16), ("50m", 4096, 512, 32), ("200m", 8192, 1024, 64)],
)
def test_the_rssm_has_the_sizes_of_the_paper(size, deter, hidden, classes):
    dynamics = change(base_config("rssm"), {"model.size": size}).model.dynamics
    assert (dynamics.deter, dynamics.hidden, dynamics.classes) == (deter, hidden, classes)


def test_what_is_said_beside_a_size_wins_in_any_order():
    for keys in (("model.size", "model.dynamics.width"), ("model.dynamics.width", "model.size")):
        values = {"model.size": "1m", "model.dynamics.width": 24}
        config = change(base_config("grid_gru"), {key: values[key] for key in keys})
        assert config.model.dynamics.width == 24
        assert config.model.embed == SIZES["grid_gru"]["1m"]["embed"]
    again = from_json(to_json(config))
    assert flat(again) == flat(config)


def test_a_backbone_and_its_size_are_chosen_together():
    config = change(base_config(), {"model.size": "12m", "model.name": "rssm"})
    assert config.model.dynamics.deter == 2048


def test_a_size_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"unknown model\.size '12M': did you mean '12m'"):
        change(base_config(), {"model.size": "12M"})


if __name__ == "__main__":
    counts = {name: {size: parameters(name, size) for size in TARGETS} for name in sorted(SIZES)}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(counts, indent=2) + "\n")
