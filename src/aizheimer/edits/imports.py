"""Make an edit of what another program saved: erased models, parts of them, and LoRAs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.foreign import Foreign, read_foreign
from aizheimer.edits.hook import Hook
from aizheimer.edits.hooks.spm import SPMHook
from aizheimer.edits.original_text import by_transformers_names
from aizheimer.edits.places import Placed, place
from aizheimer.edits.provenance import ConceptRecord, Provenance, base_name, text_fingerprints
from aizheimer.errors import EditError

Gate = Literal["auto", "both", "embedding", "tokens", "none"]
"""How a LoRA acts: "none" on all prompts alike, "auto" as SPM's gate if the file is an SPM's."""
METHOD = "imported"
"""Method of an edit whose maker is not known."""
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was found in a file, and what of it is another value than the base's.

    Args:
        kind: What the file is.
        matched: Tensors that have a place in the base.
        unmatched: Names of those that have none.
        elsewhere: Tensors of what no edit changes: an autoencoder, an optimiser, a schedule.
        changed: Parameters whose value is another than the base's.
        unchanged: Parameters that are the base's own, to the precision of the file.
        largest: The parameter that changed most, and by which share of its norm.
    """

    kind: str
    matched: int
    unmatched: tuple[str, ...]
    elsewhere: int
    changed: int
    unchanged: int
    largest: tuple[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, with no more than a few of the unmatched names."""
        names, more = list(self.unmatched[:_SHOWN]), len(self.unmatched) - _SHOWN
        return {
            "kind": self.kind,
            "matched": self.matched,
            "unmatched": names + ([f"and {more} more"] if more > 0 else []),
            "elsewhere": self.elsewhere,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "largest": {"name": self.largest[0], "relative": self.largest[1]},
        }


def import_edit(
    path: str | Path,
    backbone: Backbone,
    concept: Concept,
    *,
    method: str = METHOD,
    gate: Gate = "auto",
) -> tuple[Edit, ImportReport]:
    """Read an erased model, a part of one or a LoRA as an edit of its base.

    Args:
        path: A file or folder, see `aizheimer.edits.foreign.read_foreign`; pickles are read without running them.
        backbone: The base it was made from, which is not changed.
        concept: What it forgets.
        method: What made it, for the record.
        gate: How a LoRA acts; see `Gate`.

    Returns:
        The edit, and what was found.

    Raises:
        EditError: If the file cannot be read, has nothing that fits the base, holds NaN, or changes nothing.

    Example:
        >>> edit, report = import_edit("esd-van-gogh.pt", backbone, Concept("Van Gogh"))  # doctest: +SKIP
        >>> report.changed, report.unmatched  # doctest: +SKIP
        (32, ())
    """
    foreign = read_foreign(path, parts=tuple(backbone.networks))
    foreign = dataclasses.replace(foreign, tensors=by_transformers_names(foreign.tensors))
    placed = place(foreign.tensors, backbone.networks)
    base = base_name(backbone.pipe.name_or_path) or "the base"
    _check_matched(foreign, placed, backbone, base=base)
    words = spm_words(foreign.metadata)
    chosen = ("both" if words else "none") if gate == "auto" else gate
    hook = _spm(placed, words or (concept.target,), gate=chosen) if chosen != "none" else None
    deltas, unchanged = _deltas(foreign, placed, backbone, products=hook is None)
    if not deltas and hook is None:
        raise EditError(
            f"{foreign.path}: {len(placed.matched)} tensors have a place in {base} and none is another than there; it "
            "is the unedited model, or a conversion that kept its weights: get the edited ones"
        )
    report = _report(foreign, placed, deltas, backbone, unchanged=unchanged, hook=hook)
    texts = None if hook is not None else {name.partition(".")[0] for name in deltas}
    provenance = Provenance(
        method=method,
        concept=ConceptRecord.of(concept),
        base_fingerprint=backbone.fingerprint(),
        **text_fingerprints(backbone.networks, texts),
        base_name=base_name(backbone.pipe.name_or_path),
        extra={"imported": {"file": foreign.path.name, "sha256": foreign.sha256, **report.as_json()}},
    )
    return Edit(deltas, provenance, hook), report


def spm_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the concepts of an SPM by its file's header, nothing for any other file.

    SPM's trainer writes the concepts with rank and alpha; LECO's, from which it comes, writes whole settings as JSON.

    Example:
        >>> spm_words({"prompts": "Van Gogh,Monet", "rank": "1", "alpha": "1.0"})
        ('Van Gogh', 'Monet')
    """
    if not {"prompts", "rank", "alpha"} <= metadata.keys() or "{" in metadata["prompts"]:
        return ()
    return tuple(words.strip() for words in metadata["prompts"].split(",") if words.strip())


def _check_matched(foreign: Foreign, placed: Placed, backbone: Backbone, *, base: str) -> None:
    if not placed.matched:
        theirs = (placed.unmatched or list(foreign.tensors))[0]
        ours = next(name for name, _ in backbone.denoiser.named_parameters())
        raise EditError(
            f"{foreign.path}: none of its {len(foreign.tensors)} tensors has a place in {base}: it has "
            f"'{theirs}', the base has '{ours}'; name the base it was made from"
        )
    for name in placed.matched:
        if not bool(foreign.tensors[name].float().isfinite().all()):  # 8-bit floats have no isfinite of their own
            raise EditError(f"{foreign.path}: '{name}' holds NaN or infinity; the file is damaged, download it again")


def _spm(placed: Placed, words: tuple[str, ...], *, gate: str) -> Hook:
    """Return the adapters of an SPM, which their gate lets act; our adapters have an alpha of 1."""
    if placed.values or not placed.products:
        raise EditError("a gate is for a LoRA, and this file holds weights; import it with the gate 'none'")
    adapters: dict[str, Tensor] = {}
    for layer, (down, up, scale) in placed.products.items():
        part, _, name = layer.partition(".")
        if part != "unet" or down[0].numel() != down.shape[1]:
            raise EditError(
                f"a gate is for linear layers and 1 x 1 convolutions of the UNet, this LoRA has '{layer}'; import it "
                "with the gate 'none'"
            )
        adapters[f"{name}.down"] = down.flatten(1)
        adapters[f"{name}.up"] = up.flatten(1) * (scale * len(down))
    return SPMHook.from_saved(adapters, {"words": words, "gate": gate})


def _deltas(foreign: Foreign, placed: Placed, backbone: Backbone, *, products: bool) -> tuple[dict[str, Tensor], int]:
    """Return the changes by parameter, and how many parameters are the base's own.

    A file in half precision has rounded every value; one that is the base's, rounded in the same way, has not changed.
    """
    deltas: dict[str, Tensor] = {}
    unchanged = 0
    for name, value in placed.values.items():
        base = _parameter(backbone, name)
        if torch.equal(value, base.to(value.dtype)):
            unchanged += 1
        else:
            deltas[name] = value.float() - base.float()
    for layer, (down, up, scale) in placed.products.items() if products else ():
        name = f"{layer}.weight"
        change = (scale * (up.flatten(1) @ down.flatten(1))).reshape(_parameter(backbone, name).shape)
        if bool(change.any()):
            deltas[name] = deltas[name] + change if name in deltas else change
        else:
            unchanged += 1
    return deltas, unchanged


def _parameter(backbone: Backbone, name: str) -> Tensor:
    part, _, own = name.partition(".")
    return backbone.networks[part].get_parameter(own).detach().cpu()


def _report(
    foreign: Foreign,
    placed: Placed,
    deltas: Mapping[str, Tensor],
    backbone: Backbone,
    *,
    unchanged: int,
    hook: Hook | None,
) -> ImportReport:
    shares = {name: _share(delta, _parameter(backbone, name)) for name, delta in deltas.items()}
    largest = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    return ImportReport(
        kind=_kind(foreign, placed, hook),
        matched=len(placed.matched),
        unmatched=tuple(placed.unmatched),
        elsewhere=placed.elsewhere,
        changed=len(placed.products) if hook is not None else len(deltas),
        unchanged=unchanged,
        largest=largest,
    )


def _share(delta: Tensor, base: Tensor) -> float:
    norm = float(base.float().norm())
    return float(delta.norm()) / max(norm, 1e-12)


def _kind(foreign: Foreign, placed: Placed, hook: Hook | None) -> str:
    """Say in words what the file is."""
    if placed.products:
        return "SPM" if hook is not None else "LoRA"
    parts = {name.partition(".")[0] for name in placed.values}
    texts = parts - {"unet"}
    if foreign.path.is_dir() and texts and texts != parts:
        return "pipeline folder"
    if parts and texts == parts:
        return "text encoder" if len(texts) == 1 else "text encoders"
    if any("diffusion_model." in name or name.startswith("input_blocks.") for name in foreign.tensors):
        return "checkpoint in the original layout"
    return "weights of the UNet" if parts == {"unet"} else "weights"
