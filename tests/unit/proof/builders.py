"""Run folders whose every number is known, written with the real classes."""

import numpy as np
import torch

from aizheimer.attacks.base import AttackSettings, Spent
from aizheimer.attacks.results import Answers, AttackResult, Rate
from aizheimer.edits.edit import Edit
from aizheimer.edits.provenance import ConceptRecord, Provenance
from aizheimer.evaluation.calibration import calibrate_labels
from aizheimer.evaluation.results import Distance, Units
from aizheimer.evaluation.suite import SuiteResult
from tests.unit.reports.builders import SETTINGS, metric, result_of

TARGET = "Santa Claus"


def share(successes, n, *, original=0):
    """A figure over n pictures of which ``successes`` count; of the unedited model's, ``original``."""
    return metric([1] * original + [0] * (n - original), [1] * successes + [0] * (n - successes))


def counted(edited, *, original=None, **changes):
    """A suite's figure that keeps the single values it is the mean of; the unedited model has none."""
    before = [0] * len(edited) if original is None else original
    units = Units(original=before, edited=edited)
    return metric(before, edited).model_copy(update={"units": units, **changes})


def answered(before, alone, **changes):
    """An attack's result that keeps what the judge said of each picture."""
    sides = [np.array(side, dtype=bool) for side in (before, alone)]
    rates = [Rate.of(seen, seed=0) for seen in (*sides, sides[0] | sides[1])]
    answers = Answers(before=sides[0].tolist(), alone=sides[1].tolist(), original=[True] * len(before))
    named = dict(zip(("before", "alone", "asr"), rates, strict=True))
    return attack(n=len(before), answers=answers, **{**named, **changes})


def erring(missed=2, taken=1, n=100):
    """A judge that misses so many of n pictures of the target, and takes so many of n others for it."""
    shown, clean = [None] * missed + [TARGET] * (n - missed), [TARGET] * taken + [None] * (n - taken)
    return calibrate_labels(TARGET, judge="judge", shown=shown, clean=clean)


def good(**changes):
    """The evaluation of an edit that did what it should, on a hundred pictures of each kind."""
    kept = metric([1] * 100, [1] * 100, unit="concepts")
    fields = {"ua": share(100, 100), "ira": kept, "near": kept, "far": kept, "cra": metric([1] * 100, [1] * 100)}
    return result_of(TARGET, **{**fields, **changes})


def suite(name, figures, **changes):
    fields = {
        "suite": name, "target": TARGET, "kind": "object", "model_name": "tiny", "figures": figures,
        "settings": SETTINGS, "guidance": 5.0,
    }  # fmt: skip
    return SuiteResult(**{**fields, **changes})


def distance(value=0.0123, **changes):
    """A distance of 256 pictures by a network called "clip"."""
    fields = {
        "metric": "kid", "value": value, "original": 0.0045, "n": 256, "n_reference": 256, "reference": "r",
        "extractor": "clip", "dim": 128, "weights": "w", "implementation": "torchmetrics 1",
        "protocol": "to the pictures of a folder",
    }  # fmt: skip
    return Distance(**{**fields, **changes})


def rate(successes, n=100):
    return Rate.of(np.arange(n) < successes, seed=0)


def attack(name="seed-search", *, before=0, asr=0, unedited=100, n=100, steps=0, **changes):
    before, asr = (rate(seen, n) if isinstance(seen, int) else seen for seen in (before, asr))
    fields = {
        "attack": name, "parameters": {"tries": 8}, "target": TARGET, "kind": "object", "access": "black box",
        "before": before, "alone": asr, "asr": asr,
        "unedited": None if unedited is None else rate(unedited, n),
        "spent": Spent(steps=steps, denoiser_evaluations=100, queries=5, seconds=2.5), "judge": "judge",
        "settings": AttackSettings(images=n), "guidance": 5.0,
    }  # fmt: skip
    return AttackResult(**{**fields, **changes})


def provenance(target=TARGET, **changes):
    fields = {"method": "esd", "concept": ConceptRecord(target=target), "base_fingerprint": "0" * 16}
    return Provenance(**{**fields, **changes})


def sum_of(*strengths, target=TARGET):
    """The record of a sum of the target's edit with those of a dog and a cat, at these strengths."""
    parts = [
        {"concept": words, "kind": "object", "anchor": "", "method": "uce", "strength": strength, "digest": words}
        for words, strength in zip((target, "dog", "cat"), strengths, strict=False)
        if strength
    ]
    return provenance(target, method="stack", extra={"stack": parts})


def write_run(folder, *, evaluation=None, suites=(), attacks=(), edit=None, hook=None, files=None):
    """Write a run folder of a small edit and of results that name it, unless they name one already.

    ``files`` are results of suites from files, by their labels.
    """
    made = Edit({"unet.conv_out.weight": torch.ones(1)}, edit or provenance(), hook)
    made.save(folder)
    if evaluation is not None:
        stamped(evaluation, "edit", made.digest).save(folder / "evaluation.json")
    for label, found in {**{found.suite: found for found in suites}, **(files or {})}.items():
        stamped(found, "made_from", {"edit": made.digest}).save(folder / f"suite-{label}.json")
    for found in attacks:
        stamped(found, "edit", made.digest).save(folder / f"attack-{found.called}.json")
    return folder


def stamped(result, field, value):
    return result if getattr(result, field) else result.model_copy(update={field: value})
