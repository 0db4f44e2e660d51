"""The script that measures shared weights, as far as one process goes; tests/contracts/test_sharded.py has two."""

import json
import sys


def test_keys_and_values_learn_and_the_step_is_measured(script, tmp_path, monkeypatch, capsys):
    script = script("sharded_weights")
    network = script.network(tiny=True)
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert len(learning) == 32
    assert all("attn2.to_k" in name or "attn2.to_v" in name for name in learning)
    monkeypatch.setattr(sys, "argv", ["x", "--tiny", "--size", "16", "--output", str(tmp_path / "found.json")])
    script.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["gib"]["whole"]["parameters"] == found["parameters"] * 4 / 2**30
    assert found["gib"]["whole"]["highest"] >= found["gib"]["whole"]["before"] > 0
    assert found["gradients_apart"] < 1e-5
    assert str(found) in capsys.readouterr().out
