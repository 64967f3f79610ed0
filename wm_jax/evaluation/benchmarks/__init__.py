"""Published benchmarks of video prediction, by the protocol they were published with.

Files are read from a given folder, as their authors spread them. What others have published stands
beside what is measured, with its source; a number that nobody could check here is left out.
"""

from wm_jax.evaluation.benchmarks.moving_mnist import MOVING_MNIST
from wm_jax.evaluation.benchmarks.obj3d import OBJ3D

#: What ``wm-jax evaluate --benchmark`` takes.
BENCHMARKS = {
    "moving_mnist": MOVING_MNIST,
    "obj3d": OBJ3D,
}
