"""Every knob, once. A config is `base_config()` with changes; it is complete, locked and checked.

Durations are in updates (one optimiser step on one batch) unless a comment says otherwise.
An experiment file offers ``get_config(variant) -> ConfigDict`` and is named as
``path/to/file.py:variant``; the command line may then override single keys.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wm_jax import config_rules
from wm_jax.errors import UserError

EXPERIMENTS = Path("experiments/configs")

#: Knobs a resumed run may change: they say where, how often and how long, not what is learned.
FREE_ON_RESUME = re.compile(
    r"eval\.|mesh\.|train\.(log_|clip_|checkpoint_|keep|recover_|spike_|hang_)|model\.remat$"
)


def model_config(name: str = "grid_slots") -> ConfigDict:
    """Knobs of the model with the backbone ``name``; ``dynamics`` are that backbone's fields."""
    from wm_jax.models import knobs  # here, so that reading a config doesn't load flax

    config = ConfigDict()
    config.name = name  # backbone, a key of wm_jax.models.dynamics.DYNAMICS
    # A size of wm_jax.models.sizes.SIZES sets the widths and depths below, those said beside it
    # excepted; 'default' sets none.
    config.size = "default"
    config.dtype = "float32"  # of matrix products with weights: 'float32' or 'bfloat16'
    # What the gradient keeps: 'none' (all it needs), 'dots' (products), 'full' (states over time)
    config.remat = "none"
    config.resolution = 64  # px, height and width of a frame
    config.encoder = "patch"  # 'patch', 'vit', 'conv' (DreamerV3's) or 'pool' (for grid_slots)
    # 'patch', 'conv' (DreamerV3's, for a vector), 'slots' (grid_slots), 'mixture' (slot_attention)
    config.decoder = "patch"
    config.patch = 8  # px, side of one cell
    config.embed = 64  # features of one cell's embedding
    config.decoder_hidden = 128  # features of the patch decoder's hidden layer
    config.sharp_steps = 0  # steps of a flow that makes the decoder's frames sharp; 0: no flow
    config.sharp_width = 64  # features of a patch in the flow's network
    config.sharp_depth = 2  # its blocks
    config.conv_depth = 4  # channels that DreamerV3's convolutions multiply by 2, 3, 4, 4
    config.conv_strided = False  # the conv encoder halves by strides, not by max-pools: faster
    config.vit_depth = 2  # attention blocks of the encoder 'vit', of width model.embed
    config.vit_heads = 4
    config.modalities = ()  # conditions the model is told, of wm_jax.shapes.CONDITION_SIZES
    config.told_width = 32  # features of what a step is told
    config.text = "words"  # 'words' (ids, encoded here) or 'vectors' (embeddings of 32 numbers)
    # How far what is said, a change or a sentence, is followed in imagination; 1: as in training.
    config.guidance = 1.0
    config.heads = ()  # 'reward', 'continue', 'audio', 'readout': see wm_jax.models.heads
    config.readout = 0  # numbers a frame that the head 'readout' predicts
    dynamics, loss, around = knobs(name)
    config.update(around)
    config.dynamics = ConfigDict(dynamics)  # fields of the backbone's module, described there
    config.loss = ConfigDict(loss)  # fields of wm_jax.models.loss.LossWeights
    return config


def data_config() -> ConfigDict:
    config = ConfigDict()
    config.directory = "data/motion"  # a data set that `wm-jax data build` wrote
    config.loader = "memory"  # 'memory' holds the split in RAM, 'grain' reads records as it goes
    config.window = 48  # frames a training window
    config.conditions = ("actions", "camera", "light")  # modalities read besides frames
    # Kinds of changes of which pairs of a sentence and a vector are made up, one a frame, so that
    # words are learned without a video to each: see data_pipelines.twins.paraphrases.
    config.paraphrases = ()
    config.workers = 0  # reader processes (grain only)
    config.corrupt_budget = 8  # records that may be unreadable before the run stops
    return config


