"""Programs that a test runs once or twice: most of their time is compiling, so compile less."""

from __future__ import annotations

import functools

import jax
import numpy as np

#: `jax.jit` with LLVM's optimiser off.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def random_variables(module, *arguments, gain: float = 1.0, **options):
    """Variables of a module, drawn without running its initialisers: kernels with variance
    gain² / fan-in, the rest away from the zeros and ones of a start, which could hide a mistake."""
    init = functools.partial(module.init, **options)
    shapes = jax.eval_shape(init, jax.random.key(0), *arguments)
    random = np.random.default_rng(0)

    def draw(path, leaf):
        x = random.normal(size=leaf.shape)
        if leaf.ndim > 1:
            blocks = leaf.ndim == 3  # (blocks, in, out), else (…, in, out)
            x *= gain / np.sqrt(leaf.shape[1] if blocks else np.prod(leaf.shape[:-1]))
        else:
            x = 0.3 * x + (path[-1].key == "scale")
        return x.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
