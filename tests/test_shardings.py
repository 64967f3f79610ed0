"""Where every parameter of every backbone lies on a mesh: tables in tests/golden/shardings.

``python -m tests.test_shardings`` writes them anew after a change that is meant.
"""

from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from data_pipelines import window
from wm_jax import mesh as meshes
from wm_jax.config import base_config, change
from wm_jax.models import build
from wm_jax.models.dynamics import DYNAMICS

GOLDEN = Path(__file__).parent / "golden" / "shardings"
HINT = "if the change is meant, run python -m tests.test_shardings"
SIZE = "12m"
#: (data, fsdp) or (data, fsdp, tensor): the table has a column for each.
MESHES = ((8, 1), (4, 2), (1, 8), (4, 16), (1, 64), (2, 2, 2), (1, 4, 2), (1, 1, 8))


def table(name: str) -> str:
    """A line a parameter: its name, its shape, and for each mesh the axis that ``fsdp`` splits
    (``-``: none, every chip has all of it) and, where the mesh has three axes, after a comma the
    one that ``tensor`` splits. Allocates nothing."""
    model = build(change(base_config(), {"model.name": name, "model.size": SIZE}).model)
    batch = meshes.to_batch(window.blank(1, 2, 64))
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0), batch)
    axes = getattr(model, "logical_axes", meshes.axes_by_shape)(params)
    columns = []
    for sizes in MESHES:
        whole = (*sizes, 1, 1)[: len(meshes.AXES)]
        mesh = AbstractMesh(whole, meshes.AXES, axis_types=(AxisType.Auto,) * len(whole))
        columns.append(jax.tree.leaves(meshes.param_shardings(params, axes, mesh)))
    head = "parameter shape " + " ".join("x".join(map(str, sizes)) for sizes in MESHES)
    lines = [head]
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        where = "/".join(str(key.key) for key in path)
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        split = [
            ",".join(axis_of(column[i].spec, name) for name in meshes.AXES[1 : len(sizes)])
            for sizes, column in zip(MESHES, columns, strict=True)
        ]
        lines.append(" ".join([where, shape, *split]))
    return "\n".join(lines) + "\n"


def axis_of(spec, name: str) -> str:
    return str(tuple(spec).index(name)) if name in spec else "-"


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_every_parameter_lies_where_it_lay(name):
    assert table(name) == (GOLDEN / f"{name}_{SIZE}.txt").read_text(), f"{name}: {HINT}"


@pytest.mark.parametrize("mesh", ["1x8", "1x1x8"])
@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_nearly_all_weights_are_split_over_eight_chips(name, mesh):
    """A backbone whose matrices no rule splits would fill every chip with copies of itself."""
    rows = [line.split() for line in (GOLDEN / f"{name}_{SIZE}.txt").read_text().splitlines()]
    column = rows[0].index(mesh)
    sizes = [(size(row[1]), row[column].strip("-,") != "") for row in rows[1:]]
    split, everything = sum(n for n, is_split in sizes if is_split), sum(n for n, _ in sizes)
    assert split / everything > 0.95


def size(shape: str) -> int:
    total = 1
    for side in shape.replace("scalar", "1").split("x"):
        total *= int(side)
    return total


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for backbone in sorted(DYNAMICS):
        (GOLDEN / f"{backbone}_{SIZE}.txt").write_text(table(backbone))
