"""The frozen rules of a suite. Two results compare only where their digests agree."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wm_jax.evaluation import statistics, tracker


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How open-loop prediction is scored. Written whole into every result.

    Lengths with ``at_64`` are px at a resolution of 64 and scale with it.
    """

    suite: str = "pixel"
    world: str = ""
    split: str = "test"
    split_hash: str = ""  # of the episodes that were used, in order
    resolution: int = 64
    episodes: int = 64  # at most
    starts: tuple[int, ...] = (0, 160, 320, 480)  # frames of an episode at which a clip begins
    context: int = 16  # frames shown
    horizon: int = 60  # frames predicted
    samples: int = 8  # of a model that is stochastic; 1 of one that is not
    seed: int = 0  # of the samples and of the bootstrap
    visible_share: float = 0.5  # an object counts where the truth shows at least this much of it
    cap_at_64: float = 16.0  # most that an object's error can be; the price of a miss
    match_at_64: float = 8.0  # an object is matched within this
    calibration_at_64: float = 0.5  # the instrument's mean error must be below
    calibration_at_32: float = 0.3  # px at a resolution of 32
    calibration_identity: float = 0.995  # and its share of objects named right above
    instrument: str = tracker.VERSION
    resamples: int = statistics.RESAMPLES
    confidence: float = statistics.CONFIDENCE
    reduction: str = (
        "Frames are rounded to 8 bits. PSNR, SSIM: mean over frames. Position error: objects are "
        "paired by hue; sum of capped errors over visible objects plus the cap for every invention "
        "(a hue that no object of the scene has, or one more blob of a hue), divided by the number "
        "of both; a visible object that is not found costs the cap; objects less visible than "
        "visible_share are neither asked for nor held against. Constant velocity and "
        "see-then-simulate state positions, all others are read off frames by the tracker. With "
        "samples, the mean over samples of each score. Means are ratios of sums over clips; "
        "intervals by bootstrap over episodes, paired across models."
    )

    @property
    def length(self) -> int:
        """Frames of a clip."""
        return self.context + self.horizon

    @property
    def unit(self) -> float:
        """Px in a world unit."""
        return self.resolution / 64

    @property
    def cap(self) -> float:
        """px"""
        return self.cap_at_64 * self.unit

    @property
    def match(self) -> float:
        """px"""
        return self.match_at_64 * self.unit

    @property
    def calibration(self) -> float:
        """px: most that the instrument may err on true frames."""
        if self.resolution <= 32:
            return self.calibration_at_32 * self.resolution / 32
        return self.calibration_at_64 * self.unit

    def digest(self) -> str:
        """Eight bytes that stand for all of it."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "digest": self.digest()}


@dataclasses.dataclass(frozen=True)
class TemporalProtocol(Protocol):
    """How permanence, flicker and coherence are scored."""

    suite: str = "temporal"
    long_episodes: int = 64  # at most, of the long clips
    long_starts: tuple[int, ...] = (0,)
    long_horizon: int = 480  # twenty windows of 24 frames
    longest_hidden: int = 0  # frames: longest that training hides anything
    bins: tuple[tuple[int, int], ...] = ((1, 5), (6, 10), (11, 20), (21, 40))  # frames hidden
    hidden_share: float = 0.05  # less of an object than this cannot be seen
    soon: int = 3  # frames from its reappearance on in which an object must be found
    lasting: int = 3  # frames: an instrument that errs once is no violation
    whole_share: float = 0.9  # of the most that is ever seen of it: an object in full sight
    pace: int = 32  # frames over which a mean speed is taken
    paces: tuple[float, float] = (0.25, 4.0)  # of the truth's speed
    pace_lag: int = 4  # frames a step is measured over: the instrument's jitter is no speed
    pace_steps: int = 16  # fewer than these in a window are no speed
    slowest_at_64: float = 0.1  # px a frame: all that is slower counts as this slow
    reduction: str = (
        "Permanence: events are chosen on the truth (an object seen by visible_share, then less "
        "than hidden_share of it, then seen again in the horizon), by the number of frames hidden, "
        "apart for objects hidden in the last frame shown (context), hidden later (rollout) and "
        "touched while hidden (struck). Success: its hue within its radius of its place, in one of "
        "the first `soon` frames. Error when it reappears; a miss costs the cap. Identity: of those"
        " with something within the match distance of its place, the share where that has their "
        "hue. Flicker: energy of frame differences above the truth's, where no true object or hand "
        "is within a pixel in this frame or the last, light and camera still. Coherence: "
        "Kaplan-Meier on the first violation: lost (a hue unseen for more than longest_hidden "
        "frames), doubled (more than there are, for `lasting` frames), swapped (hues trade places, "
        "or shapes change), astray (mean speed over `pace` frames outside `paces` times the "
        "truth's). Everything is read off frames by the tracker. Intervals by bootstrap over "
        "episodes."
    )

    @property
    def long_length(self) -> int:
        return self.context + self.long_horizon

    @property
    def slowest(self) -> float:
        """px a frame"""
        return self.slowest_at_64 * self.unit


@dataclasses.dataclass(frozen=True)
class CausalProtocol(Protocol):
    """How edits are scored against re-simulated twins.

    An edit is made after the last frame of the context; the horizon's first frame is the first to
    show it.
    """

    suite: str = "causal"
    starts: tuple[int, ...] = (0, 320)
    horizon: int = 40
    kinds: tuple[str, ...] = ()  # interventions; filled with those that the world knows
    doses: tuple[float, ...] = (0.5, 2.0)  # of a push, beside its own strength
    sequence: tuple[tuple[int, str], ...] = ((0, "push"), (4, "recolour"), (8, "remove"))
    undone_after: int = 8  # frames after which a recolouring is taken back
    oracle_frames: int = 4  # true frames after the edit that the oracle sees; none is scored
    differs_at_64: float = 2.0  # px between twin and factual future, from which on it counts
    differs_ssim: float = 0.02  # the same in 1 - SSIM: light, camera, gravity
    predictable_at_64: float = 2.0  # px: predictable until perturbed futures are further off
    perturbed: int = 2  # perturbed copies of the factual scene, and of the twin's
    run_frames: int = 8  # frames from which a velocity is read: its error follows from a place's
    untouched_at_64: float = 0.05  # px: an object is untouched where the twin's is within
    onset_at_64: float = 1.0  # px: least displacement that counts as a divergence
    onset_within: int = 2  # frames
    unseen_share: float = 0.02  # less of an object than this cannot be seen
    heard_frames: int = 20  # after a blow out of sight, of which objects are asked for
    reduction: str = (
        "Twin: the true scene at the end of the context, changed by one intervention, simulated "
        "on; the factual future: the same without. Edit success at a step: 1 - d(edited rollout, "
        "twin) / d(unedited rollout, twin), each d summed over clips; `_common`: over d(factual "
        "truth, twin), which no model is in. d: sum over objects that the twin shows of capped "
        "errors, plus the cap for every invention; of light: errors of its gain and gradient; "
        "`_ssim`: 1 - SSIM, at the steps that have a row. Only clips and steps where twin and "
        "factual future differ by differs (of what is removed, added, recoloured: all), after "
        "the oracle's frames, and up to the step where simulations from perturbed scenes (places "
        "by the instrument's own error, velocities by what follows from it over run_frames) are "
        "further than predictable from the twin. Shuffled: the same kind drawn anew; oracle: the "
        "rollout after it saw oracle_frames of the twin; sentence: the words of the data set in "
        "place of the edit; numbers: words that say all its numbers too, where those do not. "
        "Prompt adherence: whether what the sentence says is read off the rollout (rules: "
        "`adherence`), of clips whose true twin shows it. Locality: displacement between edited "
        "and unedited rollout of objects that the twin leaves untouched up to the step. Onset: "
        "first frame at which an object that was not edited is displaced by onset (or by what "
        "the 99th percentile between two unedited rollouts is, if that is more), against the "
        "twin's. Physics, of the unedited rollout: how deep an object was in a wall, at its "
        "worst; kinetic energy over the truth's of the same objects, where only contacts change "
        "a speed; speed after over before a bounce off a wall, against the truth; momentum of "
        "two after over before they meet. Action sensitivity: errors when told the actions of "
        "another clip over errors when told the true ones, of objects that those would move by "
        "differs. Use of sound: of objects that were touched between two frames in neither of "
        "which they could be seen, as soon as they can be, for heard_frames: the error, and by how "
        "much it is smaller than without sound in the horizon; shuffled: with another episode's. "
        "Step 0 of a row: all steps together."
    )

    @property
    def differs(self) -> float:
        """px"""
        return self.differs_at_64 * self.unit

    @property
    def predictable(self) -> float:
        """px"""
        return self.predictable_at_64 * self.unit

    @property
    def untouched(self) -> float:
        """px"""
        return self.untouched_at_64 * self.unit

    @property
    def onset(self) -> float:
        """px"""
        return self.onset_at_64 * self.unit


@dataclasses.dataclass(frozen=True)
class ProbeProtocol(Protocol):
    """How read-outs of frozen states are trained and scored.

    A state is the posterior after some frames of the context, or the prior some steps after its
    end. Step 0 of a row stands for posteriors.
    """

    suite: str = "probes"
    horizon: int = 20
    train_episodes: int = 256
    train_starts: tuple[int, ...] = (0, 14, 28)
    looks: tuple[int, ...] = (
        8,
        10,
        12,
        14,
        16,
    )  # frames seen before a posterior; the last: the context
    ahead: tuple[int, ...] = (5, 10, 15, 20)  # steps after the context, of priors
    probes: tuple[str, ...] = ("linear", "mlp", "attentive")
    width: int = 256  # that every state is projected to; and every token, if it has more numbers
    hidden: int = 128  # units of the mlp
    updates: int = 800
    batch: int = 256
    learning_rates: tuple[float, ...] = (2e-3, 1e-2)  # of which each number takes its best
    hidden_share: float = 0.05  # less of an object than this cannot be seen
    recent: int = 3  # frames: a contact is recent for so long
    reduction: str = (
        "States of training episodes are standardised, projected by one fixed random matrix and "
        "read out, for each hue: position (px), velocity (px a frame), log of the mass, whether a "
        "contact is recent, whether an object that cannot be seen is there. One read-out for "
        "posteriors, one for priors of all steps ahead. Value: 1 - sum of squared errors / sum of "
        "squared distances from the training mean, on test episodes, of objects that were seen in "
        "the context: position of those seen by visible_share, hidden position of those less than "
        "hidden_share of which can be seen, velocity and contact of all, mass of those that have "
        "met something since the clip began; hidden presence: of hues of which nothing can be "
        "seen. Errors in px are capped. Controls: the same network with random weights; only the "
        "last frame of the context shown; labels of other examples. Selectivity: value less that "
        "with the labels of other examples. Of a stochastic model one sample."
    )

    @property
    def moments(self) -> tuple[int, ...]:
        """Frames of a clip, from 0, after which a state is read."""
        return (*(look - 1 for look in self.looks), *(self.context - 1 + k for k in self.ahead))


@dataclasses.dataclass(frozen=True)
class PlanningProtocol(Protocol):
    """How plans with the hand are made and scored. Lengths are 64ths of the arena."""

    suite: str = "planning"
    episodes: int = 48
    horizon: int = 24  # frames until which the goal shall be reached
    look: int = 8  # frames that a plan is followed before the model looks and plans anew
    doubts: int = 4  # scenes in which it judges each plan, see `constraints.DOUBT`
    hidden: int = 32  # sequences of actions of which one can reach the goal
    far: tuple[float, float] = (6.0, 24.0)  # of the goal from where the object goes by itself
    margin_at_64: float = 4.0  # px: the goal is so far inside the frame
    near: float = 4.0  # within this the goal is reached
    random: int = 16  # sequences of random actions a scene
    reduction: str = (
        "A scene is shown up to the end of the context. The goal: where an object ends after one "
        "of some hidden sequences of actions, drawn as the candidates of the search are; the first "
        "of them by which an object ends `far` from where it goes by itself. The model plans by "
        "the cross-entropy method, does `look` frames of it in the true simulator, watches them "
        "and plans the rest anew. Truth: the same search, candidates, rounds and looks with a copy "
        "of the simulator, which is told everything; typical: the same, told the middle of what "
        "the world draws for each object's mass, friction and restitution. Distance: of the object "
        "from the goal at the end; of an object that the model does not have, that where the hand "
        "rests. Gain: the share of the way from `rest` to `truth`, a ratio of sums. Intervals by "
        "bootstrap over scenes."
    )

    @property
    def margin(self) -> float:
        """px"""
        return self.margin_at_64 * self.unit


def split_hash(frames: UInt8[np.ndarray, "r t h w 3"]) -> str:
    """A digest of the first frame of every clip, in order: which scenes were judged."""
    return hashlib.sha256(np.ascontiguousarray(frames[:, 0]).tobytes()).hexdigest()[:16]
