"""The table and the picture of attacks."""

import numpy as np
import pytest

from aizheimer.attacks.base import AttackSettings, Outcome, Spent
from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.attacks.run import AttackRun, Sight
from aizheimer.evaluation.generate import PromptJob
from aizheimer.reports.attacks import SEEN, SHOWN, attack_picture, attack_rows, attack_table, notes


def rate(share, n=4):
    return Rate.of(np.arange(n) < share * n, seed=0)


def result_of(**fields):
    values = {
        "attack": "relearn", "parameters": {}, "target": "cat", "kind": "object", "access": "white box",
        "before": rate(0), "alone": rate(0.5), "asr": rate(0.5), "unedited": rate(1), "random": None,
        "spent": Spent(steps=40, denoiser_evaluations=9, queries=12, seconds=3.2), "judge": "a judge",
        "settings": AttackSettings(), "guidance": 5.0,
    }  # fmt: skip
    return AttackResult(**values | fields)


def run_of(count):
    jobs = [PromptJob(f"a cat in noto style, number {i}", i) for i in range(count)]
    sights = [
        Sight(images=np.full((count, 16, 16, 3), value, np.uint8), seen=np.arange(count) < seen)
        for value, seen in ((60, 0), (120, 1), (180, count))
    ]
    before, attacked, unedited = sights
    return AttackRun(
        result=result_of(), jobs=jobs, before=before, attacked=attacked, unedited=unedited,
        outcome=Outcome(images=attacked.images),
    )  # fmt: skip


def test_a_row_says_before_asr_controls_and_cost():
    (row,) = attack_rows([result_of(neighbour=rate(0.25), neighbour_words="dog")])
    assert row[:3] == ("relearn", "0%", "50%")
    assert row[4:] == ("100%", "25%", "-", "40 steps, 12 judged, 3 s")


def test_the_table_tells_warnings_once_and_what_was_found():
    results = [
        result_of(warnings=["mind this"], details={"steps_to_recover": 5}),
        result_of(attack="img2img", warnings=["mind this"], details={"without_words": 0.25}),
    ]
    table = attack_table(results)
    assert table.caption.splitlines() == [
        "mind this",
        "relearn: recovered after 5 steps",
        "img2img: 25% with the empty prompt, which the start gives by itself",
    ]
    assert [column.header for column in table.columns][1:3] == ["before", "ASR"]


def test_what_was_not_recovered_says_how_far_it_was_tried():
    assert notes([result_of(details={"steps_to_recover": None})]) == ["relearn: not recovered within 40 steps"]


@pytest.mark.parametrize("count", [1, 3, SHOWN + 3])
def test_the_picture_frames_what_the_judge_sees(count):
    picture = attack_picture(run_of(count), edge=64)
    pixels = np.asarray(picture)
    red = (pixels == SEEN).all(axis=-1)
    shown = min(count, SHOWN)
    # One frame in the row of the attack, one a picture in the unedited row; a frame is a ring of 5 pixels.
    ring = 64 * 64 - 54 * 54
    frames = red[pixels.shape[0] - 24 - 3 * 64 - 2 * 6 :]
    assert frames.sum() == ring * (1 + shown)
    assert {60, 120, 180} <= set(pixels[..., 0][(pixels[..., 0] == pixels[..., 1])].tolist())


def test_a_result_is_called_by_its_label():
    full = result_of(label="relearn-full", details={"steps_to_recover": 5})
    assert [row[0] for row in attack_rows([result_of(), full])] == ["relearn", "relearn-full"]
    assert notes([full]) == ["relearn-full: recovered after 5 steps"]
