"""torchrl's DreamerV3 world model as a contender of `peers.py`; imports torch and no JAX.

Its modules as its own DreamerV3 example puts them together, at the same sizes as ours: strided 5×5
convolutions, block GRU, 32 categorical variables, transposed convolutions, `DreamerV3ModelLoss`
with its separate KL terms. That loss wants a reward head, so one of one layer is there (about 1 %
of the arithmetic); its continue head is left out. Run eagerly, as the example does on a CPU, with
Adam in torch's fused form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensordict
import torch
import torchrl
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch.utils.flop_counter import FlopCounterMode
from torchrl.modules import (
    DreamerV3ImageDecoder,
    DreamerV3ImageEncoder,
    DreamerV3MLP,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
)
from torchrl.objectives import DreamerV3ModelLoss

VARIABLES, ACTIONS, BINS = 32, 1, 255


def world_model(deter: int, hidden: int, classes: int, depth: int) -> TensorDictSequential:
    """Encoder, rollout over the window, decoder and reward head, in that order."""
    shape = (3, 64, 64)
    state = VARIABLES * classes
    encoder = DreamerV3ImageEncoder(depth=depth)
    latents = {"num_categoricals": VARIABLES, "num_classes": classes, "unimix": 0.01}
    prior = RSSMPriorV3(
        action_shape=torch.Size([ACTIONS]),
        action_dim=ACTIONS,
        hidden_dim=hidden,
        rnn_hidden_dim=deter,
        recurrent_model="block_gru",
        **latents,
    )
    posterior = RSSMPosteriorV3(
        hidden_dim=hidden,
        rnn_hidden_dim=deter,
        obs_embed_dim=encoder.output_features(shape),
        use_rms_norm=True,
        **latents,
    )
    decoder = DreamerV3ImageDecoder(state + deter, shape, depth)
    reward = DreamerV3MLP(state + deter, BINS, depth=1, num_cells=hidden, outscale=0.0)

    def after(*names: str) -> list[tuple[str, str]]:
        return [("next", name) for name in names]

    steps = RSSMRolloutV3(
        TensorDictModule(
            prior, ["state", "belief", "action"], after("prior_logits", "state", "belief")
        ),
        TensorDictModule(
            posterior, after("belief", "encoded_latents"), after("posterior_logits", "state")
        ),
    )
    return TensorDictSequential(
        TensorDictModule(encoder, after("pixels"), after("encoded_latents")),
        steps,
        TensorDictModule(decoder, after("state", "belief"), after("reco_pixels")),
        TensorDictModule(reward, after("belief", "state"), after("reward_logits")),
    )


def contender(frames: np.ndarray, **sizes: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A training step on ``frames`` (b, t, h, w, 3) uint8, and what is known about it."""
    lead = frames.shape[:2]
    torch.manual_seed(0)
    model = world_model(**sizes)
    loss = DreamerV3ModelLoss(
        model, reco_symlog=False, kl_mode="separate", unimix=0.01, num_reward_bins=BINS
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-4, eps=1e-20, fused=True)
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3)))
    is_init = torch.zeros(*lead, 1, dtype=torch.bool)
    is_init[:, 0] = True
    batch = TensorDict(
        {
            "state": torch.zeros(*lead, VARIABLES * sizes["classes"]),
            "belief": torch.zeros(*lead, sizes["deter"]),
            "action": torch.zeros(*lead, ACTIONS),
            "is_init": is_init,
            "next": {"pixels": pixels, "reward": torch.zeros(*lead, 1)},
        },
        lead,
    )

    def update() -> float:
        terms, _ = loss(batch)
        total = sum(value.sum() for name, value in terms.items() if name.startswith("loss_"))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return float(total.detach())

    with FlopCounterMode(display=False) as counted:
        update()
    return update, {
        "parameters": sum(p.numel() for p in loss.parameters()),
        "megaflops_per_frame": round(counted.get_total_flops() / (lead[0] * lead[1]) / 1e6, 2),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "torchrl": torchrl.__version__,
            "tensordict": tensordict.__version__,
        },
    }
