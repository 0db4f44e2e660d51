"""The live view: what a terminal shows, and what a log gets."""

import io

import pytest
from rich.console import Console

from aizheimer.cli import live

DATA = {
    "forget_prompts": ["a", "b"],
    "retain_prompts": ["c"],
    "neighbours": [["Mrs. [bold]Claus[/bold]", 0.912], ["old man", 0.5]],
    "kept": ["cat"],
    "layers": ["down", "mid_block.attn2", "up"],
    "parameters": ["mid_block.attn2.to_k.weight"],
}


def monitor(step, mass, drift):
    return {"step": step, "steps": 20, "attention_mass": mass, "mass_ratio": mass / 0.4, "retention_drift": drift}


def text_of(renderable) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


def test_the_neighbours_are_named_with_their_similarity():
    lines = live.describe_data(DATA)
    assert lines == [
        "keeping    cat (asked for)",
        "keeping    Mrs. [bold]Claus[/bold] 0.91, old man 0.50 (nearest, by cosine)",
        "editing    1 tensor in 3 attention layers, on 2 prompts to forget and 1 to retain",
    ]


@pytest.mark.parametrize(
    ("kind", "row", "line"),
    [
        ("closed form", DATA, "solving    1 tensor in 3 attention layers, on 2 prompts to forget and 1 to retain"),
        (
            "fine-tune",
            DATA | {"parameters": ["mid_block.attn2.to_k.weight", "conv_in.weight"]},
            "editing    2 tensors of the denoiser, on 2 prompts to forget and 1 to retain",
        ),
        ("runtime", {}, "runtime    nothing is trained; the edit acts while pictures are drawn"),
        (
            "runtime",
            {"layers": ["mid"]},
            "runtime    nothing is trained; the edit acts while pictures are drawn, in 1 attention layer",
        ),
    ],
)
def test_what_is_done_depends_on_the_kind_of_method(capsys, kind, row, line):
    assert live.describe_data(row, kind=kind)[-1] == line
    with live.training_view("forgetting", kind=kind) as callbacks:
        callbacks.on_data(row)
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_a_method_shows_what_it_watches_and_no_more():
    view = live.CurvesView("forgetting")
    for step, error in enumerate([1.0, 0.25]):
        row = {"step": step, "steps": 1, "erase_error": error, "mass_ratio": None, "retention_drift": step / 10}
        view.on_monitor(row)
    assert live.describe_monitor(row) == "step 1/1  distance to the target 0.2500  retention drift 0.1000"
    shown = text_of(view.render())
    assert "distance to the target  0.2500  █▁" in shown
    assert "attention mass" not in shown


def test_a_text_encoder_has_no_attention_layers_to_count():
    (*_, line) = live.describe_data(DATA | {"network": "text_encoder", "layers": []})
    assert line == "editing    1 tensor of the text encoder, on 2 prompts to forget and 1 to retain"


def test_many_neighbours_are_counted_after_the_first_dozen():
    (line, _) = live.describe_data({"neighbours": [(f"n{i}", 0.1) for i in range(15)]})
    assert "n11 0.10 and 3 more" in line
    assert "n12" not in line


def test_without_a_terminal_each_event_is_a_plain_line(capsys):
    with live.training_view("forgetting") as callbacks:
        callbacks.on_progress("forget", 0, 8)
        callbacks.on_progress("forget", 4, 8)
        callbacks.on_data(DATA)
        callbacks.on_step({"step": 1, "steps": 20, "loss": 1.0})
        callbacks.on_monitor(monitor(10, 0.1, 0.02))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "forgetting",
        "preparing  pictures to forget (8)",
        *live.describe_data(DATA),
        "step 10/20  attention mass 0.1000 (25% of its start)  retention drift 0.0200",
    ]


def test_a_terminal_shows_bars_and_both_curves():
    view = live.CurvesView()
    view.on_progress("forget", 8, 8)
    view.on_step({"step": 10, "steps": 20, "loss": 0.125})
    for step, (mass, drift) in enumerate([(0.4, 0.0), (0.2, 0.01), (0.1, 0.02)]):
        view.on_monitor(monitor(step, mass, drift))
    shown = text_of(view.render())
    assert "10/20" in shown
    assert "loss 0.1250" in shown
    assert "attention mass" in shown
    assert "0.1000" in shown
    assert "█▃▁" in shown
    assert "25% of its start" in shown
    assert "retention drift" in shown
    assert "▁▅█" in shown


@pytest.mark.parametrize("marked", ["[red]x[/red]", "[/]"])
def test_a_stage_is_never_read_as_markup(marked):
    view = live.CurvesView()
    view.on_progress(marked, 1, 2)
    assert marked in text_of(view.render())


def test_on_a_terminal_the_view_survives_a_whole_run(monkeypatch):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, highlight=False, markup=False)
    monkeypatch.setattr(live, "progress_console", lambda: console)
    with live.training_view("forgetting") as callbacks:
        callbacks.on_data(DATA)
        callbacks.on_step({"step": 20, "steps": 20, "loss": 1.0})
        callbacks.on_monitor(monitor(20, 0.04, 0.02))
    shown = console.file.getvalue()
    assert "Mrs. [bold]Claus[/bold] 0.91" in shown
    assert "10% of its start" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_the_title_waits_for_the_first_event(monkeypatch, capsys, terminal):
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, highlight=False, markup=False)
    monkeypatch.setattr(live, "progress_console", lambda: console)
    with pytest.raises(ValueError, match="bad input"), live.training_view("forgetting"):
        raise ValueError("bad input")
    assert "forgetting" not in console.file.getvalue() + capsys.readouterr().err
    with live.training_view("forgetting") as callbacks:
        callbacks.on_progress("forget", 1, 1)
    assert "forgetting" in console.file.getvalue() + capsys.readouterr().err


def test_progress_bars_say_each_stage_once_in_a_log(capsys):
    with live.progress_bar() as advance:
        for done in range(3):
            advance("drawing", done, 2)
    assert capsys.readouterr().err == "preparing  drawing (2)\n"
