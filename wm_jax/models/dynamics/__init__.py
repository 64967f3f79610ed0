"""The registry of backbones. Adding one is a file beside this and a line here."""

from wm_jax.models.dynamics.gated_delta import GatedDelta
from wm_jax.models.dynamics.grid_gru import GridGRU
from wm_jax.models.dynamics.grid_linear import GridLinear
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.mamba2 import Mamba2
from wm_jax.models.dynamics.rssm import RSSM
from wm_jax.models.dynamics.s5 import S5
from wm_jax.models.dynamics.slot_attention import SlotAttention
from wm_jax.models.dynamics.transformer import Transformer

DYNAMICS = {
    "gated_delta": GatedDelta,
    "grid_gru": GridGRU,
    "grid_linear": GridLinear,
    "grid_slots": GridSlots,
    "mamba2": Mamba2,
    "rssm": RSSM,
    "s5": S5,
    "slot_attention": SlotAttention,
    "transformer": Transformer,
}
