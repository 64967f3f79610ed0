"""S5: a linear system with a diagonal complex state over time, per cell.

Smith, Warrington & Linderman 2022, "Simplified State Space Layers for Sequence Modeling", arXiv
2208.04933; as the dynamics of a world model: S4WM (Deng et al. 2023, arXiv 2307.02064) and R2I
(Samsami et al. 2024, arXiv 2403.04253). Numbers in brackets are equations of the first.

One layer sees the features u(τ) ∈ R^d of a cell as input to a system in continuous time (1)

  dx/dτ = A x + B u        y = C x + D u,        x ∈ C^P, with many inputs and outputs at once.

**Diagonal.** With A = V Λ V⁻¹, x̃ = V⁻¹ x, B̃ = V⁻¹ B and C̃ = C V (section 3)

  dx̃/dτ = Λ x̃ + B̃ u      y = C̃ x̃ + D u.

A is real, so its eigenvalues come in conjugate pairs, and so do the parts of x̃: one of each pair is
kept, and y = 2 Re(C̃ x̃) + D u. ``state`` counts both.

**Discrete.** u is held for one frame, which lasts Δ ∈ R^{P/2} of the system's own time, learned,
one a mode (zero-order hold):

  x̃_t = Λ̄ x̃_{t-1} + B̄ u_t      Λ̄ = exp(Λ Δ)      B̄ = Λ⁻¹ (Λ̄ − I) B̃           (2), diagonal

The answer at t to an impulse at 0 is thus 2 Re(C̃ Λ̄ᵗ B̄), exactly the continuous one to a pulse
of length Δ.

**Start.** A is block diagonal, its blocks the normal part of the HiPPO-LegS matrix (HiPPO-N):

  A_ij = −½ [i = j] − √((i+½)(j+½)) sign(i − j),

whose eigenvalues are −½ + iω. V is then unitary, which turns the entries of a Gaussian B into
complex Gaussians of the same variance, so B̃ and C̃ are drawn directly. Re Λ = −exp(·) stays
negative (Gu et al. 2022, arXiv 2206.11893); log Δ starts uniform, between half-lives of 1.4 and 69
frames.

**Output.** g = GELU(y), then W₁ g ⊙ σ(W₂ g), where the paper has g ⊙ σ(W g).

**Reset.** The recurrence is over pairs (Λ̄, B̄ u_t); a start makes the first one zero there, so
that x̃_t = B̄ u_t exactly (Lu et al. 2023, arXiv 2303.03982, who carry the flag in the scan).

All steps of a window run as one recurrence (`wm_jax.nn.linear_recurrence`): an associative scan of
depth log t, on a CPU a loop over vectors. Λ̄ is the same for all cells and never copied for each.
A carry holds ``state`` floats a cell and layer, real parts first.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from wm_jax.errors import UserError
from wm_jax.models.dynamics.parallel import Parallel
from wm_jax.nn.dense import Dense
from wm_jax.nn.linear_recurrence import linear_recurrence


class S5Layer(nn.Module):
    """See the module's docstring. ``state`` is P, of conjugate pairs, in ``blocks`` of HiPPO-N."""

    state: int = 64
    blocks: int = 8

    def initial(self, batch_size: int, cells: int, width: int) -> Float[Array, "b n p"]:
        return jnp.zeros((batch_size, cells, self.state))

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t n d"], state: Float[Array, "b n p"], is_first: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t n d"], Float[Array, "b n p"]]:
        """The addition, and the state after the last step."""
        width = x.shape[-1]
        u = nn.RMSNorm()(x)
        decay, gain = self._discrete()
        half = nn.initializers.variance_scaling(0.5, "fan_in", "normal")  # of |B̃|², each part
        driven = gain * _complex(Dense(self.state, use_bias=False, kernel_init=half, name="B")(u))
        keep = jnp.where(is_first[..., None, None], 0.0, decay)
        modes = linear_recurrence(keep, driven, _complex(state))
        # 2 Re(C̃ x̃) is one real product with the parts of x̃ side by side: [2 Re C̃, −2 Im C̃].
        read_out = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        y = Dense(width, use_bias=False, kernel_init=read_out, name="C")(_real(modes))
        y += self.param("D", nn.initializers.normal(1.0), (width,)) * u
        value, gate = jnp.split(Dense(2 * width)(nn.gelu(y)), 2, -1)
        return value * nn.sigmoid(gate), _real(modes[:, -1])

    def _discrete(self) -> tuple[Complex[Array, " m"], Complex[Array, " m"]]:
        """Λ̄ and Λ⁻¹ (Λ̄ − I) of the modes, one a conjugate pair."""
        if self.state % (2 * self.blocks):
            raise UserError(
                f"s5: state {self.state} is not whole conjugate pairs in {self.blocks} blocks; "
                "make it a multiple of twice the blocks."
            )
        shape = (self.state // 2,)
        log_decay = self.param("log_decay", nn.initializers.constant(np.log(0.5)), shape)
        frequency = self.param("frequency", self._frequencies, shape)
        log_step = self.param("log_step", self._log_steps, shape)
        pole = jax.lax.complex(-jnp.exp(log_decay), frequency)
        exponent = pole * jnp.exp(log_step)
        return jnp.exp(exponent), jnp.expm1(exponent) / pole

    def _frequencies(self, key, shape):
        return jnp.tile(jnp.asarray(hippo_frequencies(self.state // self.blocks)), self.blocks)

    def _log_steps(self, key, shape):
        return jax.random.uniform(key, shape, minval=np.log(0.02), maxval=np.log(1.0))


def hippo_frequencies(size: int) -> np.ndarray:
    """ω > 0 of the eigenvalues −½ ± iω of the normal part of HiPPO-LegS, (size / 2,), ascending."""
    root = np.sqrt(np.arange(size) + 0.5)
    lower = np.tril(np.outer(root, root), -1)
    skew = np.linalg.eigvalsh(1j * (lower - lower.T))  # i × skew-symmetric: real, in pairs ±ω
    return skew[size // 2 :].astype(np.float32)


def _complex(x: Float[Array, "*lead p"]) -> Complex[Array, "*lead m"]:
    return jax.lax.complex(*jnp.split(x, 2, -1))


def _real(x: Complex[Array, "*lead m"]) -> Float[Array, "*lead p"]:
    return jnp.concatenate([x.real, x.imag], -1)


class S5(Parallel):
    """``state`` and ``blocks`` are the layers'; the other fields are those of `Parallel`."""

    state: int = 64
    blocks: int = 8

    def time_layer(self) -> S5Layer:
        return S5Layer(self.state, self.blocks, parent=None)
