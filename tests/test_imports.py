"""Imports point one way, and the library asks for what setup.cfg declares."""

import ast
import configparser
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("wm_jax", "data_pipelines")

#: A module imports from its own line or from those above. The longest matching prefix counts.
LAYERS = [
    ["wm_jax", "wm_jax.errors", "wm_jax.shapes", "wm_jax.edit", "wm_jax.progress", "wm_jax.words"],
    ["wm_jax.allocator", "wm_jax.config_rules", "wm_jax.stop", "wm_jax.watchdog"],
    ["wm_jax.manifest"],
    ["wm_jax.remote"],
    ["wm_jax.checkpoint_cli"],
    ["wm_jax.losses", "data_pipelines"],
    ["wm_jax.nn"],
    ["wm_jax.models"],
    ["wm_jax.config"],  # above the models: their own fields are its knobs
    ["wm_jax.processes"],
    ["wm_jax.curriculum", "wm_jax.mesh", "wm_jax.mesh_choice", "wm_jax.optim"],
    ["wm_jax.flops", "wm_jax.train_step"],
    ["wm_jax.budget", "wm_jax.checkpoint", "wm_jax.clips", "wm_jax.kept", "wm_jax.writers"],
    ["wm_jax.remembered", "wm_jax.updates"],
    ["wm_jax.makings"],
    ["wm_jax.export_loader", "wm_jax.programs", "wm_jax.search"],
    ["wm_jax.stored"],
    ["wm_jax.recover", "wm_jax.warm_start"],
    ["wm_jax.train_log"],
    ["wm_jax.naming", "wm_jax.telling"],
    ["wm_jax.sentences"],
    ["wm_jax.world"],
    ["wm_jax.timeline", "wm_jax.asked", "wm_jax.captions"],
    ["wm_jax.constraints"],
    ["wm_jax.planning"],
    ["wm_jax.evaluation", "wm_jax.model_card"],
    ["wm_jax.train", "wm_jax.export", "wm_jax.ahead"],
    ["wm_jax.edit_cli", "wm_jax.imagine_cli", "wm_jax.launch", "wm_jax.train_cli"],
    ["wm_jax.studies"],
    ["wm_jax.__main__"],
]
#: Modules of wm_jax that know of data_pipelines; the rest gets what it needs as arguments.
READS_DATA = {
    "wm_jax.edit_cli",
    *(
        "wm_jax.clips",
        "wm_jax.makings",
        "wm_jax.remembered",
        "wm_jax.train",
        "wm_jax.studies.runner",
        "wm_jax.evaluation.twins_world",
    ),
    *("wm_jax.evaluation.twins_scene", "wm_jax.evaluation.twins_changes", "wm_jax.ahead.program"),
    "wm_jax.evaluation.twins_tasks",
}
#: Modules that may import Grain, array_record or TFDS as they are imported.
RECORDS = {"data_pipelines.twins.build", "data_pipelines.twins.builder"}
#: import name -> distribution, where they differ
DISTRIBUTIONS = {"PIL": "pillow", "orbax": "orbax-checkpoint", "absl": "absl-py"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for package in PACKAGES for p in (ROOT / package).rglob("*.py")}


def imports(path, top_level_only=False):
    """Full names of what a file imports; ``from a import b`` is a.b where that is a module."""
    tree = ast.parse(path.read_text())
    skipped = set()
    if top_level_only:
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        skipped = {id(inner) for function in functions for inner in ast.walk(function)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def layer(module):
    fits = [
        (len(prefix), index)
        for index, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if module == prefix or module.startswith(f"{prefix}.") and prefix != "wm_jax"
    ]
    assert fits, f"{module} has no layer: add it to LAYERS in {Path(__file__).name}"
    return max(fits)[1]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    lazy = module == "wm_jax"  # `wm_jax.load` imports when it is called
    for imported in imports(MODULES[module], top_level_only=lazy) & MODULES.keys():
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which is above it"


def test_no_import_goes_in_a_circle():
    graph = {m: imports(path) & MODULES.keys() - {m} for m, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_part_keeps_to_its_own(module):
    found = imports(MODULES[module])
    tops = {name.split(".")[0] for name in found}
    assert not tops & {"tensorflow", "torch", "clu", "experiments", "tests"}
    if not module.startswith(("wm_jax.nn", "wm_jax.models")):
        assert "flax" not in tops, "only wm_jax/nn and wm_jax/models import flax"
    if module.startswith("data_pipelines"):
        assert not tops & {"jax", "optax", "orbax"}, "data_pipelines holds no device code"
        ours = {name for name in found if name.startswith("wm_jax")}
        said = {"wm_jax.edit", "wm_jax.words"}  # how changes and sentences are told
        assert ours <= {"wm_jax.errors", "wm_jax.progress", *said}, "it knows no models"
    elif module not in READS_DATA:
        assert "data_pipelines" not in tops, "data reaches the library through its arguments"


def test_names_say_what_a_module_is_about():
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert not [module for module in MODULES if module.split(".")[-1] in vague]


def requirements():
    """Distribution names of the default install, and of each extra."""
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")

    def names(text):
        lines = (line.strip() for line in text.splitlines())
        found = (re.match(r"[\w-]+", line) for line in lines if not line.startswith("#"))
        return {match[0].replace("_", "-").lower() for match in found if match}

    extras = options["options.extras_require"]
    return names(options["options"]["install_requires"]), {e: names(extras[e]) for e in extras}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_imported_is_declared(module):
    default, extras = requirements()
    extra = {name for names in extras.values() for name in names}
    # The loader travels in exports, beside their own list of needs.
    if module == "wm_jax.export_loader":
        default = default | extras["export"]
    for top_level_only, allowed in ((True, default), (False, default | extra)):
        for name in {name.split(".")[0] for name in imports(MODULES[module], top_level_only)}:
            if name not in sys.stdlib_module_names and name not in PACKAGES:
                wanted = DISTRIBUTIONS.get(name, name).replace("_", "-").lower()
                assert wanted in allowed, f"{module} imports {name}: declare it in setup.cfg"


def test_a_missing_extra_is_one_that_exists():
    _, extras = requirements()
    for module, path in MODULES.items():
        for package, extra in re.findall(r'MissingExtra\("([\w-]+)", "(\w+)"\)', path.read_text()):
            assert package.replace("_", "-").lower() in extras[extra], f"{module}: {package}"


def test_all_but_the_record_builders_import_without_grain_and_tfds():
    wanted = sorted(m for m in MODULES if m not in RECORDS | {"wm_jax.export_loader"})
    script = """
import importlib, importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"grain", "array_record", "tensorflow_datasets"}:
            raise ModuleNotFoundError(f"no {name} here")
sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *wanted], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
