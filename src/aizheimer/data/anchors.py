"""What a forget prompt asks for once the concept is gone, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention

EmptyAnchor = Literal["auto", "null", "template"]


def anchor_prompts(prompts: Sequence[str], concept: Concept, *, empty: EmptyAnchor = "auto") -> list[str]:
    """Return each prompt with the concept's anchor in the concept's place.

    Args:
        prompts: Forget prompts.
        concept: Names target and anchor.
        empty: What to do when it names no anchor. ``null`` is the empty prompt, which every model was trained on;
            ``template`` leaves the words of the concept out of the prompt, which keeps the rest of it; ``auto`` is null
            for an object and template for a style, whose prompts must keep their subject.

    Example:
        >>> anchor_prompts(["Santa Claus in noto style"], Concept("santa claus", anchor="old man"))
        ['old man in noto style']
        >>> anchor_prompts(["Santa Claus in noto style"], Concept("santa claus"), empty="template")
        ['in noto style']
    """
    if not concept.anchor and (empty == "null" or (empty == "auto" and concept.kind == "object")):
        return [""] * len(prompts)
    target = mention(concept.target)
    return [" ".join(target.sub(lambda _: concept.anchor, prompt).split()) for prompt in prompts]
