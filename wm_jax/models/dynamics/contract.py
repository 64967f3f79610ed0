"""What a dynamics backbone is. Each lives in one file beside this one and is found by its name.

A backbone is a Flax module over a pytree *carry*. It never sees pixels: the encoder hands it an
embedding a frame, the decoder reads its tokens. One recurrence serves training, observation and
imagination: `step` is the definition, and `scan` computes the same thing for a whole window.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax.errors import UserError


class Output(NamedTuple):
    """What one step (or, with a time axis after the batch, a scan) tells the rest of the model.

    tokens:  (b, n, d) after the frame was seen, where one was: what the decoder reads
    prior:   (b, n, d) the same before the frame was seen; where none was seen, equal to tokens
    terms:   per-(b,) losses in nats that belong to the backbone (KL terms); {} if it has none
    """

    tokens: Float[Array, "b *t n d"]
    prior: Float[Array, "b *t n d"]
    terms: dict[str, Float[Array, b * t]]


class Dynamics(Protocol):
    """A Linen module with these methods; hyperparameters are its fields.

    Four methods are optional: ``address(carry)`` (b, n, 2) where tokens move; ``check()``, which
    raises a `UserError` that names fields which do not go together; ``fresh(batch_size)``, what
    `scan` takes in place of `initial` where that is cheaper, to the same result; and
    ``teach(…, painted)``, with the arguments of `scan`, the `Output` that the loss compares if it
    is not `scan`'s: ``tokens`` have seen all frames and are of the streams ``painted`` (a slice).
    ``cells`` (rows, columns) of the encoder's grid is a field of every backbone, and
    ``posterior_reads_carry`` says whether the correction by a frame may read the recurrent state.
    """

    cells: tuple[int, int]
    posterior_reads_carry: bool

    def initial(self, batch_size: int) -> PyTree:
        """The carry before the first frame. Constant: no parameters."""
        ...

    def step(
        self,
        carry: PyTree,
        embedding: Float[Array, "b n e"] | None,
        observed: Bool[Array, " b"] | None,
        told: Float[Array, "b k"],
        key: jax.Array | None,
    ) -> tuple[PyTree, Output]:
        """One frame on. ``embedding`` None means that nobody sees a frame (imagination);
        ``observed`` False does the same for single streams; None means all see it."""
        ...

    def scan(
        self,
        carry: PyTree,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[PyTree, Output]:
        """`step` over a window, starting anew wherever ``is_first``. In parallel over time where
        the mathematics allows; equal to repeated `step` always. ``keys`` is (t, …) or None."""
        ...

    def tokens(self, carry: PyTree) -> Float[Array, "b n d"]:
        """The tokens that belong to a carry (those of the step that made it)."""
        ...


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a ``value`` that is none of the ``choices``."""
    if value not in choices:
        listing = ", ".join(choices)
        raise UserError(f"model.dynamics.{field}='{value}' is not one of {listing}.")


def check_latent(kind: str, classes: int, kinds: tuple[str, ...]) -> None:
    """Refuses a latent that is not among ``kinds``, or has too few classes."""
    check_choice("latent", kind, kinds)
    least = {"categorical": 2, "fsq": 3}.get(kind, 1)  # the bound of 'fsq' is flat at 0 with two
    if classes < least:
        raise UserError(
            f"model.dynamics.classes={classes} is too few for model.dynamics.latent='{kind}'; set "
            f"at least {least}."
        )


def reset(carry: PyTree, initial: PyTree, is_first: Bool[Array, " b"]) -> PyTree:
    """The carry with fresh starts where ``is_first``."""

    def choose(fresh, old):
        flag = is_first.reshape(is_first.shape + (1,) * (old.ndim - 1))
        return jnp.where(flag, fresh, old)

    return jax.tree.map(choose, initial, carry)
