"""What is said changes what was meant and nothing else, and frames that come later teach it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from tests.models.test_grid_slots import RED, SIZE, SMALL, clip, encode, model, params
from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.models.dynamics import said_lesson, slot_edit, slot_hearing
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.pixels import CONTRAST
from wm_jax.models.dynamics.slot_hearing import CHOICES, Heard

__all__ = ["encode", "model", "params"]  # fixtures

GREEN = (0.1, 0.8, 0.1)
SAID = 5


@pytest.fixture(scope="module")
def scene(params, encode):
    return encode(params, jnp.asarray(clip())).carry


def heard(scene, choice=None, who=RED, **fields):
    """As it is understood that ``choice`` happens to the slot of this colour."""
    hue, called = slot_edit.hues(scene.colour), jnp.asarray(who) / max(who)
    near = jnp.abs(hue - called).sum(-1) + 9.0 * (scene.present[..., 0] < 0.5)
    meant = (jnp.arange(near.shape[1]) == near.argmin(-1)[:, None]) * 1.0
    batch = len(scene.place)
    values = {"place": 0.5, "speed": 0.0, "paint": 0.5, "pull": 0.0, "shape": 1 / 3}
    values["from_it"] = 0.0
    sizes = {"place": 2, "from_it": 2, "speed": 2, "paint": 3, "pull": 2, "shape": 3}
    filled = {
        k: jnp.broadcast_to(jnp.asarray(fields.get(k, v)), (batch, sizes[k]))
        for k, v in values.items()
    }
    return Heard(
        meant=meant[..., None],
        choices={name: jnp.full((batch, 1), float(name == choice)) for name in CHOICES},
        radius=jnp.full(batch, fields.get("radius", 0.1)),
        **filled,
    )


def after(scene, told):
    module = GridSlots((SIZE, SIZE), slots=3)
    looks = lambda template: (0 * scene.look, None)  # noqa: E731
    object.__setattr__(module, "look_at", looks)
    return slot_hearing.apply(module, scene, told)


def test_what_happens_is_what_was_chosen_to_what_was_meant(scene):
    red = int(np.asarray(scene.colour[0, :, 0] * scene.present[0, :, 0]).argmax())
    for choice, field, value in (
        ("move", "place", (0.75, 0.5)),
        ("push", "speed", (0.0, 0.02)),
        ("paint", "colour", GREEN),
        ("remove", "present", None),
    ):
        said = {"paint" if choice == "paint" else field: value} if value else {}
        new = after(scene, heard(scene, choice, **said))
        differs = {n for n in scene._fields if (getattr(new, n) != getattr(scene, n)).any()}
        assert differs == ({"present", "visible"} if choice == "remove" else {field})
        moved = np.asarray(getattr(new, field) != getattr(scene, field)).any(-1)[0]
        assert moved.tolist() == [slot == red for slot in range(3)]
        if choice == "move":
            np.testing.assert_allclose(new.place[0, red], value)
        if choice == "push":
            np.testing.assert_allclose(new.speed[0, red] - scene.speed[0, red], value, atol=1e-6)
        if choice == "paint":
            np.testing.assert_allclose(new.colour[0, red], CONTRAST * np.array(value), rtol=1e-5)
        if choice == "remove":
            assert new.present[0, red] == 0


def test_a_place_may_be_meant_from_where_it_is(scene):
    red = int(np.asarray(scene.colour[0, :, 0] * scene.present[0, :, 0]).argmax())
    x, y = np.asarray(scene.place[0, red])
    for from_it, place in (
        ((0, 0), (0.4, 0.6)),
        ((1, 0), (x - 0.1, 0.6)),
        ((0, 1), (0.4, y + 0.1)),
    ):
        told = heard(scene, "move", place=(0.4, 0.6), from_it=from_it)
        np.testing.assert_allclose(after(scene, told).place[0, red], place, atol=1e-6)
    new = after(scene, heard(scene, "add", place=(0.4, 0.6), from_it=(1, 1)))
    came = np.asarray(new.present[0, :, 0] > 0.5) & np.asarray(scene.present[0, :, 0] < 0.5)
    np.testing.assert_allclose(new.place[0, came], [(0.4, 0.6)], atol=1e-6)


def test_what_comes_takes_the_empty_slot_as_likely_as_it_is_said_to(scene):
    told = heard(scene, "add", place=(0.7, 0.3), speed=(0.01, 0.0), paint=GREEN, shape=(0, 1, 0))
    told.choices["add"] = jnp.full((1, 1), 0.75)
    new, slot = after(scene, told), int(np.asarray(scene.present[0, :, 0]).argmin())
    np.testing.assert_allclose(new.place[0, slot], (0.7, 0.3))
    np.testing.assert_allclose(new.present[0, slot], 0.75)
    np.testing.assert_allclose(new.colour[0, slot], CONTRAST * np.array(GREEN), rtol=1e-5)
    others = [k for k in range(3) if k != slot]
    for name in ("place", "colour", "template", "present"):
        np.testing.assert_array_equal(
            getattr(new, name)[0, others], getattr(scene, name)[0, others]
        )
    full = scene._replace(present=jnp.ones_like(scene.present))
    jax.tree.map(np.testing.assert_array_equal, after(full, told), full)


def test_of_what_can_be_heard_one_is_or_none_to_the_last_bit():
    """With sigmoids a pull was heard in all that was said, and moved what nobody spoke of."""
    one_of = quick_jit(slot_hearing._one_of)
    sure, none = jnp.full(len(CHOICES), -2.0).at[1].set(4.0), jnp.full(len(CHOICES), -6.0)
    np.testing.assert_array_equal(one_of(sure), [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(one_of(none), np.zeros(len(CHOICES)))
    np.testing.assert_allclose(one_of(none.at[:2].set(6.0))[:2], 0.5, atol=1e-2)
    # Whatever else is said to be, a second thing takes from the first.
    assert one_of(sure.at[5].set(3.5))[1] < 0.8


def test_what_is_heard_for_sure_can_be_unlearned():
    def wrong(x):
        return ((slot_hearing._one_of(x) - jnp.eye(len(CHOICES))[5]) ** 2).sum()

    slope = quick_jit(jax.grad(wrong))(jnp.full(len(CHOICES), -6.0).at[1].set(6.0))
    assert slope[5] < 0 < slope[1]


SPEAKING = SMALL | {
    "model.modalities": ("intervention", "text", "actions"),
    "model.told_width": 8,
    "model.dynamics.pull": 0.01,
}


@pytest.fixture(scope="module")
def speaking():
    config = change(base_config(), SPEAKING)
    model = models.build(config.model)
    frames = jnp.asarray(clip())[:, :2]
    batch = shapes.Batch(
        frames, jnp.zeros((1, 2), bool), jnp.ones((1, 2), bool), shapes.no_conditions(1, 2)
    )
    made = jax.eval_shape(model.init, jax.random.key(0), batch)
    random = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), made
    )


def test_where_nothing_is_said_nothing_changes_to_the_last_bit(speaking, scene):
    model, params = speaking
    state = quick_jit(lambda f: shapes.encode(model, params, f))(jnp.asarray(clip()))
    told = shapes.no_conditions(1)

    def hear(net, carry, conditions):
        return net.dynamics._hear(carry, net.conditioning(conditions))

    def listen(value, said):
        signal = shapes.Signal(jnp.asarray(value, jnp.float32), jnp.full(1, said))
        conditions = told._replace(intervention=signal)
        return model.net.apply({"params": params}, state.carry, conditions, method=hear)

    changes = 0
    for number in range(8):
        value = 3 * np.random.default_rng(number).normal(size=(1, 24))
        same, rest = listen(value, False)
        jax.tree.map(np.testing.assert_array_equal, same, state.carry)
        assert rest.shape == (1, 3)  # an action and whether there is one
        other, _ = listen(value, True)
        changes += any((a != b).any() for a, b in zip(other, state.carry, strict=True))
    assert changes
    young = state.carry._replace(age=jnp.minimum(state.carry.age, 1.0))
    signal = shapes.Signal(jnp.asarray(value, jnp.float32), jnp.ones(1, bool))
    caption = told._replace(intervention=signal)
    same, _ = model.net.apply({"params": params}, young, caption, method=hear)
    jax.tree.map(np.testing.assert_array_equal, same, young)


def windows(scene, frames=10, at=SAID):
    """Slots of a still scene, (1, t, …), in which the red one is elsewhere from ``at`` on; and what
    is told, whether anything is and one number."""
    still = scene._replace(speed=0 * scene.speed, visible=jnp.ones_like(scene.visible))
    slots = jax.tree.map(lambda x: jnp.repeat(x[:, None], frames, 1), still)
    told = jnp.zeros((1, frames, 3)).at[:, at, 1].set(1.0)
    first = jnp.zeros((1, frames), bool).at[:, 0].set(True)
    return slots, told, first


@functools.cache
def listener():
    module = GridSlots((SIZE, SIZE), slots=3, said_size=2, foresight=4)
    frames, flags = jnp.zeros((1, 2, SIZE * SIZE, 3)), jnp.zeros((1, 2), bool)
    inputs = module.initial(1), frames, None, jnp.zeros((1, 2, 3)), flags, None
    return module, random_variables(module, *inputs, method="scan")


@functools.cache
def lesson():
    module, variables = listener()

    def run(module, slots, told, first, understood):
        object.__setattr__(module, "hearing", lambda begin, said: understood)
        return said_lesson.said_error(module, slots, told, first)

    return quick_jit(lambda *inputs: module.apply(variables, *inputs, method=run))


def error_of(slots, told, first, understood):
    return np.asarray(lesson()(slots, told, first, understood))


def changed(slots, red, **fields):
    """From `SAID` on the red one has these."""
    new = {}
    for name, value in fields.items():
        old = getattr(slots, name)
        new[name] = old.at[:, SAID:, red].set(jnp.asarray(value, old.dtype))
    return slots._replace(**new)


@pytest.mark.parametrize(
    ("fields", "choice", "said"),
    [
        ({"place": (0.5, 0.2)}, "move", {"place": (0.5, 0.2)}),
        ({"colour": CONTRAST * np.array(GREEN)}, "paint", {"paint": GREEN}),
        ({"present": 0.0, "visible": 0.0}, "remove", {}),
    ],
)
def test_the_right_understanding_has_the_least_error(scene, fields, choice, said):
    slots, told, first = windows(scene)
    red = int(np.asarray(scene.colour[0, :, 0] * scene.present[0, :, 0]).argmax())
    slots = changed(slots, red, **fields)
    errors = {}
    for name, understood in {
        "right": heard(scene, choice, **said),
        "none": heard(scene),
        "other": heard(scene, choice, who=(0.1, 0.1, 0.9), **said),
    }.items():
        error = error_of(slots, told, first, understood)
        assert error.shape == (1, 10)
        assert not np.delete(error[0], SAID).any(), "it is counted where it is heard"
        errors[name] = error[0, SAID]
    assert errors["right"] < 0.25 * errors["none"]
    assert errors["right"] < 0.25 * errors["other"]


def test_what_changed_its_colour_is_not_something_new(scene):
    """Or else it would be learned as one thing that goes and another that comes."""
    slots, told, first = windows(scene)
    red = int(np.asarray(scene.colour[0, :, 0] * scene.present[0, :, 0]).argmax())
    empty = int(np.asarray(scene.present[0, :, 0]).argmin())
    slots = changed(slots, red, present=0.0, visible=0.0)
    there = {"present": 1.0, "visible": 1.0, "place": scene.place[0, red]}
    slots = changed(slots, empty, colour=CONTRAST * np.array(GREEN), **there)
    understood = {
        "painted": heard(scene, "paint", paint=GREEN),
        "none": heard(scene),
        "comes": heard(scene, "add", place=scene.place[0, red], paint=GREEN),
    }
    errors = {k: error_of(slots, told, first, h)[0, SAID] for k, h in understood.items()}
    assert errors["painted"] < 0.25 * errors["none"]
    assert errors["comes"] > errors["none"]


def test_of_nothing_said_and_of_a_stream_just_begun_there_is_no_error(scene):
    slots, told, first = windows(scene)
    understood = heard(scene, "move", place=(0.9, 0.9))
    assert not error_of(slots, 0 * told, first, understood).any()
    assert not error_of(slots, told, first.at[:, SAID - 1].set(True), understood).any()
    assert error_of(slots, told, first, understood).any()
