"""The page: what stands where. Gradio draws it; what its buttons do is in `wiring`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from aizheimer._imports import require
from aizheimer.studio.cards import card, now_card
from aizheimer.studio.choices import FIRST, attacks, method_note, methods
from aizheimer.studio.chosen import STACKED
from aizheimer.studio.forms import BOXES, MOST_KEPT, STRONGEST
from aizheimer.studio.orders import Studio
from aizheimer.studio.uploads import SUFFIXES

TITLE = "aizheimer studio"
FORMATS = ("lora-kohya", "lora-peft", "delta", "diffusers", "single-file", "text-encoder")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The page's components, by what they are for. They are Gradio's, of which nothing here knows the types."""

    now: Any
    stop: Any
    edit: Any
    forget: dict[str, Any]
    try_: dict[str, Any]
    measure: dict[str, Any]
    combine: dict[str, Any]
    export: dict[str, Any]
    timer: Any


def build_page(studio: Studio) -> Any:
    """Return the page as Gradio's ``Blocks``, wired to a studio.

    Raises:
        MissingDependencyError: Gradio is not installed.
    """
    from aizheimer.studio.wiring import wire

    gr = require("gradio", extra="studio")
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(
            f'<header class="az-head"><h1>{TITLE}</h1>'
            "<span>make a model forget a concept, and see what it cost</span></header>"
        )
        with gr.Row(elem_classes="az-top"):
            now = gr.HTML(now_card([]), elem_id="now", min_width=300)
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop", scale=0, min_width=110)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Forget", id="forget"):
                forget = _forget(gr, studio)
            with gr.Tab("Compare", id="compare"):
                try_ = _try(gr)
            with gr.Tab("Measure", id="measure"):
                measure = _measure(gr)
            with gr.Tab("Combine", id="combine"):
                combine = _combine(gr)
            with gr.Tab("Export", id="export"):
                export = _export(gr)
        edits = [try_["run"], measure["run"], export["run"]]
        parts = Parts(
            now=now,
            stop=stop,
            edit=edits,
            forget=forget,
            try_=try_,
            measure=measure,
            combine=combine,
            export=export,
            timer=gr.Timer(1.0),
        )
        wire(gr, blocks, studio, parts)
    return blocks


def look(gr: Any) -> dict[str, Any]:
    """Return the page's colours, fonts and style, as Gradio takes them; nothing is fetched from elsewhere."""
    font = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    theme = gr.themes.Base(primary_hue="teal", secondary_hue="teal", neutral_hue="stone", font=font, font_mono=mono)
    css = resources.files("aizheimer.studio").joinpath("page.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": css}


def _forget(gr: Any, studio: Studio) -> dict[str, Any]:
    names = list(studio.shelf.names)
    found: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            found["model"] = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            found["concept"] = gr.Textbox(
                label="Concept to forget", placeholder="Santa Claus", max_length=80, elem_id="concept"
            )
            found["keep"] = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                allow_custom_value=True,
                max_choices=MOST_KEPT,
                label="Keep",
                info="The nearest concepts suffer first. Remove some, or type others.",
                elem_id="keep",
            )
            found["method"] = gr.Dropdown(methods(), value=FIRST[0], label="Method", elem_id="method")
            found["note"] = gr.HTML(_note(method_note(FIRST[0])))
            found["strength"] = gr.Slider(0.1, STRONGEST, value=1.0, step=0.05, label="Strength", elem_id="strength")
            with gr.Accordion("More", open=False, elem_id="more"):
                found["anchor"] = gr.Textbox(
                    label="In its place", placeholder="nothing in particular", max_length=80, elem_id="anchor"
                )
                with gr.Row():
                    found["steps"] = gr.Number(
                        label="Steps (0: its own)",
                        value=0,
                        precision=0,
                        minimum=0,
                        maximum=5000,
                        min_width=120,
                        elem_id="steps",
                    )
                    found["seed"] = gr.Number(label="Seed", value=0, precision=0, minimum=0, min_width=120)
                found["pictures"] = gr.File(
                    label="Pictures, if the method wants them",
                    file_count="multiple",
                    file_types=list(SUFFIXES),
                    height=120,
                    elem_id="pictures",
                )
            found["start"] = gr.Button("Forget", variant="primary", size="lg", elem_id="start")
        with gr.Column(scale=7, min_width=320):
            found["card"] = gr.HTML(card("forget", None), elem_id="forget-card")
    return found


