"""The card of a model says what it was trained on, how it was judged and what it cannot do."""

import json

from wm_jax import config as configs
from wm_jax import model_card


def test_card_says_data_size_scores_and_limits(tmp_path):
    config = configs.base_config().to_dict()
    config["data"] |= {"directory": str(tmp_path), "window": 32}
    config["train"]["batch_size"] = 8
    assert "Not evaluated yet" in model_card.from_run(tmp_path, config, 100, 1234)
    plan = {"world": "twins:motion", "version": "1.0.0", "seed": 3, "scenes": {"train": 9}}
    (tmp_path / "build.json").write_text(json.dumps({"plan": plan}))
    row = {"suite": "pixel", "metric": "psnr", "unit": "dB", "split": "test", "n": 8, "seed": 0}
    row |= {"control": None, "intervention": None}
    rows = [
        row | {"model": m, "step": s, "value": v + s, "low": v + s - 1, "high": v + s + 1}
        for m, v in (("default", 20), ("copy_last", 10))
        for s in (1, 2, 5)
    ]
    rows.append(row | {"model": "default", "step": 1, "value": 99.0, "control": "copy_last"})
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/pixel.json").write_text(json.dumps({"protocol": {}, "rows": rows}))
    card = model_card.from_run(tmp_path, config, 100, 1234)
    assert "twins:motion` at 64 px, version 1.0.0, seed 3: 9 train scenes" in card
    assert "psnr (dB), test split" in card
    assert "| model | 1 | 5 |" in card
    assert "| copy_last | 11.00 (10.00–12.00) | 15.00 (14.00–16.00) |" in card
    assert "99.00" not in card
    assert "1,234 parameters" in card
    assert "100 updates of 8 windows of 32 frames" in card
    assert "## Limits" in card
