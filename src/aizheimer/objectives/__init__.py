"""Loss terms, one per file; each returns its value with its parts by name."""

from __future__ import annotations

from aizheimer.objectives.adversarial import PatchDiscriminator, deception_loss, discriminator_loss
from aizheimer.objectives.correlation import change_l1, concept_correlation
from aizheimer.objectives.distraction import distraction
from aizheimer.objectives.noise_target import masked_mse, masked_mse_by_example, negative_guidance, target_mse
from aizheimer.objectives.random_stimulus import random_stimulus
from aizheimer.objectives.reconstruction import answers_mse, noise_mse, teacher_mse
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
    "PatchDiscriminator",
    "TermValue",
    "Variant",
    "answers_mse",
    "change_l1",
    "concept_correlation",
    "deception_loss",
    "discriminator_loss",
    "distraction",
    "masked_mse",
    "masked_mse_by_example",
    "negative_guidance",
    "noise_mse",
    "random_stimulus",
    "resteering",
    "target_mse",
    "teacher_mse",
]
