"""The command line: quick to help, one sentence for bad input, the right exit status."""

import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import wm_jax
from wm_jax import __main__ as cli
from wm_jax.errors import MissingExtra, UserError

ROOT = Path(__file__).parent.parent
MODULE = [sys.executable, "-m", "wm_jax"]


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def verb(monkeypatch):
    """Installs a verb ``try`` that calls the given function."""

    def install(main):
        module = types.ModuleType("fake_verb")
        module.main = main
        monkeypatch.setitem(sys.modules, "fake_verb", module)
        monkeypatch.setitem(cli.VERBS, "try", ("fake_verb", "a verb for tests"))

    return install


def test_help_answers_in_half_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run(*MODULE, "--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(seconds) < 0.5
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)


def test_help_imports_nothing_but_the_standard_library():
    script = """
import sys
from wm_jax.__main__ import main
main(["--help"])
ours = {"wm_jax", "wm_jax.__main__", "wm_jax.allocator", "wm_jax.errors"}
heavy = {n.split(".")[0] for n in sys.modules} & {"jax", "numpy", "flax", "ml_collections"}
assert not heavy, heavy
assert {n for n in sys.modules if n.startswith("wm_jax")} == ours
"""
    assert run(sys.executable, "-c", script).returncode == 0


def test_console_script_and_module_are_the_same():
    script = shutil.which("wm-jax", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("wm_jax is not installed in this environment")
    for argv in (["--help"], ["--version"], ["trian"], []):
        a, b = run(script, *argv), run(*MODULE, *argv)
        assert (a.returncode, a.stdout, a.stderr) == (b.returncode, b.stdout, b.stderr)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example(verb):
    done = run(*MODULE, verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"wm-jax {verb}" in done.stdout
    assert "example" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("xyz", f"the verbs are {', '.join(cli.VERBS)}."),
    ],
)
def test_an_unknown_verb_is_told_the_nearest(wrong, hint, capsys):
    assert cli.main([wrong]) == 2
    assert capsys.readouterr().err == f"wm-jax {wrong}: there is no verb '{wrong}': {hint}\n"


def test_no_verb_shows_the_verbs_and_fails(capsys):
    assert cli.main([]) == 2
    assert "usage: wm-jax VERB" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"wm-jax {wm_jax.__version__}\n"


def test_a_verb_gets_its_own_arguments_and_sets_the_status(verb):
    seen = []
    verb(lambda argv: seen.append(argv) or 3)
    assert cli.main(["try", "--help", "x"]) == 3
    assert seen == [["--help", "x"]]


def test_bad_input_is_one_sentence_and_status_2(verb, capsys):
    def main(argv):
        raise UserError("--steps=-1 must be at least 0.")

    verb(main)
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == "wm-jax try: --steps=-1 must be at least 0.\n"


def test_a_missing_extra_says_what_to_install(verb, capsys):
    def main(argv):
        raise MissingExtra("flatbuffers", "export")

    verb(main)
    assert cli.main(["try"]) == 2
    assert "pip install 'wm_jax[export]'" in capsys.readouterr().err


def test_ctrl_c_leaves_without_a_traceback(verb, capsys):
    def main(argv):
        raise KeyboardInterrupt

    verb(main)
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "\nwm-jax try: stopped.\n"


def test_a_mistake_of_ours_keeps_its_traceback(verb):
    def main(argv):
        raise ZeroDivisionError

    verb(main)
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


def test_a_reader_that_has_read_enough_is_no_error():
    """`wm-jax reproduce backbones --dry-run | head -1`, of a pipe that is closed at once."""
    command = f"{sys.executable} -m wm_jax reproduce backbones --dry-run | head -c 1 >/dev/null"
    script = f"{command}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.returncode in (0, 141)
