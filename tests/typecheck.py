"""What checks shapes while tests run: beartype, on the annotations that jaxtyping wrote.

Other annotations are left to mypy: tests stand in for meshes, writers and models as they please.
"""

import re

import jax
import jaxtyping
import numpy as np
from beartype import beartype

# A numpy array will do for an array, as it does for every function of jax.
jaxtyping.Array = jax.Array | np.ndarray

SHAPED = re.compile(r"\b(Shaped|Float|Int|UInt|Bool|Num|Real)(\d*)\[")


def check(function):
    """``function``, checked on every call as far as its annotations speak of arrays."""
    shaped = {n: a for n, a in function.__annotations__.items() if SHAPED.search(str(a))}
    function.__annotations__ = shaped
    return beartype(function)
