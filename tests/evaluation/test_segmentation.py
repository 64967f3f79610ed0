"""Binding scores against counts made by hand, and their fixed points."""

import itertools

import numpy as np
import pytest

from wm_jax.evaluation.segmentation import adjusted_rand_index, binding, bound, contingency


def by_pairs(a, b):
    """The index from all pairs of pixels: (agreeing − expected) / (most − expected)."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    same_a = np.array([a[i] == a[j] for i, j in pairs])
    same_b = np.array([b[i] == b[j] for i, j in pairs])
    both, chance = (same_a & same_b).sum(), same_a.sum() * same_b.sum() / len(pairs)
    return (both - chance) / ((same_a.sum() + same_b.sum()) / 2 - chance)


def test_adjusted_rand_index_is_the_one_of_pairs():
    random = np.random.default_rng(0)
    truth, slots = random.integers(1, 4, (5, 5)), random.integers(0, 3, (5, 5))
    counts = contingency(truth, slots, np.array([1, 2, 3]))
    expected = by_pairs(truth.ravel(), slots.ravel())
    np.testing.assert_allclose(adjusted_rand_index(counts), expected)
    # Hubert & Arabie's own kind of table: [[5, 1], [1, 5]] has 2 · 10 of 66 pairs together.
    np.testing.assert_allclose(
        adjusted_rand_index(np.array([[5, 1], [1, 5]])), (20 - 30**2 / 66) / (30 - 30**2 / 66)
    )


def test_adjusted_rand_index_at_its_ends():
    assert adjusted_rand_index(np.array([[4, 0], [0, 9]])) == 1
    assert adjusted_rand_index(np.array([[0, 9], [4, 0]])) == 1  # names do not matter
    assert adjusted_rand_index(np.array([[4, 0], [9, 0]])) == 0  # all in one slot
    assert adjusted_rand_index(np.array([[7]])) == 1
    assert np.isnan(adjusted_rand_index(np.array([[1]])))
    random = np.random.default_rng(0)
    truth, slots = random.integers(0, 3, (50, 50)), random.integers(0, 3, (50, 50))
    assert abs(adjusted_rand_index(contingency(truth, slots, np.arange(3)))) < 0.01


@pytest.mark.parametrize(
    "counts, sizes, expected",
    [
        ([[6, 0], [0, 6]], [10, 10], [True, True]),
        ([[5, 5], [0, 6]], [10, 10], [False, True]),  # half is not more than half
        ([[6, 0], [6, 0]], [10, 10], [False, False]),  # one slot wins both
        ([[6, 0], [4, 6]], [10, 10], [True, True]),  # a part of another does not count
        ([[0, 0], [0, 6]], [10, 10], [False, True]),  # nobody has the first
    ],
)
def test_an_object_is_bound_by_a_slot_of_its_own(counts, sizes, expected):
    np.testing.assert_array_equal(bound(np.array(counts), np.array(sizes)), expected)


def scene():
    """Two objects of 4 and 2 pixels and a sliver of a third, on 4 × 4 px."""
    return np.array([[1, 1, 0, 0], [1, 1, 0, 3], [0, 0, 2, 2], [0, 0, 0, 0]])


VISIBLE = np.array([1.0, 0.6, 0.1, 0.0])


def masks_of(labels, number):
    return np.moveaxis(np.eye(number)[labels], -1, 0)


def test_a_scene_with_a_slot_an_object_is_perfect_however_the_background_is_cut():
    slots = np.where(scene() == 0, np.arange(16).reshape(4, 4) % 4, scene())
    assert binding(scene(), masks_of(slots, 4), VISIBLE) == (1.0, 1.0, 1.0)


def test_a_sliver_is_not_asked_for_but_counts_in_the_index():
    slots = np.where(scene() == 3, 2, scene())
    index, share, all_bound = binding(scene(), masks_of(slots, 4), VISIBLE)
    assert index < 1 and share == all_bound == 1
    asked = binding(scene(), masks_of(slots, 4), VISIBLE, least=0.1)
    assert (asked.bound_share, asked.one_a_slot) == (1 / 3, 0)


def test_what_paints_most_of_the_background_binds_no_object():
    slots = np.where(scene() == 1, 0, scene())  # the first object is left to the backdrop
    found = binding(scene(), masks_of(slots, 4), VISIBLE)
    assert (found.bound_share, found.one_a_slot) == (0.5, 0)
    corner = np.arange(16).reshape(4, 4) >= 12
    split = np.where(corner & (slots == 0), 3, slots)  # 4 of 9 to another: still the backdrop
    assert binding(scene(), masks_of(split, 4), VISIBLE).bound_share == 0.5
    alone = np.where(scene() == 1, 1, 0)
    assert binding(alone, np.ones((1, 4, 4)), VISIBLE) == (1, 0, 0)  # one slot paints all


def test_a_scene_without_objects_asks_nothing():
    empty = binding(np.full((4, 4), 255), np.ones((2, 4, 4)), VISIBLE)
    assert all(np.isnan(empty))
    hidden = binding(scene(), masks_of(scene(), 4), np.full(4, 0.2))
    assert hidden.foreground_ari == 1 and np.isnan(hidden.one_a_slot)
