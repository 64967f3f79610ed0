"""An edit changes what it names, and nothing else; an edit of nothing changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from tests.models.test_grid_slots import RED, SIZE, clip, encode, model, params
from wm_jax.config import base_config, change
from wm_jax.edit import KINDS, Edits, no_edits
from wm_jax.errors import UserError
from wm_jax.models import build
from wm_jax.models.dynamics import slot_edit

__all__ = ["encode", "model", "params"]  # fixtures

GREEN = (0.1, 0.8, 0.1)


@pytest.fixture(scope="module")
def state(params, encode):
    return encode(params, jnp.asarray(clip()))


@pytest.fixture(scope="module")
def edited(model, params, state):
    edit = quick_jit(lambda edits: model.edit(params, state, edits))

    def make(kind: str, **fields) -> tuple:
        """Slots of the red and of the blue square, and the state after an edit of the red one."""
        colour = state.carry.colour[0] * (state.carry.present[0] > 0.5)
        red, blue = int(colour[:, 0].argmax()), int(colour[:, 2].argmax())
        told = no_edits(1)._asdict() | {"kind": np.array([KINDS.index(kind)], np.int32)}
        told |= {"at": np.asarray(state.carry.place[:, red]), "named": np.array([RED], np.float32)}
        told |= {
            name: np.asarray(value, np.asarray(told[name]).dtype) for name, value in fields.items()
        }
        return red, blue, edit(Edits(**told)).carry

    return make


def changed(state, carry) -> set[str]:
    return {
        name
        for name in carry._fields
        if not np.array_equal(getattr(state.carry, name), getattr(carry, name))
    }


def test_each_kind_changes_its_own_field_of_its_own_slot(state, edited):
    for kind, field, fields in (
        ("move", "place", {"place": [[0.75, 0.5]]}),
        ("push", "speed", {"speed": [[0.0, 0.02]]}),
        ("recolour", "colour", {"paint": [GREEN]}),
        ("remove", "present", {}),
    ):
        red, blue, carry = edited(kind, **fields)
        assert changed(state, carry) == ({field} if kind != "remove" else {field, "visible"})
        before, after = getattr(state.carry, field), getattr(carry, field)
        np.testing.assert_array_equal(before[0, blue], after[0, blue])
        if kind == "move":
            np.testing.assert_allclose(after[0, red], [0.75, 0.5])
        if kind == "push":
            np.testing.assert_allclose(after[0, red] - before[0, red], [0, 0.02], atol=1e-6)
        if kind == "recolour":
            hue = after[0, red] / after[0, red].max()
            np.testing.assert_allclose(hue, np.array(GREEN) / 0.8, atol=0.02)
        if kind == "remove":
            assert after[0, red] == 0


def test_what_is_added_takes_an_empty_slot_and_looks_like_what_was_seen(state, edited):
    """A drawn square has the template, and so the looks, of a square that the filter saw."""
    radius = 6 / np.sqrt(np.pi) / SIZE
    where = {"place": [[0.7, 0.3]], "speed": [[0.01, 0.0]], "paint": [GREEN]}
    red, blue, carry = edited("add", **where, shape=[1], radius=[radius])
    slot = next(s for s in range(3) if s not in (red, blue))
    np.testing.assert_allclose(carry.place[0, slot], [0.7, 0.3])
    np.testing.assert_allclose(carry.speed[0, slot], [0.01, 0.0])
    assert carry.present[0, slot] == 1
    for other in (red, blue):
        np.testing.assert_array_equal(carry.template[0, other], state.carry.template[0, other])
    np.testing.assert_allclose(carry.look[0, slot], carry.look[0, blue], atol=0.15)


def test_what_is_not_there_is_not_edited(model, params, state, edited):
    assert not changed(state, edited("remove", named=[GREEN])[2])
    assert not changed(state, model.edit(params, state, no_edits(1)).carry)


def test_where_all_slots_are_full_nothing_is_added(state):
    full = state.carry._replace(present=jnp.ones_like(state.carry.present))
    edits = no_edits(1)._replace(kind=np.array([KINDS.index("add")], np.int32))
    looks = lambda template: (full.look[:, 0], None)  # noqa: E731
    after = slot_edit.apply(full, edits, (SIZE, SIZE), 0.0, looks)
    jax.tree.map(np.testing.assert_array_equal, after, full)


def test_shapes_are_drawn_with_one_area_each_and_their_own_outline():
    at = jnp.asarray(np.stack(np.meshgrid(*2 * [np.arange(-15.5, 16)]), -1).reshape(-1, 2) / 64)
    drawn = slot_edit.drawn(jnp.eye(3), jnp.full(3, 8 / 64), at, 64)
    np.testing.assert_allclose(drawn.sum(1), np.pi * 64, rtol=0.02)
    middle = (drawn @ at) / drawn.sum(1)[:, None] * 64
    np.testing.assert_allclose(middle, 0.0, atol=0.1)
    reach = jnp.where(drawn > 0.5, jnp.linalg.norm(at, axis=1) * 64, 0).max(1)
    np.testing.assert_allclose(reach, [8, 10.0, 12.4], atol=1.0)


def test_a_backbone_without_slots_says_that_it_takes_no_edits():
    other = build(change(base_config(), {"model.name": "grid_gru"}).model)
    assert other.edits == ()
    with pytest.raises(UserError, match="cannot be edited; choose model.name=grid_slots"):
        other.edit({}, None, no_edits(1))


def test_the_default_names_the_edits_it_takes(model):
    assert model.edits == ("move", "push", "recolour", "remove", "add")