def train_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 2  # windows an update, over all processes
    config.steps = 10_000  # updates; 0: as many as train.minutes allows
    config.minutes = 0.0  # wall-clock of training, compile included; fixes steps before update 0
    # Shares of the run after which the training window doubles, up to data.window; (): never.
    config.window_doublings = (0.4, 0.7)
    # Truncated backpropagation: an update's windows go on where the last update's ended, and so
    # does the state, without its gradient. Needs data.loader=memory and no window_doublings.
    config.carry_state = False
    # Where only what hears learns (optim.only), one window of each episode is followed once, before
    # the first update; then updates cost what they learn. See wm_jax.remembered.
    config.remember = False
    config.ema = 0.0  # decay an update of the averaged weights that are evaluated; 0: none
    config.log_every = 10  # updates between rows of metrics.jsonl
    config.checkpoint_every = 500  # updates
    config.keep = 2  # newest checkpoints that stay
    config.keep_every = 0  # updates; checkpoints of every so many stay too, 0: none
    config.keep_best = ""  # metric of the clip whose highest checkpoint stays too; '': none
    # Weights to begin with, by name: the workdir of a run (its newest checkpoint) or the folder of
    # one checkpoint; '': drawn from the seed. Those in `init_skip`, and below, stay as drawn.
    config.init_from = ""
    config.init_skip = ()  # for example ('decoder', 'dynamics/cell/kernel')
    # Times that a run goes back to one and the same checkpoint, on data after those that led to a
    # NaN or a spike, before it stops.
    config.recover_tries = 3
    config.spike_factor = 0.0  # times the median of recent losses that is a spike; 0: none is
    config.hang_minutes = 30.0  # for one update, after which a run dumps stacks and dies; 0: never
    config.clip_every = 1_000  # updates between open-loop clips; 0: none
    config.clip_episodes = 4  # episodes a clip
    return config


def optim_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "adamw"  # 'adamw', 'laprop', 'muon' (matrices; AdamW for the rest)
    config.learning_rate = 1e-3  # at its peak
    config.warmup = 100  # updates, linear from 0; at most a tenth of the run
    config.schedule = "cosine"  # 'constant', 'cosine', 'linear', 'wsd' (flat, then linear)
    config.decay_fraction = 0.2  # share of the run over which 'wsd' decays
    config.final_fraction = 0.0  # learning rate at the end, as a share of the peak
    # Parts that learn, by name, for example ('dynamics/hearing',); the rest stays as it begins; ():
    # all do.
    config.only = ()
    config.clip = "norm"  # 'agc' (each tensor against its own norm), 'norm' (global), 'none'
    config.clip_value = 1.0  # gradient norm; for 'agc' a share of the tensor's norm
    config.weight_decay = 0.0  # decoupled, matrices only
    config.beta1 = 0.9
    config.beta2 = 0.99
    config.eps = 1e-8
    return config


def base_config(model: str = "grid_slots") -> ConfigDict:
    """All knobs at their defaults, for the backbone ``model``; locked, so a typo adds no key."""
    config = ConfigDict()
    config.seed = 0  # of weights, data order and noise
    config.model = model_config(model)
    config.data = data_config()
    config.train = train_config()
    config.optim = optim_config()
    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that split the batch; -1: all that are left
    config.mesh.fsdp = 1  # devices that split batch and weights; -1: all that are left
    # Devices that split the weights and the work of every layer, on the same windows; -1 likewise.
    config.mesh.tensor = 1
    config.mesh.cells = 1  # devices that split every frame into bands of rows
    # Chooses the sizes of all but cells (which is 1 then), and says why: see wm_jax.mesh_choice.
    config.mesh.auto = False
    config.eval = ConfigDict()
    config.eval.split = "validation"  # which episodes clips are drawn from
    config.eval.context = 16  # frames shown, in clips and to an export's `encode` at a time
    config.eval.horizon = 40  # frames predicted
    return config.lock()


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{'train.steps': 100, …}``."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def pick(table: Mapping[str, Any], name: str, what: str) -> Any:
    """``table[name]``, or a `UserError` that lists what there is and the nearest name."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "there are " + ", ".join(table) + "."
    raise UserError(f"unknown {what} '{name}': {hint}")


def change(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Sets existing keys (dotted) in place; text is converted to the key's own type.

    Changing ``model.name`` first replaces the model section by that backbone's; changing
    ``model.size`` then sets that size's fields. Raises `UserError` for a key that does not exist or
    a value of another type.
    """
    if changes.get("model.name", config.model.name) != config.model.name:
        with config.unlocked():
            config.model = model_config(changes["model.name"])
    if changes.get("model.size", config.model.size) != config.model.size:
        from wm_jax.models import sizes  # here, so that reading a config doesn't load flax

        sizes.apply(config.model, changes["model.size"])
    known = flat(config)
    for key, value in changes.items():
        old = pick(known, key, "config key")
        *sections, last = key.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[last] = _typed(key, value, old)
    return config.lock()


