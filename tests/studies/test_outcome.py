"""From stored runs to verdicts, page and the README's block."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation.test_report import Page
from studies import stored
from studies.stored import STUDY, store

from wm_jax.errors import UserError
from wm_jax.studies import cli, page, plan, provenance, scoring, tables
from wm_jax.studies import outcome as outcomes
from wm_jax.studies import study as studies

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def found(tmp_path):
    return outcomes.read(STUDY, "small", store(tmp_path))


def test_the_verdicts_are_those_of_the_stored_numbers(found):
    own, other = found.findings
    # 4 against 2, 2.1 and 2.2; what episodes differ in cancels.
    assert own.effect.seeds == pytest.approx((2.0, 1.9, 1.8))
    assert own.effect[:3] == pytest.approx((1.9, 1.9, 1.9))
    assert own.effect.episodes == stored.EPISODES
    assert (own.verdict, other.verdict) == ("confirmed", "not confirmed")


def test_the_sentence_holds_effect_interval_and_n(found):
    text = outcomes.sentence(found.findings[0])
    assert text == (
        "confirmed: Near is nearer than far. The position error at step 5 of near should be lower "
        "than that of far by more than 1 px; it is by +1.9 (95 % interval +1.9 to +1.9), n = 6 "
        "episodes × 3 seeds (+2, +1.9, +1.8)."
    )


def test_two_seeds_are_undecided_and_seeds_can_be_picked(tmp_path):
    folder = store(tmp_path)
    few = outcomes.read(STUDY, "small", folder, seeds=(0, 2))
    assert [f.verdict for f in few.findings] == ["undecided"] * 2
    assert [run["seed"] for run in few.runs["near"]] == [0, 2]


def test_a_run_that_failed_takes_its_seed_from_both_sides(tmp_path):
    folder = store(tmp_path)
    failed = {k: v for k, v in stored.run("near", 1, 0.0).items() if k not in ("sums", "curves")}
    failed |= {"failed": "train/loss/total is nan at update 7"}
    (folder / "near-1.json").write_text(json.dumps(failed))
    found = outcomes.read(STUDY, "small", folder)
    assert found.findings[0].verdict == "undecided"
    assert len(found.findings[0].effect.seeds) == 2
    assert "is nan at update 7" in page.render(found, "wm-jax reproduce trial")


def test_nothing_stored_is_undecided_in_words(tmp_path):
    found = outcomes.read(STUDY, "small", tmp_path)
    assert found.findings[0].verdict == "undecided"
    assert "to compare yet" in outcomes.sentence(found.findings[0])
    assert json.dumps(outcomes.as_json(found), allow_nan=False)


def test_runs_judged_by_different_rules_are_not_mixed(tmp_path):
    folder = store(tmp_path)
    other = stored.run("near", 1, 2.0, protocol={"digest": "another"})
    (folder / "near-1.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="different protocols"):
        outcomes.read(STUDY, "small", folder)


def test_the_json_and_the_table_show_every_arm_and_baseline(found):
    told = outcomes.as_json(found)
    assert told["verdict"] == "confirmed"
    assert told["core_minutes"] == 12
    rows = {(row["arm"], row["metric"], row["step"]): row for row in told["table"]}
    assert len(rows) == 3 * len(STUDY.metrics) * 2
    assert rows["near", "position_error", 5]["value"] == pytest.approx(2.6)
    assert rows["copy_last", "position_error", 1]["value"] == pytest.approx(7.5)
    assert rows["near", "identity", 5]["value"] is None
    lines = outcomes.terminal_table(found).splitlines()
    assert lines[0].split() == ["position_error", "px", "step", "1", "step", "5"]
    assert lines[1].split() == ["near", "2.60", "2.60"]
    assert lines[5].split() == ["near", "–", "–"]


def test_sums_survive_being_stored():
    scores = stored.scores(2.0)
    kept = scoring.stored(scores, (1, 5), stored.PROTOCOL)
    back = scoring.sums_of(json.loads(json.dumps(kept)), "position_error", 5)
    np.testing.assert_allclose(back.total[:, 0], scores["position_error"].total[:, 4])
    assert kept["curves"]["position_error"]["value"] == [2.5] * stored.HORIZON
    assert kept["curves"]["identity"]["value"] == [None] * stored.HORIZON
    assert scoring.overall(scores, "position_error") == pytest.approx(2.5)
    assert scoring.overall(scores, "identity") is None


def test_the_page_is_whole_and_shows_what_was_found(found):
    text = page.render(found, "wm-jax reproduce trial --scale small")
    shown = Page(text)
    assert not re.search(r"https?://|@import|url\(", text)
    assert shown.count["svg"] == len(STUDY.metrics) - 1 + 1, "no identity to draw, and wall-clock"
    assert shown.count["details"] == 4
    assert "<b>confirmed</b>: Near is nearer than far." in text
    assert "data.window" in text
    assert "model.patch" not in text.split("What differs")[1].split("How this was made")[0]
    for part in ("a processor", "0.10.2", "0.123", "12.0 core-minutes", "0.001: 2.5, 0.003: –"):
        assert part in text, part
    assert "The instrument failed" not in text
    assert "The instrument failed" in page.render(found._replace(holds=False), "x")


def test_time_goes_on_over_the_sessions_of_a_run():
    rows = [
        {"step": 1, "time/seconds": 10.0},
        {"step": 5, "time/seconds": 30.0},
        {"step": 5, "clip/psnr_db": 20.0},
        {"step": 6, "time/seconds": 8.0},
        {"step": 9, "time/seconds": 12.0},
    ]
    assert provenance.clock(rows) == {1: 10.0, 5: 30.0, 6: 38.0, 9: 42.0}


def test_cost_adds_up_over_sessions(tmp_path):
    path = tmp_path / "cost.json"
    path.write_text(json.dumps({"wall_minutes": 5.0, "core_minutes": 7.0}))
    total = provenance.Cost(path).add()
    assert total["core_minutes"] > 7.0
    assert 5.0 <= total["wall_minutes"] < 5.1
    assert json.loads(path.read_text()) == total


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Stored runs of the only study there is."""
    monkeypatch.setattr(studies, "names", lambda: ["trial"])
    monkeypatch.setattr(studies, "load", lambda name: STUDY)
    store(tmp_path / "trial" / "small")
    store(tmp_path / "trial" / "smoke")
    return tmp_path


