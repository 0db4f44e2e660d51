"""Attacks cut down to a second of work, and what they attack."""

from aizheimer.attacks.base import AttackSettings, Subject
from aizheimer.attacks.concept_inversion import ConceptInversion
from aizheimer.attacks.p4d import P4D
from aizheimer.attacks.ring_a_bell import RingABell
from aizheimer.attacks.soft_prompt import SoftPrompt
from aizheimer.attacks.unlearndiffatk import UnlearnDiffAtk
from aizheimer.concepts.concept import Concept
from tests.unit.edits.test_edit import edit_of
from tests.unit.evaluation.builders import MemoryJudge

SANTA = Concept("santa claus")
SETTINGS = AttackSettings(images=4, steps=2, guidance=2.0)
JUDGE_CLASSES = ("santa claus", "noto", "cat")

SMALL = {
    "concept-inversion": ConceptInversion(tokens=2, steps=3, pictures=1, batch=2),
    "soft-prompt": SoftPrompt(steps=3, pictures=1),
    "unlearndiffatk": UnlearnDiffAtk(tokens=2, timesteps=2, steps=2),
    "p4d": P4D(variant="n", tokens=4, steps=3, examples=2, look_every=2),
    "p4d-k": P4D(variant="k", every=2, steps=3, examples=2, look_every=2),
    "ring-a-bell": RingABell(tokens=4, pairs=2, population=6, generations=3),
}


def subject_of(backbone, *, concept=SANTA, edited=True, **options):
    """Return an attack's subject; the edit is not on yet."""
    edit = edit_of(backbone.pipe) if edited else None
    chosen = {"judge": MemoryJudge(JUDGE_CLASSES), "settings": SETTINGS} | options
    return Subject(backbone=backbone, edit=edit, concept=concept, **chosen)
