"""``aizheimer shrink`` as a user types it; the search itself is tested in tests/unit/tuning."""

import pytest


def test_a_model_that_nobody_can_judge_is_refused_and_nothing_is_left(cli, saved_tiny_pipeline, tmp_path):
    made = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--method", "uce", "--out", "run")
    assert made.code == 0, made.err
    done = cli("shrink", "run", "--require", "UA>=0.9", "--samples", 3)
    assert done.code == 2
    assert done.error.startswith("UA cannot be measured on this model")
    assert not (tmp_path / "home" / "run-small").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-run", "--require", "UA>=0.9"], "no-such-run holds no edit"),
        (["no-such-run", "--require", "UA>0.9"], "--require: got 'UA>0.9', wanted a figure, >= or <=, and a share"),
        (["no-such-run"], "Missing option '--require'"),
    ],
)
def test_mistakes_are_told(cli, words, said):
    done = cli("shrink", *words)
    assert done.code == 2
    assert done.error.startswith(said)
