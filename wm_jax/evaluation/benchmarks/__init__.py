"""Published benchmarks of video prediction and of states, by the protocol they came with.

Files are read from a given folder, as their authors spread them. What others have published stands
beside what is measured, with its source; a number that nobody could check here is left out.
"""

from wm_jax.evaluation.benchmarks.clevrer import CLEVRER
from wm_jax.evaluation.benchmarks.filtered_cophy import (
    COPHY_BALLS,
    COPHY_BLOCKTOWER,
    COPHY_COLLISION,
)
from wm_jax.evaluation.benchmarks.memory_maze_probes import MEMORY_MAZE
from wm_jax.evaluation.benchmarks.moving_mnist import MOVING_MNIST
from wm_jax.evaluation.benchmarks.obj3d import OBJ3D
from wm_jax.evaluation.benchmarks.physion_probes import PHYSION
from wm_jax.evaluation.benchmarks.teco import DMLAB, DMLAB_144, MINECRAFT, MINECRAFT_144

#: What ``wm-jax evaluate --benchmark`` takes: of frames that are predicted.
BENCHMARKS = {
    "moving_mnist": MOVING_MNIST,
    "obj3d": OBJ3D,
    "clevrer": CLEVRER,
    "cophy_blocktower": COPHY_BLOCKTOWER,
    "cophy_balls": COPHY_BALLS,
    "cophy_collision": COPHY_COLLISION,
    "dmlab": DMLAB,
    "dmlab_144": DMLAB_144,
    "minecraft": MINECRAFT,
    "minecraft_144": MINECRAFT_144,
}
#: And of frozen states that are read out.
READOUTS = {
    "physion": PHYSION,
    "memory_maze": MEMORY_MAZE,
}
