"""The composition: encoder, conditioning, dynamics and decoder as one model.

`Net` is the Linen module that owns the parameters. `WorldModel` is what the rest of the code sees:
pure functions of ``params`` (see `wm_jax.shapes.WorldModel`), a step, a decode and a loss.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from wm_jax import shapes
from wm_jax.edit import KINDS, TOLD, Edits, Objects, as_vector, says
from wm_jax.errors import UserError
from wm_jax.models.conditioning import (
    Apart,
    Conditioning,
    dropped,
    one_of_said,
    unsaid,
)
from wm_jax.models.context_noise import corrupt
from wm_jax.models.heads import Heads
from wm_jax.models.loss import LossWeights, targets_of, window_terms
from wm_jax.models.overshooting import Overshot, overshoot
from wm_jax.nn.compute import Compute, rematerialised, using
from wm_jax.nn.grid import addresses


class Window(NamedTuple):
    """What the loss reads of a window of frames. Streams are the ``painted`` ones but in ``terms``
    and ``carry``, frames those that `Net.window` was asked for.

    posterior, prior: decoded after and before they were seen (prior None: of none)
    sharp:  a sharp decoder's own error of the latter, or of the former; None without one
    heads:  the heads' terms, of all frames
    terms:  the backbone's own, of all frames
    carry:  after the last frame; None of a backbone that has `teach`
    """

    posterior: Array
    prior: Array | None
    sharp: Array | None
    heads: dict[str, Array]
    terms: dict[str, Array]
    carry: PyTree


class Handover(NamedTuple):
    """What a window leaves to the next one of the same streams.

    carry:  the backbone's
    said:   (b, …) conditions of the last frame, of which actions and text act on the next step
    """

    carry: PyTree
    said: shapes.Conditions


class Net(nn.Module):
    """Parameters of a world model; every method works on leading axes (b,) or (b, t)."""

    encoder: nn.Module
    dynamics: nn.Module
    decoder: nn.Module
    modalities: tuple[str, ...] = ()
    told_width: int = 32
    words: bool = True
    heads: Heads | None = None

    def setup(self) -> None:
        kind = Apart if getattr(self.dynamics, "hears_plainly", False) else Conditioning
        self.conditioning = kind(self.modalities, self.told_width, self.words)

    def step(self, carry, conditions, frame, key):
        embedding = None if frame is None else self.encoder(frame)
        return self.dynamics.step(carry, embedding, None, self.conditioning(conditions), key)[0]

    def decode(self, tokens, key=None):
        return self.decoder(tokens) if key is None else self.decoder(tokens, key=key)

    def plain(self, tokens, predicted: bool = False):
        """Of a decoder with two kinds of frames, the plain ones; else its only ones."""
        decode = getattr(self.decoder, "plain_frames", self.decoder)
        return decode(tokens, predicted)

    def masks(self, tokens):
        plain = getattr(self.decoder, "plain", self.decoder)
        return plain.masks(tokens)

    def tokens(self, carry):
        return self.dynamics.tokens(carry)

    def edit(self, carry, edits):
        return self.dynamics.edit(carry, edits)

    def nudged(self, carry, place, speed):
        return self.dynamics.nudged(carry, place, speed)

    def objects(self, carry):
        return self.dynamics.objects(carry)

    def read(self, tokens):
        return {} if self.heads is None else self.heads(tokens)

    def window(
        self,
        frames,
        observed,
        conditions,
        is_first,
        keys,
        seen=slice(None),
        foreseen=slice(None),
        painted=slice(None),
        targets=None,
        start=None,
        noise=None,
        followed=None,
    ) -> Window:
        """``seen`` and ``foreseen`` (None: none) are frames, each a slice or indices, ``painted``
        streams (a slice); ``targets`` are the heads'; ``start`` is the carry before the first frame
        (None: the initial one), ``noise`` a key and the highest level of `context_noise`;
        ``followed`` is from `remember`."""
        encode = rematerialised(lambda net, frames: net.encoder(frames))
        decode = rematerialised(lambda net, tokens: net.plain(tokens))
        predict = rematerialised(lambda net, tokens: net.plain(tokens, predicted=True))
        embeddings, told = encode(self, frames), self.conditioning(conditions)
        embeddings = embeddings if noise is None else corrupt(embeddings, *noise)
        if start is None:
            start = getattr(self.dynamics, "fresh", self.dynamics.initial)(frames.shape[0])
        inputs = (start, embeddings, observed, told, is_first, keys)
        carry = None
        if hasattr(self.dynamics, "teach"):
            kept = {} if followed is None else {"followed": followed}
            out = self.dynamics.teach(*inputs, painted=painted, **kept)
        else:
            carry, out = self.dynamics.scan(*inputs)
            out = out._replace(tokens=out.tokens[painted], prior=out.prior[painted])
        posterior = decode(self, out.tokens[:, seen])
        prior = None if foreseen is None else predict(self, out.prior[:, foreseen])
        sharp = None
        if hasattr(self.decoder, "sharp_error"):
            tokens, at = (out.tokens, seen) if foreseen is None else (out.prior, foreseen)
            key = jax.random.fold_in(keys[0], 1)
            sharp = self.decoder.sharp_error(tokens[:, at], frames[painted][:, at], key)
        heads = {}
        if self.heads is not None:
            targets = jax.tree.map(lambda x: x[painted], targets)
            heads = self.heads.losses(out.tokens, targets)
        return Window(posterior, prior, sharp, heads, dict(out.terms), carry)

    def remember(self, frames, conditions, is_first):
        embeddings, told = self.encoder(frames), self.conditioning(conditions)
        start = self.dynamics.initial(frames.shape[0])
        return self.dynamics.remember(start, embeddings, told, is_first)

    def paraphrased(self, pairs: shapes.Paraphrases) -> Float[Array, "b t"]:
        """Squared distance of what a step is told by a sentence from what it is told by the vector
        that says the same, over the spread of the latter (distillation of one into the other:
        Hinton et al. 2015, arXiv 1503.02531)."""
        there = jnp.ones(pairs.text.shape[:-1], bool)
        nothing = shapes.no_conditions(*there.shape)
        ways = {name: shapes.Signal(value, there) for name, value in pairs._asdict().items()}
        words, vector = (self.conditioning(nothing._replace(**{k: x})) for k, x in ways.items())
        vector = jax.lax.stop_gradient(vector)
        spread = jnp.square(vector - vector.mean((0, 1))).sum(-1).mean()
        return jnp.square(words - vector).sum(-1) / (spread + 1e-6)

    def overshoot(
        self, frames, conditions, is_first, key, steps, decoded
    ) -> tuple[Overshot, Array | None]:
        """See `overshooting`; and, if ``decoded``, the imagined frames (b, k, h, w, c)."""
        embeddings, told = self.encoder(frames), self.conditioning(conditions)
        shot = overshoot(self.dynamics, embeddings, told, is_first, key, steps)
        return shot, self.plain(shot.tokens, predicted=True) if decoded else None


@dataclasses.dataclass(frozen=True)
class WorldModel:
    """Pure functions over a `Net`.

    ``guidance`` is how far an imagined step goes from what would be without what is said of it, a
    change or words, towards what is with it, and beyond (classifier-free guidance, Ho and Salimans
    2022, arXiv 2207.12598, equation 6, in the state's own coordinates): 1 is to it, and costs
    nothing; anything else is two steps in place of one.
    """

    net: Net
    weights: LossWeights
    resolution: int
    compute: Compute = Compute()
    guidance: float = 1.0

    def init(self, key: jax.Array, batch: shapes.Batch) -> PyTree:
        one = jax.tree.map(lambda x: x[:1, :2], batch)
        frames = one.frames.astype(jnp.float32) / 255
        told = shapes.conditions_for_steps(one.conditions)
        arguments = (frames, None, told, one.is_first, jax.random.split(key, 2))
        targets = targets_of(self.net, one)
        return self.net.init(key, *arguments, targets=targets, method="window")["params"]

    def _apply(self, params, method, *arguments, **named):
        with using(self.compute):
            return self.net.apply({"params": params}, *arguments, method=method, **named)

    def initial(self, params: PyTree, batch_size: int) -> shapes.LatentState:
        carry = self.net.dynamics.initial(batch_size)
        return self._state(params, carry, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None) -> shapes.LatentState:
        """One frame on; what is ``pending`` in the state is said of this step, unless something
        else is."""
        pending = state.pending
        if pending is not None:
            conditions = shapes.with_pending(conditions, pending)
            pending = shapes.no_conditions(*pending.text.mask.shape)
        carry = self._apply(params, "step", state.carry, conditions, frame, key)
        if frame is None and self.guidance != 1 and {*shapes.SAID} & {*self.net.modalities}:
            without = self._apply(params, "step", state.carry, unsaid(conditions), None, key)
            carry = jax.tree.map(self._guided, without, carry)
        return self._state(params, carry, state.step + 1)._replace(pending=pending)

    def _guided(self, without: Array, said: Array) -> Array:
        if not jnp.issubdtype(said.dtype, jnp.floating):
            return said
        return without + self.guidance * (said - without)

    @property
    def small_operations(self) -> bool:
        """Whether an update is mostly small operations: see `train_step.compiler_options`."""
        return getattr(self.net.dynamics, "small_operations", False)

    @property
    def edits(self) -> tuple[str, ...]:
        """Kinds of edit that this model takes: see `wm_jax.edit`."""
        told = [kind for kind, modality in TOLD.items() if modality in self.net.modalities]
        if "intervention" in self.net.modalities:
            return (*(kind for kind in KINDS if kind not in TOLD), *told)
        return (*getattr(self.net.dynamics, "edits", ()), *told)

    @property
    def routes(self) -> tuple[str, ...]:
        """How it takes them, the best first: 'state' writes into the state of a backbone that has
        objects, and no training ever saw one; 'trained' says them of the next step, as training
        did; 'text' says a sentence of it."""
        written = ("state",) if hasattr(self.net.dynamics, "edit") else ()
        named = {"intervention": "trained", "text": "text"}
        return (*written, *(named[m] for m in named if m in self.net.modalities))

    def edit(
        self,
        params: PyTree,
        state: shapes.LatentState,
        edits: Edits,
        route: str | None = None,
    ) -> shapes.LatentState:
        """The state with a change in it, or with one that waits for its next step (``route``
        'state' or 'trained'; None: the first that it takes); no time passes. Raises `UserError` for
        a backbone whose state nobody knows how to edit and which was not trained to be told."""
        if (route or (*self.routes, "")[0]) == "trained":
            said = shapes.Signal(as_vector(edits, jnp), jnp.asarray(says(edits, jnp)))
            return self._pending(state, intervention=said)
        if not hasattr(self.net.dynamics, "edit"):
            raise UserError(
                f"the state of {type(self.net.dynamics).__name__} cannot be edited; choose "
                "model.name=grid_slots, or train with 'intervention' in model.modalities and in "
                "data.conditions."
            )
        carry = self._apply(params, "edit", state.carry, edits)
        return self._state(params, carry, state.step)._replace(pending=state.pending)

    def say(self, state: shapes.LatentState, text: Float[Array, "b 32"]) -> shapes.LatentState:
        """The state with a sentence that waits for its next step (all zeros: none)."""
        return self._pending(state, text=shapes.Signal(text, (text != 0).any(-1)))

    def _pending(self, state: shapes.LatentState, **said: shapes.Signal) -> shapes.LatentState:
        before = state.pending
        if before is None:
            before = shapes.no_conditions(len(state.step))
        return state._replace(pending=shapes.with_pending(before._replace(**said), before))

    def nudged(
        self,
        params: PyTree,
        state: shapes.LatentState,
        place: Float[Array, "b k 2"],
        speed: Float[Array, "b k 2"],
    ) -> shapes.LatentState:
        """The state with each object so far from where it was believed to be (shares of the frame),
        and so much faster (shares a step), as one may be who looks less well. Of a backbone with
        `objects`."""
        carry = self._apply(params, "nudged", state.carry, place, speed)
        return self._state(params, carry, state.step)._replace(pending=state.pending)

    def objects(self, params: PyTree, state: shapes.LatentState) -> Objects | None:
        """What the state says of the objects in it; None of a backbone whose state has none."""
        if not hasattr(self.net.dynamics, "objects"):
            return None
        return self._apply(params, "objects", state.carry)

    def decode(
        self, params: PyTree, state: shapes.LatentState, key: jax.Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Frames in [0, 1]. A ``key`` is only for a decoder that draws (see `FlowDecoder`)."""
        return jnp.clip(self._apply(params, "decode", state.tokens, key), 0.0, 1.0)

    def plain(self, params: PyTree, state: shapes.LatentState) -> Float[Array, "b h w c"]:
        """What the plain decoder makes of the state, to report beside a sharp one's frames."""
        return jnp.clip(self._apply(params, "plain", state.tokens), 0.0, 1.0)

    def remember(self, params: PyTree, batch: shapes.Batch) -> dict[str, Array]:
        """What the dynamics make of a window's frames, each (b, t, …), where that is all that
        `loss` needs of them: it is ``batch.followed`` from then on. See `wm_jax.remembered`."""
        told = shapes.conditions_for_steps(batch.conditions, batch.is_first)
        frames = batch.frames.astype(jnp.float32) / 255
        return self._apply(params, "remember", frames, told, batch.is_first)

    def masks(self, params: PyTree, state: shapes.LatentState) -> Float[Array, "b m h w"]:
        """Each slot's share of each pixel, of a decoder that paints by slots; they sum to one."""
        return self._apply(params, "masks", state.tokens)

    def read(self, params: PyTree, state: shapes.LatentState) -> dict[str, Float[Array, "b *k"]]:
        """What the heads read off a state, by the names in ``model.heads``; {} without any. See
        `wm_jax.models.heads` for the units."""
        return self._apply(params, "read", state.tokens)

    def _state(self, params, carry, step) -> shapes.LatentState:
        tokens = self._apply(params, "tokens", carry)
        dynamics = self.net.dynamics
        if hasattr(dynamics, "address"):
            address = dynamics.address(carry)
        else:
            cells = dynamics.cells
            address = addresses(cells) if tokens.shape[1] == cells[0] * cells[1] else None
        return shapes.LatentState(carry, tokens, address, step)

    def loss(
        self, params: PyTree, batch: shapes.Batch, key: jax.Array, step: jax.Array | None = None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, "b t"]]]:
        """Mean over real frames of the weighted terms, and those that weigh anything, each exactly
        (b, t).

        Pixel terms are squared errors summed over a frame's pixels and channels.
        """
        total, (terms, _) = self.loss_from(params, batch, key, step)
        return total, terms

    def begin(self, batch_size: int) -> Handover:
        """What `loss_from` takes where no window came before. Raises `UserError` for a backbone
        whose loss ends in no carry."""
        if hasattr(self.net.dynamics, "teach"):
            raise UserError(
                f"train.carry_state: {type(self.net.dynamics).__name__} learns from whole windows "
                "and has no state to carry on; choose another model.name, or set it to false."
            )
        carry = self.net.dynamics.initial(batch_size)
        return Handover(carry, shapes.no_conditions(batch_size))

    def loss_from(
        self,
        params: PyTree,
        batch: shapes.Batch,
        key: jax.Array,
        step: jax.Array | None = None,
        before: Handover | None = None,
    ) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, "b t"]], Handover]]:
        """`loss` of windows that go on where others ended (``before``), and what they leave.

        As ``before`` is an argument no gradient reaches the windows before it.
        """
        said = batch.conditions
        if self.weights.told_in_words:
            said = one_of_said(said, self.weights.told_in_words, jax.random.fold_in(key, 2))
        if self.weights.told_dropout:
            drop_key = jax.random.fold_in(key, 1)
            drops = self.weights.told_dropout, drop_key, tuple(self.weights.told_dropout_of)
            said = dropped(said, *drops)
        told = shapes.conditions_for_steps(
            said, batch.is_first, None if before is None else before.said
        )
        start = None if before is None else before.carry
        apply = functools.partial(self._apply, params)
        terms, carry = window_terms(self.net, apply, self.weights, batch, told, key, start)
        weights = {name: getattr(self.weights, name) for name in terms}
        # What weighs nothing is not computed: nobody asks for it.
        terms = {name: term for name, term in terms.items() if weights[name]}
        total = sum(weights[name] * term for name, term in terms.items())
        mask = batch.mask.astype(jnp.float32)
        total = (total * mask).sum() / jnp.maximum(mask.sum(), 1)
        return total, (terms, Handover(carry, shapes.at_time(batch.conditions, -1)))
