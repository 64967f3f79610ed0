"""Commands as text: quoted, one option a line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def folded(*commands: Iterable[str], indent: str = "  ") -> str:
    """Commands that run one another, in bash: each, and every option, on a line of its own."""
    text = ""
    for command in commands:
        for index, argument in enumerate(command):
            new_line = not index or argument.startswith("-")
            gap = f" \\\n{indent}" if new_line else " "
            text += (gap if text else "") + shlex.quote(argument)
    return text


def comment(text: str) -> str:
    """Lines of ``text`` as comments of bash and YAML."""
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def indented(text: str, by: int) -> str:
    """Every line of ``text`` moved to the right; empty ones stay empty."""
    return "".join(" " * by * bool(line.strip()) + line for line in text.splitlines(True))
