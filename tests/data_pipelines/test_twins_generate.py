"""Episodes as wholes: digests, twins, splits, sound, words, and the promises of the worlds."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from data_pipelines.episode import validate
from data_pipelines.twins import HUES, KINDS, SHAPES, SPLITS, make_episode, make_group
from data_pipelines.twins.generate import draw_twin, record_scene
from data_pipelines.twins.language import caption, direction_word, place_words, thing
from data_pipelines.twins.physics import Contact
from data_pipelines.twins.sound import SAMPLE_RATE, SAMPLES, sound_track, tone
from data_pipelines.twins.world import (
    get_world,
    held_out_pair,
    scene_seed,
    split_of,
    world_of_split,
)
from wm_jax.errors import UserError

STATE = ("position", "velocity", "angle", "angular_velocity", "hand", "contact", "gravity")

# Pinned: a change to these is a change of VERSION. Frames, then state rounded to 1e-4.
DIGESTS = {
    ("twins:motion", 0, 0): ("3850a693febda74d", "aeedf09557d4f0b9"),
    ("twins:motion", 7, 2): ("71283cc31c272513", "d535001201f47ede"),
    ("twins:keys", 2, 0): ("a338c02a37583912", "88b5b63c1d35d7e5"),
    ("twins:keys", 5, 1): ("004274957267ddb0", "d99e01ac45793287"),
    ("twins:full", 0, 0): ("18abfbc406a14b54", "2add53ec1adb9f11"),
    ("twins:full", 5, 3): ("c3851fc59d800a83", "00767193b3da1471"),
}


def digests(world, seed, branch):
    episode = make_episode(world, seed, branch=branch, resolution=32)
    frames = hashlib.sha256(episode["frames"].tobytes()).hexdigest()[:16]
    state = hashlib.sha256()
    for name in STATE:
        value = np.asarray(episode[f"truth/{name}"], np.float64)
        state.update(np.round(value * 1e4).astype(np.int64).tobytes())
    return frames, state.hexdigest()[:16]


@pytest.mark.parametrize("case", DIGESTS)
def test_digests(case):
    assert digests(*case) == DIGESTS[case]


def test_another_process_makes_the_same_bytes():
    code = (
        "import hashlib; from data_pipelines.twins import make_episode\n"
        "for e in (make_episode('full', 4), make_episode('full', 4, branch=2)):\n"
        "    print(hashlib.sha256(b''.join(e[k].tobytes() for k in sorted(e)"
        " if hasattr(e[k], 'tobytes'))).hexdigest())"
    )
    mine = []
    for branch in (0, 2):
        e = make_episode("full", 4, branch=branch)
        joined = b"".join(e[k].tobytes() for k in sorted(e) if hasattr(e[k], "tobytes"))
        mine.append(hashlib.sha256(joined).hexdigest())
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    theirs = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert theirs.stdout.split() == mine


@pytest.mark.parametrize("world", ["twins:motion", "twins:full"])
def test_a_short_episode_is_the_beginning_of_a_long_one(world):
    short, long = make_episode(world, 3, length=30), make_episode(world, 3, length=90)
    for name in ("frames", "audio", "actions", "truth/position", "truth/segmentation", "light"):
        assert np.array_equal(short[name], long[name][:30]), name


@pytest.mark.parametrize("world", ["twins:motion", "twins:full"])
def test_twins_share_the_past_and_nothing_but_the_change(world):
    group = make_group(world, 1, "test", resolution=32, twins=8)
    factual = group[0]
    assert [e["intervention/kind"] for e in group[1:]] != list(KINDS)  # the order is drawn
    assert sorted(e["intervention/kind"] for e in group[1:]) == sorted(KINDS)
    for branch, twin in enumerate(group[1:], 1):
        frame, kind = int(twin["intervention/frame"]), twin["intervention/kind"]
        assert 10 <= frame < 32 and twin["branch"] == branch
        assert twin["group"] == factual["group"]
        for name, value in twin.items():
            over_time = hasattr(value, "shape") and value.shape[:1] == (64,)
            if over_time and name != "is_last":
                past = slice(0, frame + 1)
                assert value[past].tobytes() == factual[name][past].tobytes(), (kind, name)
        differs = np.abs(twin["frames"][frame + 1 :].astype(int) - factual["frames"][frame + 1 :])
        assert differs.max() > 20, kind
        assert np.array_equal(twin["actions"], factual["actions"])
        if kind in ("recolour", "light", "camera"):
            assert np.array_equal(twin["truth/position"], factual["truth/position"])
        if kind != "light":
            assert np.array_equal(twin["light"], factual["light"])
        assert make_episode(world, 1, "test", resolution=32, branch=branch).keys() == twin.keys()
    one = make_episode(world, 1, "test", resolution=32, branch=3)
    assert np.array_equal(one["frames"], group[3]["frames"])


def test_the_drawn_past_of_a_twin_equals_one_drawn_anew():
    """The group copies the factual past; drawing the twin wholly gives the same bytes."""
    from data_pipelines.twins.generate import draw, simulate

    world = get_world("full")
    run = record_scene(world, scene_seed("full", "train", 9), 48)
    change = draw_twin(run, 1)
    twin = simulate(run.scene, run.actions, [change])
    past = slice(0, change.frame + 1)
    anew, factual = draw(twin, 32), draw(run, 32)
    assert np.array_equal(anew["frames"][past], factual["frames"][past])


def test_interventions_say_and_do_the_same():
    for seed in range(4):
        for twin in make_group("full", seed, resolution=32, twins=8)[1:]:
            kind, frame = twin["intervention/kind"], int(twin["intervention/frame"])
            slot, values = int(twin["intervention/target"]), twin["intervention/params"]
            sentence, after = twin["intervention/sentence"], frame + 1
            hue, shape = twin["truth/hue"][:, slot], twin["truth/shape"][:, slot]
            if kind in ("move", "push", "recolour", "remove"):
                assert thing(hue[frame], shape[frame]) in sentence
            if kind == "recolour":
                assert HUES[hue[after]] in sentence and hue[after] == values[0]
                assert (twin["truth/hue"][after] == hue[after]).sum() == 1
            if kind == "remove":
                assert not twin["truth/present"][after, slot]
            if kind == "add":
                assert not twin["truth/present"][frame, slot] and twin["truth/present"][after, slot]
                assert thing(hue[after], shape[after]) in sentence
            if kind == "move":
                assert np.abs(twin["truth/position"][after, slot] - values[:2]).max() < 4
            if kind == "gravity":
                assert np.allclose(twin["truth/gravity"][after], values[:2])
            at = list(twin["events/text"]).index(sentence)
            assert twin["events/frame"][at] == frame


def test_twins_are_of_the_kinds_that_are_asked_for():
    group = make_group("motion", 0, resolution=32, twins=4, kinds=("remove", "push"))
    kinds = [str(twin["intervention/kind"]) for twin in group[1:]]
    assert kinds in (["remove", "push"] * 2, ["push", "remove"] * 2)
    free = make_group("motion", 0, resolution=32)[0]
    np.testing.assert_array_equal(group[0]["frames"], free["frames"])


@pytest.mark.parametrize("world", ["twins:motion", "twins:full"])
def test_splits_are_disjoint_and_say_so(world):
    seeds = {split: {scene_seed(world, split, i) for i in range(3000)} for split in SPLITS}
    assert all(len(found) == 3000 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 3000 * len(SPLITS)
    assert all(split_of(seed) == split for split in SPLITS for seed in list(seeds[split])[:50])
    assert max(map(max, seeds.values())) < 2**60


def pairs(episode):
    hue, shape = episode["truth/hue"], episode["truth/shape"]
    return {(int(h), int(s)) for h, s in zip(hue.flat, shape.flat, strict=True) if h >= 0}


@pytest.mark.parametrize("world", ["twins:motion", "twins:full"])
def test_shifted_sets_shift_one_thing(world):
    def groups(split):
        return [make_group(world, i, split, 40, 32, sound=False, twins=8) for i in range(5)]

    usual = groups("train")
    counts = [int(g[0]["truth/present"][0].sum()) for g in usual]
    seen = set().union(*(pairs(e) for g in usual for e in g))
    assert not any(held_out_pair(*p) for p in seen)
    pushes = [
        np.hypot(*e["intervention/params"][:2])
        for g in usual
        for e in g
        if e["intervention/kind"] == "push"
    ]
    assert min(int(g[0]["truth/present"][0].sum()) for g in groups("test_more_objects")) > max(
        counts
    )
    most = get_world(world).occluder_width[1]
    for g in groups("test_long_occlusion"):
        ((x0, _, x1, _),) = g[0]["truth/occluders"]
        assert x1 - x0 >= most + 6
    new = set().union(*(pairs(e) for g in groups("test_new_pairs") for e in g))
    assert all(held_out_pair(*p) for p in new)
    for g in groups("test_strong_push"):
        for e in g[1:]:
            assert e["intervention/kind"] == "push"
            assert np.hypot(*e["intervention/params"][:2]) > max(pushes)


def test_motion_moves():
    """2-3 objects, one bar that hides them, still light and camera, at least 1 px a frame."""
    hidden = 0
    for seed in range(12):
        e = make_episode("motion", seed, resolution=32, sound=False)
        present = e["truth/present"]
        assert present[0].sum() in (2, 3) and len(e["truth/occluders"]) == 1
        speed = np.linalg.norm(e["truth/velocity"], axis=-1)[present]
        assert np.median(speed) >= 1.0
        assert np.all(e["light"] == [1, 0, 0]) and not e["camera"].any() and not e["actions"].any()
        assert not e["truth/hand"].any() and not e["truth/angle"].any()
        hidden += np.any((e["truth/visible_fraction"] == 0) & present)
    assert hidden >= 6


def test_full_stays_lively_and_uses_everything():
    speeds, kinds = [], set()
    for seed in range(8):
        e = make_episode("full", seed, length=320, resolution=32)
        present = e["truth/present"]
        late = np.linalg.norm(e["truth/velocity"][256:], axis=-1)[present[256:]]
        speeds.append(np.median(late))
        kinds |= {name for name in ("actions", "camera", "audio") if np.ptp(e[name]) > 0.05}
        kinds |= {"light"} if np.ptp(e["light"], axis=0).max() > 0.01 else set()
        kinds |= {"gravity"} if e["truth/gravity"].any() else set()
        kinds |= {"hand"} if e["truth/contact"][:, :, 9].any() else set()
        assert e["frames"].max() < 255
    assert np.median(speeds) > 0.4
    assert kinds == {"actions", "camera", "audio", "light", "gravity", "hand"}


def test_mass_says_nothing_about_looks():
    scenes = [record_scene(get_world("full"), scene_seed("full", "train", i), 2).scene
              for i in range(60)]  # fmt: skip
    mass = np.concatenate([s.mass[s.present] for s in scenes])
    radius = np.concatenate([s.radius[s.present] for s in scenes])
    hue = np.concatenate([s.hue[s.present] for s in scenes])
    assert 0.5 <= mass.min() < 0.7 and 1.6 < mass.max() <= 2
    assert abs(np.corrcoef(mass, radius)[0, 1]) < 0.25 and abs(np.corrcoef(mass, hue)[0, 1]) < 0.25


def test_a_tone_has_the_pitch_of_its_mass():
    for mass in (0.5, 1.0, 2.0):
        spectrum = np.abs(np.fft.rfft(tone(mass, 1.0), 1 << 15))
        pitch = spectrum.argmax() * SAMPLE_RATE / (1 << 15)
        assert pitch == pytest.approx(440 / mass, rel=0.02)
    assert np.abs(tone(1.0, 2.0)).max() > np.abs(tone(1.0, 0.5)).max() > 0


def test_sound_begins_with_the_touch():
    onsets = [[] for _ in range(10)]
    onsets[3] = [Contact(4, 0, 8, "left", 1.0)]
    track = sound_track(onsets, np.ones(8)).ravel()
    start = 3 * SAMPLES + SAMPLES // 2
    assert not track[: start + 1].any() and track[start + 1 : start + 20].all()
    assert not sound_track([[] for _ in range(3)], np.ones(8)).any()
    onsets[3] *= 20
    loud = sound_track(onsets, np.ones(8))
    assert np.abs(loud).max() == 1.0 and loud.dtype == np.float32


def test_words():
    assert caption([0], [0], 0, False, np.zeros(2)) == "a red circle"
    assert caption([1, 5, -1], [2, 1, -1], 2, True, np.array([0, 0.1])) == (
        "an orange triangle and an azure square, with two bars in front; a hand pushes; "
        "gravity pulls down"
    )
    assert [direction_word(np.array(v)) for v in ((1, 0.5), (-1, 0.5), (0, 2), (0, -2))] == [
        "right", "left", "down", "up"]  # fmt: skip
    assert place_words(np.array([60, 4])) == "at the top right"
    assert place_words(np.array([32, 32])) == "in the middle"
    assert len(set(HUES)) == 9 and len(SHAPES) == 3


def test_events_tell_what_happened():
    told = 0
    for seed in range(6):
        e = make_episode("motion", seed, resolution=32)
        for frame, text, slot in zip(
            e["events/frame"], e["events/text"], e["events/target"], strict=True
        ):
            assert thing(e["truth/hue"][frame, slot], e["truth/shape"][frame, slot]) in text
            contact, seen = e["truth/contact"][frame, slot], e["truth/visible_fraction"][:, slot]
            if "wall" in text:
                assert contact[8] > 0 and np.abs(e["audio"][frame : frame + 2]).max() > 0.01
            elif "collide" in text:
                assert contact[:8].max() > 0
            elif "behind the bar" in text and "goes" in text:
                assert seen[frame] < 0.02 <= seen[frame - 1]
            told += 1
    assert told > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"world": "twins:motoin", "seed": 0}, "no world 'twins:motoin'; choose one of"),
        ({"world": "full", "seed": 0, "split": "tset"}, "no split 'tset'; choose one of train"),
        ({"world": "full", "seed": 0, "length": 1}, "1 frames is too short"),
        ({"world": "full", "seed": 0, "length": 20, "branch": 1}, "too short for twins"),
        ({"world": "full", "seed": 0, "resolution": 4}, "4 px is outside"),
    ],
)
def test_impossible_requests_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        make_episode(**arguments)


def test_every_split_of_both_worlds_passes_the_specification():
    for world in ("twins:motion", "twins:full"):
        for split in SPLITS:
            for twin in make_group(world, 0, split, 36, 32, twins=2):
                validate(twin, f"{world} {split}")
    assert world_of_split(get_world("motion"), "test") == get_world("motion")


@pytest.mark.slow
@pytest.mark.parametrize("world", ["twins:motion", "twins:full"])
def test_at_least_1500_frames_a_second_on_one_core(world):
    make_episode(world, 0)
    started = time.process_time()
    for seed in range(20):
        make_episode(world, seed)
    assert 20 * 64 / (time.process_time() - started) >= 1500