def _typed(key: str, value: Any, old: Any) -> Any:
    """``value`` as the type of ``old``, refusing what does not fit."""
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if isinstance(old, tuple):
            items = value.strip("()[] ").split(",") if isinstance(value, str) else value
            items = [i.strip(" '\"") if isinstance(i, str) else i for i in items]
            item_type = type(old[0]) if old else _number_or_text
            return tuple(item_type(item) for item in items if item != "")
        if isinstance(old, int) and not isinstance(value, bool):
            if float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if isinstance(old, float) and not isinstance(value, bool):
            return float(value)
        if isinstance(old, str) and isinstance(value, str):
            return value
        raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError):
        kind = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        name = type(old).__name__
        raise UserError(
            f"config.{key}={value!r} is not {kind.get(name, f'a {name}')}; its default is {old!r}."
        ) from None


def _number_or_text(item: Any) -> Any:
    """An entry of a list whose default is empty."""
    try:
        return float(item)
    except ValueError:
        return item


def load(name: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The config of ``path/to/file.py:variant`` with ``config.KEY=VALUE`` overrides, checked."""
    path, _, variant = name.partition(":")
    if not Path(path).is_file():
        found = sorted(str(p) for p in EXPERIMENTS.glob("*.py") if p.name != "__init__.py")
        listing = ", ".join(found) if found else f"none under {EXPERIMENTS} in this folder"
        raise UserError(f"there is no config file {path}; there are: {listing}.")
    spec = importlib.util.spec_from_file_location("experiment_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} is not a config: it must define get_config(variant).")
    if not variant and inspect.signature(module.get_config).parameters["variant"].default is (
        inspect.Parameter.empty
    ):
        raise UserError(f"{path} needs a variant: --config {path}:VARIANT.")
    config = module.get_config(variant) if variant else module.get_config()
    return validate(change(config, dict(_parse(override) for override in overrides)))


def _parse(override: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:--)?config\.([\w.]+)=(.*)", override, re.DOTALL)
    if not match:
        raise UserError(f"cannot read '{override}': write --config.KEY=VALUE.")
    return match[1], match[2]


def validate(config: ConfigDict) -> ConfigDict:
    """The config itself, or a `UserError` that names the key and the fix."""
    config_rules.check(flat(config))
    return config


def to_json(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`; refuses keys that this version does not know."""
    values = flat(json.loads(text))
    return change(base_config(values["model.name"]), values)


def difference(a: ConfigDict, b: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, with both values; None where one has no such key."""
    left, right = flat(a), flat(b)
    keys = sorted(left.keys() | right.keys())
    return {k: (left.get(k), right.get(k)) for k in keys if left.get(k) != right.get(k)}


def write(config: ConfigDict, workdir: Path) -> None:
    """``workdir/config.json``, whole or not at all."""
    partial = workdir / "config.json.partial"
    partial.write_text(to_json(config))
    partial.replace(workdir / "config.json")


def adopt(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config to run with in ``workdir``: where a run is, its own number of updates.

    Raises `UserError` that names the keys in which the run there differs.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; name a folder.")
    path = workdir / "config.json"
    config = config.copy_and_resolve_references()
    if not path.exists():
        return config.lock()
    there = from_json(path.read_text())
    if not config.train.steps:
        config.train.steps = there.train.steps
    differ = {k: v for k, v in difference(there, config).items() if not FREE_ON_RESUME.match(k)}
    if differ:
        listing = ", ".join(f"{k} is {a} there and {b} here" for k, (a, b) in differ.items())
        raise UserError(
            f"{workdir} holds a run of another config ({listing}); name another workdir, or run it "
            "with its own config."
        )
    return config.lock()
