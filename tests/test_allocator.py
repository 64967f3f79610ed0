"""A command that was started without `launch/environment` gives itself the allocator's settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wm_jax import allocator

ROOT = Path(__file__).parent.parent
SCRIPT = """
import os, sys
from wm_jax import allocator
allocator.restart(sys.argv[1])
print(os.getppid(), os.environ.get("MALLOC_MMAP_MAX_"), os.environ.get("GLIBC_TUNABLES"), *sys.argv)
"""


def settings_of(verb, **extra):
    environment = {k: v for k, v in os.environ.items() if k not in allocator.SETTINGS} | extra
    command = [sys.executable, "-c", SCRIPT, verb, "--an option"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    [line] = done.stdout.splitlines()  # once
    return line


glibc = pytest.mark.skipif(not allocator._has_glibc(), reason="only glibc reads them")


@glibc
def test_a_long_verb_starts_itself_again_in_the_same_process_with_the_same_arguments():
    want = f"{os.getpid()} 0 glibc.malloc.hugetlb=1 -c train --an option"
    assert settings_of("train") == want


@glibc
def test_what_is_set_stays():
    got = settings_of("train", MALLOC_MMAP_MAX_="7")
    assert got == f"{os.getpid()} 7 None -c train --an option"
    assert "glibc.malloc.tcache_count=0" in settings_of(
        "train", GLIBC_TUNABLES="glibc.malloc.tcache_count=0"
    )


def test_a_short_verb_is_left_alone():
    assert settings_of("edit") == f"{os.getpid()} None None -c edit --an option"


def test_settings_are_those_of_the_launchers():
    text = (ROOT / "launch/environment").read_text()
    assert dict(re.findall(r"export (\w+)=\"\$\{\w+:-([^$}]*)\}\"", text)) == allocator.SETTINGS