README = "# A title\n\nText.\n\n## Use it\n\nMore.\n"


def test_the_block_is_made_of_stored_runs_and_of_nothing_else(results):
    text = tables.rewrite(README, results)
    block = tables.block(results)
    assert text == README.replace("## Use it", f"{block}\n\n## Use it")
    assert "- **confirmed**: Near is nearer than far." in block
    number = r"2\.60 \(2\.\d\d–\d\.\d\d\)"
    assert re.search(rf"^\| near \| {number} \| {number} \|$", block, re.MULTILINE)
    assert "| copy last | 7.50" in block
    assert block.count("### Study") == 1, "a smoke run is no result"
    assert tables.rewrite(text, results) == text, "again changes nothing"
    store(results / "trial" / "small", seeds=(0, 1))
    (results / "trial" / "small" / "near-2.json").unlink()
    changed = tables.rewrite(text, results)
    assert "**undecided**" in changed
    assert "**confirmed**" not in changed


def test_without_stored_runs_the_block_goes(results, tmp_path):
    full = tables.rewrite(README, results)
    assert tables.rewrite(full, tmp_path / "nothing") == README
    assert tables.rewrite(README, tmp_path / "nothing") == README


def test_a_broken_block_is_told(results):
    with pytest.raises(UserError, match="lost a marker"):
        tables.rewrite(README + tables.BEGIN, results)
    with pytest.raises(UserError, match="no line '## Use it'"):
        tables.rewrite("# Else\n", results)


def test_the_verb_rewrites_the_file_once(results, tmp_path, capsys):
    readme = tmp_path / "README.md"
    options = ["--tables", "--readme", str(readme), "--results", str(results)]
    with pytest.raises(UserError, match="there is no .*README.md"):
        cli.main(options)
    readme.write_text(README)
    assert cli.main([*options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"]
    assert readme.read_text() == tables.rewrite(README, results)
    assert cli.main(options) == 0
    assert "is as the stored runs say" in capsys.readouterr().out


def test_the_readme_says_what_the_stored_runs_say():
    assert tables.current((ROOT / "README.md").read_text()) == tables.block(plan.RESULTS)
