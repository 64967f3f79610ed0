"""Shared by all tests."""

import shutil
import subprocess

import pytest
import typecheck  # noqa: F401  before anything is annotated, whichever test comes first


@pytest.fixture
def two_megabytes(tmp_path):
    """A folder on a file system that holds 2 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
