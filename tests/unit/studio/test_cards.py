"""What the page shows: every state of every job, and nothing that anybody typed as markup."""

import pytest

from aizheimer.errors import InputError
from aizheimer.studio.cards import KINDS, card, message, now_card
from aizheimer.studio.forms import AttackForm, ExportForm, ForgetForm, StackForm, TryForm, filled
from aizheimer.studio.jobs import JobView

EVIL = "<script>alert(1)</script>\"'"
SHEET = {"prompts": [EVIL, "cat"], "before": ["a.png", "b.png"], "now": ["c.png", "d.png"], "step": 30}
HISTORY = [
    {"event": "monitor", "step": step, "steps": 60, "mass_ratio": 1 - step / 100, "retention_drift": step / 1000}
    for step in (0, 15, 30)
]
FORGOT = {"run": "santa", "concept": EVIL, "method": "uce", "strength": 1.0, "tensors": 32, "bytes": 9000}
FORGOT |= {"stopped": "", "step": 0}
FIGURES = [{"name": EVIL, "edited": "1%", "interval": "", "original": "2%", "n": "3", "meaning": EVIL}]
RESULTS = {
    "forget": FORGOT,
    "try": {"prompt": EVIL, "seed": 1, "strength": 1.0, "run": "santa", "before": "a.png", "after": "b.png"},
    "attention": {"run": "santa", "maps": [{"word": EVIL, "before": "a.png", "after": "b.png", "mass": [0.2, 0.05]}]},
    "evaluate": {
        **{"run": "santa", "headline": EVIL, "figures": FIGURES, "warnings": [EVIL]},
        "neighbours": [{"label": EVIL, "edited": "1%", "original": "2%"}],
    },
    "attack": {"run": "santa", "attack": EVIL, "figures": {"ASR": EVIL}, "picture": "a.png", "warnings": [EVIL]},
    "stack": {"run": "pets", "does": f"forget {EVIL}", "parts": [[EVIL, 0.5]]},
    "export": {
        **{"run": "santa", "file": "santa.safetensors", "bytes": 2_000_000, "format": "delta", "error": 0.25},
        **{"exact": False, "left_out": 2, "summary": EVIL, "load": EVIL},
    },
}


def view(kind="forget", **options):
    return JobView(**{"id": "x", "kind": kind, "title": f"Doing {EVIL}", **options})


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_typed_is_markup(kind):
    notes = {"sheet": SHEET, "history": HISTORY, "kept": [EVIL], "solved": {"residual": 0.15, "drift": 0.012}}
    shown = [
        card(kind, view(kind, state="done", result=RESULTS[kind], notes=notes)),
        card(kind, view(kind, state="failed", error=EVIL)),
        card(kind, view(kind, state="stopped")),
        card(kind, view(kind, state="running", notes=notes, stage=EVIL)),
        now_card([view(kind, state="running", stage=EVIL, done=1, total=3)]),
        now_card([view(kind)]),
        message(EVIL),
    ]
    assert "&lt;script&gt;" in "".join(shown)
    assert not any("<script" in text or "alert(1)</" in text for text in shown)


def test_the_curves_and_the_sheet_move_while_it_trains():
    notes = {"sheet": SHEET, "history": HISTORY}
    shown = card("forget", view(state="running", notes=notes))
    assert "Attention on the target" in shown
    assert "Drift of what is kept" in shown
    assert shown.count("<svg") == 2
    assert 'src="/studio/pictures/c.png?v=30now"' in shown
    assert "at step 30" in shown
    later = card("forget", view(state="running", notes={**notes, "sheet": {**SHEET, "step": 45}}))
    assert 'src="/studio/pictures/c.png?v=45now"' in later


def test_the_end_says_what_was_kept():
    for stopped, words in (("asked", "You stopped it"), ("drift", "The guard went back"), ("", "32 tensors")):
        shown = card("forget", view(state="done", result={**FORGOT, "stopped": stopped, "step": 20}))
        assert words in shown
    assert "and no weights" in card("forget", view(state="done", result={**FORGOT, "tensors": 0}))


def test_what_runs_comes_before_what_waits():
    running, waiting = view(state="running", title="first", total=4, done=1), view(title="second", ahead=1)
    shown = now_card([waiting, running])
    assert "first" in shown
    assert "1 of 4" in shown
    assert "1 more in the queue" in shown
    assert 'aria-valuenow="1"' in shown
    assert "1 job first" in now_card([waiting])
    assert "Ready" in now_card([view(state="done")])
    assert "stopping" in now_card([view(state="running", stopping=True)])


def test_a_form_says_all_that_is_wrong_with_it():
    with pytest.raises(InputError, match=r"concept: nothing is there yet; seed: .*greater than or equal to 0"):
        filled(ForgetForm, {"model": "emoji", "concept": "  ", "seed": -1})
    with pytest.raises(InputError, match="concept: nothing"):
        filled(ForgetForm, {"model": "emoji"})


@pytest.mark.parametrize(
    ("form", "values"),
    [
        (ForgetForm, {"model": "emoji", "concept": "x" * 81}),
        (ForgetForm, {"model": "emoji", "concept": "x", "keep": ["y"] * 25}),
        (ForgetForm, {"model": "emoji", "concept": "x", "keep": ["y" * 81]}),
        (ForgetForm, {"model": "emoji", "concept": "x", "strength": float("nan")}),
        (ForgetForm, {"model": "emoji", "concept": "x", "steps": 10**9}),
        (ForgetForm, {"model": "emoji", "concept": "x", "images": "/etc"}),
        (TryForm, {"run": "r", "prompt": "x" * 301}),
        (TryForm, {"run": "r", "prompt": "x", "words": ["w"] * 7}),
        (AttackForm, {"run": "r", "attack": "a", "images": 10**6}),
        (StackForm, {"parts": [("a", 99.0)]}),
        (ExportForm, {"run": "r", "rank": 0}),
        (ExportForm, {"run": "r", "out": "/etc/x"}),
    ],
)
def test_a_form_takes_no_more_than_it_says(form, values):
    with pytest.raises(InputError):
        filled(form, values)


@pytest.mark.parametrize(("sent", "steps"), [(0, None), (None, None), (60, 60)])
def test_a_field_of_steps_that_was_left_alone_means_the_methods_own(sent, steps):
    assert filled(ForgetForm, {"model": "emoji", "concept": "x", "steps": sent}).steps == steps
