"""Loss terms, one per file; each returns its value with its parts by name."""

from __future__ import annotations

from aizheimer.objectives.distraction import distraction
from aizheimer.objectives.random_stimulus import random_stimulus
from aizheimer.objectives.reconstruction import noise_mse, teacher_mse
from aizheimer.objectives.resteering import resteering
from aizheimer.objectives.terms import VARIANTS, AttentionTerm, TermValue, Variant

ATTENTION_TERMS: dict[str, AttentionTerm] = {
    "resteering": resteering,
    "distraction": distraction,
    "random_stimulus": random_stimulus,
}
"""The paper's three attention losses by name. All take ``(maps, *, variant, tokens, generator)``."""

__all__ = [
    "ATTENTION_TERMS",
    "VARIANTS",
    "AttentionTerm",
    "TermValue",
    "Variant",
    "distraction",
    "noise_mse",
    "random_stimulus",
    "resteering",
    "teacher_mse",
]
