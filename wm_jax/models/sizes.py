"""How large a backbone is, by name: widths and depths for so many parameters.

A size sets the fields of the model section that make the encoder, the dynamics and the decoder of a
backbone have about as many parameters as its name says (±15 %), at 64 px with the backbone's own
encoder and decoder; tests/golden/parameters.json has the exact counts. 'debug' is to try things.

The RSSM follows the rule of DreamerV3's model sizes (Hafner et al. 2023): deter is 8 · hidden,
classes and depth of convolutions are hidden / 16, and hidden is theirs up to 200m. Their names
count an agent's heads too, so ours spend the difference on the embedding of patches. Of
`grid_slots` it is the stage that grows: what an object is stays small.
"""

from __future__ import annotations

import difflib
from typing import Any

from wm_jax.errors import UserError

#: Parameters that a size's name stands for; of 'debug' the most.
TARGETS = {
    "debug": 200_000,
    "1m": 1e6,
    "12m": 12e6,
    "50m": 50e6,
    "200m": 200e6,
    "1b": 1e9,
    "7b": 7e9,
}
Table = dict[str, dict[str, int]]


def _table(fields: str, rows: dict[str, tuple[int, ...]]) -> Table:
    """A row of values a size, for ``fields`` of the model section or of its ``dynamics``."""
    around = ("embed", "decoder_hidden", "conv_depth")
    keys = [name if name in around else f"dynamics.{name}" for name in fields.split()]
    return {size: dict(zip(keys, row, strict=True)) for size, row in rows.items()}


SIZES: dict[str, Table] = {
    "gated_delta": _table(
        "embed decoder_hidden width hidden layers heads",
        {
            "debug": (16, 16, 16, 16, 1, 2),
            "1m": (128, 128, 128, 128, 3, 4),
            "12m": (400, 400, 400, 400, 4, 8),
            "50m": (704, 704, 704, 704, 6, 8),
            "200m": (1216, 1216, 1216, 1216, 8, 16),
            "1b": (2304, 2304, 2304, 2304, 12, 16),
            "7b": (5248, 5248, 5248, 5248, 16, 32),
        },
    ),
    "grid_gru": _table(
        "embed decoder_hidden width hidden depth",
        {
            "debug": (16, 32, 16, 32, 1),
            "1m": (128, 256, 128, 256, 1),
            "12m": (432, 864, 432, 864, 2),
            "50m": (896, 1792, 896, 1792, 2),
            "200m": (1600, 3200, 1600, 3200, 4),
            "1b": (3584, 7168, 3584, 7168, 4),
            "7b": (7936, 15872, 7936, 15872, 8),
        },
    ),
    "grid_linear": _table(
        "embed decoder_hidden width hidden layers",
        {
            "debug": (16, 16, 16, 16, 1),
            "1m": (128, 128, 128, 128, 3),
            "12m": (416, 416, 416, 416, 4),
            "50m": (704, 704, 704, 704, 6),
            "200m": (1280, 1280, 1280, 1280, 8),
            "1b": (2304, 2304, 2304, 2304, 12),
            "7b": (5376, 5376, 5376, 5376, 16),
        },
    ),
    "grid_slots": _table(
        "decoder_hidden width hidden",
        {
            "debug": (16, 8, 16),
            "1m": (256, 128, 256),
            "12m": (944, 472, 944),
            "50m": (1952, 976, 1952),
            "200m": (3904, 1952, 3904),
            "1b": (8752, 4376, 8752),
            "7b": (23184, 11592, 23184),
        },
    ),
    "mamba2": _table(
        "embed decoder_hidden width hidden layers heads state",
        {
            "debug": (16, 16, 16, 16, 1, 2, 8),
            "1m": (136, 136, 136, 136, 3, 4, 16),
            "12m": (432, 432, 432, 432, 4, 8, 32),
            "50m": (736, 736, 736, 736, 6, 8, 64),
            "200m": (1312, 1312, 1312, 1312, 8, 16, 64),
            "1b": (2432, 2432, 2432, 2432, 12, 16, 128),
            "7b": (5632, 5632, 5632, 5632, 16, 32, 128),
        },
    ),
    "rssm": _table(
        "deter hidden classes conv_depth embed decoder_hidden",
        {
            "debug": (64, 16, 4, 4, 8, 16),
            "1m": (512, 64, 4, 4, 40, 64),
            "12m": (2048, 256, 16, 16, 88, 256),
            "50m": (4096, 512, 32, 32, 200, 512),
            "200m": (8192, 1024, 64, 64, 392, 1024),
            "1b": (20480, 2560, 160, 160, 616, 2560),
            "7b": (53248, 6656, 416, 416, 1736, 6656),
        },
    ),
    "s5": _table(
        "embed decoder_hidden width hidden layers state blocks",
        {
            "debug": (16, 16, 16, 16, 1, 16, 2),
            "1m": (128, 128, 128, 128, 3, 128, 8),
            "12m": (416, 416, 416, 416, 4, 416, 8),
            "50m": (704, 704, 704, 704, 6, 704, 11),
            "200m": (1280, 1280, 1280, 1280, 8, 1280, 20),
            "1b": (2304, 2304, 2304, 2304, 12, 2304, 36),
            "7b": (5376, 5376, 5376, 5376, 16, 5376, 84),
        },
    ),
    "slot_attention": _table(
        "embed decoder_hidden width hidden heads",
        {
            "debug": (16, 32, 16, 32, 2),
            "1m": (144, 288, 144, 576, 4),
            "12m": (528, 1056, 528, 2112, 4),
            "50m": (1088, 2176, 1088, 4352, 8),
            "200m": (2208, 4416, 2208, 8832, 8),
            "1b": (4928, 9856, 4928, 19712, 16),
            "7b": (13056, 26112, 13056, 52224, 16),
        },
    ),
    "transformer": _table(
        "embed decoder_hidden width hidden layers heads",
        {
            "debug": (16, 16, 16, 16, 1, 2),
            "1m": (128, 128, 128, 128, 3, 4),
            "12m": (416, 416, 416, 416, 4, 8),
            "50m": (704, 704, 704, 704, 6, 8),
            "200m": (1280, 1280, 1280, 1280, 8, 16),
            "1b": (2304, 2304, 2304, 2304, 12, 16),
            "7b": (5376, 5376, 5376, 5376, 16, 32),
        },
    ),
}


def apply(config: Any, size: str) -> None:
    """Sets the fields of ``size`` in ``config`` (the ``model`` section); 'default' sets none.

    Raises `UserError` for a size or a backbone that has none.
    """
    if size == "default":
        return
    table = SIZES.get(config.name)
    if table is None:
        raise UserError(
            f"model.name={config.name} has no sizes; leave model.size at 'default', or add them to "
            "wm_jax/models/sizes.py."
        )
    if size not in table:
        near = difflib.get_close_matches(size, table, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(table)}."
        raise UserError(f"unknown model.size '{size}': {hint}")
    for key, value in table[size].items():
        section, _, field = key.rpartition(".")
        (config[section] if section else config)[field] = value
