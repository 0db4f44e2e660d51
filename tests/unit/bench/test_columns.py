"""Each number of a row has beside it what it must be read with: who judged, by what protocol, of how many, how sure."""

import json

import pytest

from aizheimer.bench.columns import evaluation_columns, trial_columns
from aizheimer.bench.table import tidy, write_parquet
from aizheimer.evaluation.calibration import calibrate_labels
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.proof.trials import Trials
from aizheimer.proof.units import FIGURES
from tests.unit.proof.builders import attack, distance, good, share, suite

CALIBRATION = calibrate_labels("Santa Claus", judge="j", shown=["Santa Claus"] * 9 + ["elf"], clean=["elf"] * 20)


@pytest.fixture
def row():
    quality = {"kid": distance(), "clip-score": distance(metric="clip-score", value=30.0, interval=(29.0, 31.0))}
    trials = Trials(
        suites={
            "quality": suite("quality", {"broken.retain": share(1, 100)}, distances=quality),
            "families": suite("families", {"ua.name": share(60, 60)}, calibration=CALIBRATION),
        },
        attacks={"relearn": attack("relearn", before=1, asr=4, n=20, details={"steps_to_recover": None}, steps=40)},
        refused={"safety": "no judge"},
    )
    return evaluation_columns(good(calibration=CALIBRATION)) | trial_columns(trials)


def test_every_share_has_its_judge_protocol_n_and_interval(row):
    shares = [*FIGURES, "quality.broken.retain", "families.ua.name", "asr.relearn"]
    for name in shares:
        beside = {f"{name}.{what}" for what in ("low", "high", "n", "judge", "protocol")}
        assert beside <= row.keys()
        assert None not in [row[column] for column in beside]
    assert row["ua.judge"] == good().ua.judge
    assert row["ua.protocol"] == good().ua.protocol


def test_every_ua_has_the_error_rates_of_its_judge(row):
    for name in ("ua", "families.ua"):
        assert row[f"{name}.false_negative"] == 0.1
        assert row[f"{name}.false_negative.low"] < 0.1 < row[f"{name}.false_negative.high"]
        assert (row[f"{name}.false_negative.n"], row[f"{name}.false_positive.n"]) == (10, 20)
        assert row[f"{name}.false_positive"] == 0
        assert row[f"{name}.false_positive.judge"] == "j"
    assert not [name for name in evaluation_columns(good()) if "false" in name], "files of before have none"


def test_a_distance_has_all_that_must_agree_and_its_interval_where_there_is_one(row):
    assert (row["quality.kid"], row["quality.kid.original"]) == (0.0123, 0.0045)
    assert {name: row[f"quality.kid.{name}"] for name in MUST_AGREE} == distance().model_dump(include=set(MUST_AGREE))
    assert "quality.kid.low" not in row
    assert (row["quality.clip-score.low"], row["quality.clip-score.high"]) == (29.0, 31.0)


def test_an_attack_says_what_it_was(row):
    assert (row["asr.relearn"], row["asr.relearn.n"], row["asr.relearn.before"]) == (0.2, 20, 0.05)
    assert (row["asr.relearn.attack"], row["asr.relearn.judge"]) == ("relearn", "judge")
    assert json.loads(row["asr.relearn.parameters"]) == {"tries": 8}
    assert row["refused"] == "safety: no judge"


@pytest.mark.parametrize(("needed", "survived"), [(5, 5), (None, 40)])
def test_a_row_says_how_many_steps_an_edit_survived(needed, survived):
    found = attack("relearn", steps=40, details={"steps_to_recover": needed})
    row = trial_columns(Trials(attacks={"relearn": found}))
    assert row["asr.relearn.steps_to_recover"] == needed
    assert row["asr.relearn.steps_survived"] == survived


def test_one_value_in_each_column_and_parquet_keeps_it(row, tmp_path):
    assert all(isinstance(value, (str, int, float, bool, type(None))) for value in row.values())
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")
    rows = tidy([{"method": "a", **row}, {"method": "b"}])
    assert parquet.read_table(write_parquet(tmp_path / "x.parquet", rows)).to_pylist() == rows
