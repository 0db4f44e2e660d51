"""``aizheimer tune`` as a user types it; the search itself is tested in tests/unit/tuning."""

import json

import pytest


def test_a_model_that_nobody_can_judge_is_refused(cli, saved_tiny_pipeline):
    done = cli("tune", "santa claus", "--model", saved_tiny_pipeline, "--method", "uce", "--require", "UA>=0.9",
               "--samples", 3, "--cheap", 0, "--out", "run")  # fmt: skip
    assert done.code == 2
    assert done.error.startswith("UA and IRA drop cannot be measured on this model")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--require", "UA>0.9"],
            "--require: got 'UA>0.9', wanted a figure, >= or <=, and a share, such as 'UA>=0.95'.",
        ),
        (["--require", "UA>=1", "--minimise", "IRA"], ""),
        (["--require", "UA>=1", "--minimise", "size"], "--minimise: got 'size', wanted one of ua, ira, cra"),
        (["--require", "UA>=1", "--search", "residual=1"], "--search: got 'residual=1', wanted a key and its range"),
        ([], "Missing option '--require'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(cli, words, said):
    done = cli("tune", "cat", "--model", "no-such-model", *words)
    assert done.code == 2
    assert done.error.startswith(said)
    assert ("no-such-model" in done.error) == (not said)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_finds_an_edit_of_the_model_that_ships(cli):
    done = cli("tune", "penguin", "--method", "uce", "--require", "UA>=0.7", "--search", "strength=0.9..1.2",
               "--trials", 1, "--samples", 6, "--cheap", 0, "--out", "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["chosen"] == 0
    assert found["confirmations"][-1]["values"]["ua"] >= 0.7
    assert 0.9 <= found["settings"]["strength"] <= 1.2
