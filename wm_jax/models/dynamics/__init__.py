"""The registry of backbones. Adding one is a file beside this and a line here."""

from wm_jax.models.dynamics.grid_gru import GridGRU
from wm_jax.models.dynamics.grid_linear import GridLinear
from wm_jax.models.dynamics.grid_slots import GridSlots
from wm_jax.models.dynamics.rssm import RSSM

DYNAMICS = {
    "grid_gru": GridGRU,
    "grid_linear": GridLinear,
    "grid_slots": GridSlots,
    "rssm": RSSM,
}
