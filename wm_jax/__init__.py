"""wm_jax: video world models that can be learned, edited, measured and shipped.

Importing the package imports nothing else; take what you need from its modules, for example
``from wm_jax import shapes``.
"""

__version__ = "0.1.0"
