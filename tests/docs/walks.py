"""Which of the pages' commands are run on the embedded model, and how they are made cheap: `test_walks.py` runs them.

A command is run unless it needs what a reader brings (a model, pictures, an account), searches, trains, or draws
hundreds of pictures; each of these has its own tests (`snippets.REASONS`). What is run keeps the page's words, and gets
a closed form in the place of another method, and fewer pictures.
"""

from __future__ import annotations

from aizheimer._registry import METHODS
from tests.docs.snippets import COMMANDS, RUN, Block

BROUGHT = (
    "path/to/",
    "owner/",
    "somebody/",
    "checkpoints/",
    "photos",
    "drawings",
    "my-classifier",
    "people.yaml",
    "runs/*",
)
BROUGHT += ("runs/van-gogh", "runs/nudity")
"""What words begin with that name something a reader has, and this repository has not."""
ELSEWHERE = {"tune", "shrink", "plan", "bench", "studio", "push", "pull", "import"}
"""Searches, servers, what needs files of other programs."""
DRAWN = {"quantise", "seed-search", "sampler", "img2img", "inpaint", "noise-inversion"}
"""Attacks that only draw."""
CHEAP = {
    "evaluate": ["--samples", "8"],
    "attack": ["--images", "1", "--steps", "2", "--no-controls"],
    "generate": ["--steps", "2"],
    "interference": ["--images", "1", "--retained", "4", "--steps", "2"],
    "verify": ["--samples", "4"],
}


def left_out(words: list[str]) -> str:
    """Return why a command is not run on the embedded model; "" if it is."""
    if any(word.startswith(BROUGHT) for word in words):
        return "needs what a reader brings"
    if words[0] in ELSEWHERE:
        return "searches, serves, or needs other files"
    if words[0] == "forget" and any("=" in word and not word.startswith("-") for word in words[1:]):
        return "has parameters of a training"
    if words[0] == "evaluate" and {"--suite", "--workers"} & set(words):
        return "draws hundreds of pictures"
    if words[0] == "attack":
        attacks = {words[i + 1] for i, word in enumerate(words) if word == "--attack"}
        of_stack = attacks == {"stack"} and any(word.startswith(("method=uce", "edit=")) for word in words)
        return "" if attacks and (attacks <= DRAWN or of_stack) and "--all" not in words else "trains, or tries all"
    return ""


def cheaper(words: list[str]) -> list[str]:
    """Return the command as it is run: by UCE, with few pictures, over what an earlier page left."""
    words = [word for word in words if word != "--full"]
    if words[0] == "forget":
        for option in ("--method", "--recipe"):
            if option in words:
                assert words[words.index(option) + 1] in {*METHODS.names(), "aizheimer-paper"}
                words[words.index(option) + 1] = "uce"
        if not {"--method", "--recipe"} & set(words):
            words += ["--method", "uce"]
    if words[0] in {"forget", "stack"} and "--resume" not in words:
        words.append("--overwrite")
    return words + CHEAP.get(words[0], [])


WALK: list[tuple[Block, list[str]]] = [
    (block, words) for block, words in COMMANDS if not left_out(words) and "accelerate launch" not in block.body
]
PAGES_WALKED = list(dict.fromkeys(block.page for block, words in WALK if words[0] not in RUN))
