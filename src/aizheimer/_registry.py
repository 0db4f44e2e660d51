"""Names that stand for objects which are imported only when asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from aizheimer.errors import EditError, InputError, RecipeError, did_you_mean


@lru_cache(maxsize=64)
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return what the packages on ``path`` give to a group. Looked up once: it reads the metadata of every package."""
    # One distribution can be found twice when its folder is on the path twice.
    return tuple({(entry.name, entry.value): entry for entry in entry_points(group=group)}.values())


@dataclass(frozen=True)
class Registry:
    """Map names to ``"module:attribute"``; nothing is imported until :meth:`get`.

    Other packages add names through an entry-point group. A built-in name always means the
    built-in object, so that a recipe means the same on every machine. Names are written with
    dashes; one that is typed with underscores is understood.

    Args:
        kind: What the names are, in error messages: ``"method"``.
        entries: The built-in names.
        group: The entry-point group that third parties add to, such as ``"aizheimer.methods"``.
        error: The error raised for an unknown name.
        aliases: Other names of the same objects, understood but not listed: alias to name.

    Example:
        >>> registry = Registry("function", {"sqrt": "math:sqrt"})
        >>> registry.get("sqrt")(9.0)
        3.0
    """

    kind: str
    entries: Mapping[str, str]
    group: str | None = None
    error: type[InputError] = RecipeError
    aliases: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return every name, the built-in ones first in their own order, then the others by alphabet."""
        return (*self.entries, *sorted({entry.name for entry in self._third_party()} - set(self.entries)))

    def canonical(self, name: str) -> str:
        """Return the name as it is listed: what an alias stands for, and dashes for underscores.

        Args:
            name: A name as somebody typed it; one that is listed just so is returned as it is.

        Raises:
            InputError: (or the ``error`` given) for a name that is unknown.

        Example:
            >>> Registry("function", {"is-close": "math:isclose"}).canonical("is_close")
            'is-close'
        """
        names = self.names()
        if name in names:
            return name
        dashed = name.replace("_", "-")
        by_dashes = {known.replace("_", "-"): known for known in reversed(names)}
        if found := by_dashes.get(self.aliases.get(dashed, dashed)):
            return found
        hint = did_you_mean(dashed, [*by_dashes, *self.aliases])
        raise self.error(f"unknown {self.kind} {name!r}.{hint} There are: {', '.join(names) or 'none'}.")

    def get(self, name: str) -> Any:
        """Import and return what ``name`` stands for.

        Raises:
            InputError: (or the ``error`` given) for a name that is unknown, given by two packages,
                or that cannot be imported.
        """
        name = self.canonical(name)
        if name in self.entries:
            module, _, attribute = self.entries[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        found = [entry for entry in self._third_party() if entry.name == name]
        if len(found) > 1:
            sources = ", ".join(sorted(entry.value for entry in found))
            raise self.error(f"{self.kind} {name!r} is given by several packages ({sources}); uninstall all but one.")
        return self._load(found[0])

    def _load(self, entry: EntryPoint) -> Any:
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise self.error(
                f"{self.kind} {entry.name!r} ({entry.value}) cannot be imported: {error}; repair or uninstall it."
            ) from error

    def _third_party(self) -> list[EntryPoint]:
        if self.group is None:
            return []
        return list(_installed(self.group, tuple(sys.path)))

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self.canonical(name))
        except self.error:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


METHODS = Registry(
    "method",
    {
        "aizheimer": "aizheimer.methods.aizheimer:AIzheimer",
        "closed-distraction": "aizheimer.methods.closed_distraction:ClosedDistraction",
        "uce": "aizheimer.methods.uce:UCE",
        "speed": "aizheimer.methods.speed:SPEED",
        "dp": "aizheimer.methods.dp:DP",
        "oce": "aizheimer.methods.oce:OCE",
        "rece": "aizheimer.methods.rece:RECE",
        "mace": "aizheimer.methods.mace:MACE",
        "esd": "aizheimer.methods.esd:ESD",
        "concept-ablation": "aizheimer.methods.concept_ablation:ConceptAblation",
        "forget-me-not": "aizheimer.methods.forget_me_not:ForgetMeNot",
        "salun": "aizheimer.methods.salun:SalUn",
        "sepme": "aizheimer.methods.sepme:SepME",
        "doco": "aizheimer.methods.doco:DoCo",
        "hirm": "aizheimer.methods.hirm:HiRM",
        "advunlearn": "aizheimer.methods.advunlearn:AdvUnlearn",
        "spm": "aizheimer.methods.spm:SPM",
        "receler": "aizheimer.methods.receler:Receler",
        "surgery": "aizheimer.methods.surgery:Surgery",
        "data-censoring": "aizheimer.methods.data_censoring:DataCensoring",
        "negative-prompt": "aizheimer.methods.negative_prompt:NegativePrompt",
        "sld": "aizheimer.methods.sld:SLD",
        "safree": "aizheimer.methods.safree:SAFREE",
        "adavd": "aizheimer.methods.adavd:AdaVD",
        "judge-filter": "aizheimer.methods.judge_filter:JudgeFilter",
    },
    group="aizheimer.methods",
    aliases={"oracle": "data-censoring"},
)
"""Every unlearning method by the name that recipes and the command line use."""

ATTACKS = Registry(
    "attack",
    {
        "seed-search": "aizheimer.attacks.seed_search:SeedSearch",
        "relearn": "aizheimer.attacks.relearn:Relearn",
        "quantise": "aizheimer.attacks.quantise:Quantise",
        "sampler": "aizheimer.attacks.sampler:Sampler",
        "img2img": "aizheimer.attacks.img2img:Img2Img",
        "inpaint": "aizheimer.attacks.inpaint:Inpaint",
        "noise-inversion": "aizheimer.attacks.noise_inversion:NoiseInversion",
        "stack": "aizheimer.attacks.stack:Stack",
        "concept-inversion": "aizheimer.attacks.concept_inversion:ConceptInversion",
        "soft-prompt": "aizheimer.attacks.soft_prompt:SoftPrompt",
        "unlearndiffatk": "aizheimer.attacks.unlearndiffatk:UnlearnDiffAtk",
        "p4d": "aizheimer.attacks.p4d:P4D",
        "ring-a-bell": "aizheimer.attacks.ring_a_bell:RingABell",
    },
    group="aizheimer.attacks",
)
"""Every attack by the name that the command line uses."""

SUITES = Registry(
    "suite",
    {
        "families": "aizheimer.evaluation.suites.families:Families",
        "neighbours": "aizheimer.evaluation.suites.neighbours:Neighbours",
        "canvas": "aizheimer.evaluation.suites.canvas:Canvas",
        "identity": "aizheimer.evaluation.suites.identity:Identity",
        "fairness": "aizheimer.evaluation.suites.fairness:Fairness",
        "leftovers": "aizheimer.evaluation.suites.leftovers:Leftovers",
        "quality": "aizheimer.evaluation.suites.quality:Quality",
        "safety": "aizheimer.evaluation.suites.safety:Safety",
    },
    group="aizheimer.suites",
)
"""Every kind of evaluation by the name that suite files use."""

HOOKS = Registry(
    "hook",
    {
        "negative-prompt": "aizheimer.edits.hooks.negative_prompt:NegativePromptHook",
        "sld": "aizheimer.edits.hooks.sld:SLDHook",
        "safree": "aizheimer.edits.hooks.safree:SAFREEHook",
        "adavd": "aizheimer.edits.hooks.adavd:AdaVDHook",
        "judge-filter": "aizheimer.edits.hooks.judge_filter:JudgeFilterHook",
        "spm": "aizheimer.edits.hooks.spm:SPMHook",
        "erasers": "aizheimer.edits.hooks.erasers:ErasersHook",
        "stacked": "aizheimer.edits.hooks.stacked:StackedHook",
    },
    group="aizheimer.hooks",
    error=EditError,
)
"""Every runtime behaviour by the name that saved edits use."""
