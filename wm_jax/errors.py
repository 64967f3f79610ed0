"""Errors that are the user's to mend: one sentence each, printed without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message names the thing, says what is wrong and what to do."""


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(
            f"{package} is not installed; it belongs to the extra '{extra}': "
            f"pip install 'wm_jax[{extra}]'."
        )