def _note(text: str) -> str:
    from aizheimer.studio.cards import message

    return f'<p class="az-method">{message(text)}</p>'


def _edit(gr: Any) -> Any:
    return gr.Dropdown([], label="Edit", info="Your edits, the newest first.", elem_classes="az-edit")


def _try(gr: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            found["run"] = _edit(gr)
            found["prompt"] = gr.Textbox(
                label="Prompt", placeholder="Santa Claus in noto style", lines=2, max_length=300, elem_id="prompt"
            )
            with gr.Row():
                found["seed"] = gr.Number(label="Seed", value=0, precision=0, minimum=0, min_width=120)
                found["strength"] = gr.Slider(0, STRONGEST, value=1.0, step=0.05, label="Strength", min_width=180)
            found["draw"] = gr.Button("Draw with both", variant="primary", elem_id="draw")
            with gr.Accordion("Attention by word", open=False, elem_id="by-word"):
                found["words"] = gr.Textbox(
                    label="Words of the prompt",
                    placeholder="Santa Claus, style",
                    info="Up to six, with commas between.",
                    max_length=300,
                    elem_id="words",
                )
                found["look"] = gr.Button("Show where it looks", elem_id="look")
        with gr.Column(scale=7, min_width=320):
            found["slider"] = gr.ImageSlider(
                label="Before and after",
                show_label=False,
                buttons=["fullscreen"],
                visible=False,
                max_height=560,
                elem_id="slider",
                elem_classes="az-slider",
            )
            found["card"] = gr.HTML(card("try", None), elem_id="try-card")
            found["maps"] = gr.HTML("", elem_id="attention-card")
    return found


def _measure(gr: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"run": _edit(gr)}
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            found["samples"] = gr.Slider(
                8, 200, value=40, step=1, label="Pictures to draw", info="More are slower and surer.", elem_id="samples"
            )
            found["evaluate"] = gr.Button("Evaluate", variant="primary", elem_id="evaluate")
            found["evaluated"] = gr.HTML("", elem_id="evaluate-card")
        with gr.Column(min_width=320):
            with gr.Row():
                found["attack"] = gr.Dropdown(
                    attacks(), value="seed-search", label="Attack", min_width=180, elem_id="attack"
                )
                found["images"] = gr.Slider(4, 40, value=10, step=1, label="Pictures", min_width=180, elem_id="images")
            found["controls"] = gr.Checkbox(
                True, label="Also attack the unedited model, and by chance", elem_id="controls"
            )
            found["go"] = gr.Button("Bring it back", elem_id="go-attack")
            found["attacked"] = gr.HTML("", elem_id="attack-card")
    return found


def _combine(gr: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["empty"] = gr.HTML('<div class="az-empty"><p>Your edits will be here, each with a slider.</p></div>')
    found["chosen"] = gr.Dropdown(
        [],
        value=[],
        multiselect=True,
        max_choices=STACKED,
        label="Edits to add up",
        info=f"Up to {STACKED} at once: the newest, until you choose others.",
        visible=False,
        elem_id="chosen",
    )
    found["sliders"] = [
        gr.Slider(-1.0, STRONGEST, value=0.0, step=0.05, label="edit", visible=False, elem_id=f"part-{number}")
        for number in range(STACKED)
    ]
    found["names"] = gr.State([])
    found["add"] = gr.Button("Add them up", variant="primary", visible=False, elem_id="add")
    found["card"] = gr.HTML("", elem_id="stack-card")
    return found


def _export(gr: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            found["run"] = _edit(gr)
            found["format"] = gr.Dropdown(list(FORMATS), value=FORMATS[0], label="Format", elem_id="format")
            with gr.Row():
                found["rank"] = gr.Slider(1, 128, value=32, step=1, label="Rank", min_width=180)
                found["strength"] = gr.Slider(0.05, STRONGEST, value=1.0, step=0.05, label="Strength", min_width=180)
            for option, label in BOXES.items():
                found[option] = gr.Checkbox(False, label=label, elem_id=option)
            found["write"] = gr.Button("Export", variant="primary", elem_id="write")
            with gr.Accordion("Delete this edit", open=False):
                found["delete"] = gr.Button("Delete it for good", variant="stop", size="sm", elem_id="delete")
        with gr.Column(scale=7, min_width=320):
            found["card"] = gr.HTML("", elem_id="export-card")
    return found
