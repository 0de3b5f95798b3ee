"""The figures that are kept of a leaderboard."""

import json

import leaderboard_losses


def test_each_part_of_each_method_is_kept(monkeypatch, tmp_path):
    whole = {"loss": 0.123456, "exact_match": 0.5, "rouge_l": 0.25, "intervals": {"loss": [0.1, 0.20004]}}
    methods = [
        {"name": "oracle", "in_distribution": whole, "held_out": {}},
        {"name": "broken", "error": "no such expert"},
    ]
    (tmp_path / "leaderboard.json").write_text(json.dumps({"methods": methods}))
    out = tmp_path / "kept.json"
    monkeypatch.setattr("sys.argv", ["leaderboard_losses.py", f"--board={tmp_path}", f"--out={out}"])
    leaderboard_losses.main()
    kept = {"loss": 0.1235, "interval": [0.1, 0.2], "exact_match": 0.5, "rouge_l": 0.25}
    assert json.loads(out.read_text())["methods"] == {"oracle": {"in_distribution": kept}, "broken": {}}
