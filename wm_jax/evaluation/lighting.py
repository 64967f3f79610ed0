"""How wrong the light is, read off what is grey: backgrounds are, objects are not."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

GREY = 12  # levels: pixels whose channels differ by more have an object on them


def light_error(
    frames: UInt8[np.ndarray, "*lead h w 3"], truth: UInt8[np.ndarray, "*lead h w 3"]
) -> tuple[Float[np.ndarray, " *lead"], Float[np.ndarray, " *lead"]]:
    """Errors of the gain (1 means twice as bright, or black) and of the gradient (the same, from
    the middle of the frame to an edge).

    Least squares of ``frames ≈ truth · (a + b u + c v)`` over pixels that are grey in both, u and v
    from -1 to 1 across the frame: |a - 1| and the length of (b, c). SSIM hardly sees a gain. Frames
    are linear in light (see the twins data set).
    """
    lead, (height, width) = frames.shape[:-3], frames.shape[-3:-1]
    u, v = (((np.arange(size) + 0.5) * 2 / size - 1) for size in (width, height))
    basis = np.stack(
        np.broadcast_arrays(np.ones((height, width)), u[None, :], v[:, None]), -1
    ).reshape(-1, 3)
    errors = []
    for shown, true in zip(
        *(x.reshape(-1, height * width, 3) for x in (frames, truth)), strict=True
    ):
        grey = (np.ptp(shown, axis=-1) <= GREY) & (np.ptp(true, axis=-1) <= GREY)
        design = basis[grey] * true[grey].mean(-1)[:, None]
        if not grey.any() or not design.any():
            errors.append((1.0, 0.0))
            continue
        a, b, c = np.linalg.lstsq(design, shown[grey].mean(-1), rcond=None)[0]
        errors.append((abs(a - 1), float(np.hypot(b, c))))
    gain, gradient = np.array(errors).T
    return gain.reshape(lead), gradient.reshape(lead)
