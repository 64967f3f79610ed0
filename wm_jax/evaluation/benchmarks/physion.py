"""Stimuli of Physion (Bear et al. 2021, arXiv 2106.08261): will red touch yellow?

The folder holds the authors' archives as they unpack, and the labels of their repository:

    PhysionTestMP4s/SCENARIO/mp4s-redyellow/*.mp4   of Physion.zip; the folder may be called
    PhysionTestMP4s/labels.csv                      Physion, as it is there
    PhysionTrainMP4s/SCENARIO_readout_MP4s/*.mp4    of PhysionTrainMP4s.tar.gz
    PhysionTrainMP4s/readout_labels.csv             data/readout_labels.csv of the repository

That is also where SlotFormer (docs/data.md of pairlab/SlotFormer) has them. The HDF5 files are not
needed. A table of labels has the name of a stimulus in its first column and True or False under
"ground truth outcome"; names match once ``_img`` and ``-redyellow`` are taken off. Scenarios that
lack one of the two splits are left out.

Sources: README, data/readout_labels.csv and analysis/manual_stim_evaluation_buggy_stims.txt of
cogtoolslab/physics-benchmarking-neurips2021.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.readout_states import evenly

SCENARIOS = ("Dominoes", "Support", "Collide", "Contain", "Drop", "Link", "Roll", "Drape")
OUTCOME = "ground truth outcome"
#: Test stimuli whose physics the authors found to be at fault; they are left out.
GLITCHES = frozenset(
    (
        "pilot_towers_nb4_fr015_SJ000_gr-01_mono1_dis1_occ1_boxroom_0001",
        "pilot_towers_nb4_fr015_SJ000_gr015sph_mono1_dis0_occ0_tdwroom_0000",
        "pilot_it2_collision_yeet_box_1_dis_1_occ_0005",
        "pilot_it2_collision_yeet_tdw_1_dis_1_occ_0006",
        "pilot_linking_nl1-8_mg000_aCylcap_bCyl_tdwroom_0013",
        "pilot_linking_nl1-8_mg000_aCylcap_bCyl_tdwroom_0022",
        *(f"pilot-containment-box_{number}" for number in ("0004", "0012", "0016")),
        *(f"pilot-containment-cone-plate_{number}" for number in ("0003", "0008", "0013")),
        *(
            f"pilot-containment-cylinder-bowl_{number}"
            for number in ("0003", "0006", "0008", "0010", "0016", "0018", "0024")
        ),
        "pilot_it2_drop_sizes_box_1_dis_1_occ_0007",
        *("test10_0014", "test11_0015", "test13_0001", "test13_0010", "test14_0016", "test17_0004"),
    )
)


class Stimulus(NamedTuple):
    """A video, and whether the two objects touch in it, at any time."""

    path: Path
    touch: bool


class Scenario(NamedTuple):
    """The stimuli of one scenario: those that read-outs learn from, and the test ones."""

    readout: list[Stimulus]
    test: list[Stimulus]


def scenarios_of(folder: Path, readout: int, test: int) -> dict[str, Scenario]:
    """At most so many stimuli of each split and scenario, evenly chosen in the order of their
    names. Raises `UserError` for what is missing."""
    tests = next(
        (folder / n for n in ("PhysionTestMP4s", "Physion") if (folder / n).is_dir()), None
    )
    trains = folder / "PhysionTrainMP4s"
    if tests is None or not trains.is_dir():
        raise UserError(
            f"{folder} has no folder {'PhysionTestMP4s' if tests is None else trains.name}; "
            "Physion is read from PhysionTestMP4s and PhysionTrainMP4s, as its archives unpack."
        )
    known, asked = _labels(trains / "readout_labels.csv"), _labels(tests / "labels.csv")
    out = {}
    for name in SCENARIOS:
        learned = sorted((trains / f"{name}_readout_MP4s").glob("*.mp4"))
        scored = sorted((tests / name / "mp4s-redyellow").glob("*.mp4"))
        scored = [path for path in scored if stem(path) not in GLITCHES]
        if learned and scored:
            pair = _labelled(learned, readout, known), _labelled(scored, test, asked)
            out[name] = Scenario(*pair)
    if not out:
        raise UserError(
            f"{folder} has no scenario with both SCENARIO_readout_MP4s/*.mp4 in {trains.name} and "
            f"SCENARIO/mp4s-redyellow/*.mp4 in {tests.name}."
        )
    return out


def stem(path: Path | str) -> str:
    """A stimulus by the name that videos and tables of labels share."""
    return Path(path).name.removesuffix(".mp4").removesuffix("_img").replace("-redyellow", "")


def _labels(path: Path) -> dict[str, bool]:
    if not path.is_file():
        raise UserError(f"{path} is missing: it holds the labels of Physion's stimuli.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        first, *others = reader.fieldnames or [""]
        if OUTCOME not in others:
            raise UserError(f"{path} has no column '{OUTCOME}' beside the names of stimuli.")
        told = {stem(row[first]): row[OUTCOME] for row in reader}
    odd = next((value for value in told.values() if value not in ("True", "False")), None)
    if odd is not None:
        raise UserError(f"{path} says '{odd}' where an outcome is True or False.")
    return {name: value == "True" for name, value in told.items()}


def _labelled(paths: list[Path], most: int, labels: dict[str, bool]) -> list[Stimulus]:
    chosen = [paths[i] for i in evenly(len(paths), most)]
    unknown = next((path for path in chosen if stem(path) not in labels), None)
    if unknown is not None:
        raise UserError(f"{unknown} has no label in its table.")
    return [Stimulus(path, labels[stem(path)]) for path in chosen]
