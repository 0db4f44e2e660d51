"""The one-liners: forget, evaluate, attack, report; edits in and out.

Every function takes a model in any form: ``"emoji"``, a pipeline's folder, a hub id, a loaded
diffusers pipeline or a ``Backbone``.
"""

from __future__ import annotations

from aizheimer.api.artifacts import export, import_edit, stack
from aizheimer.api.company import MATRIX, MATRIX_PICTURE, interference
from aizheimer.api.forgetting import forget
from aizheimer.api.hub import pull, push
from aizheimer.api.models import (
    Model,
    as_concept,
    chosen_device,
    environment,
    load_base,
    load_base_of,
    load_model,
    model_of_run,
)
from aizheimer.api.planning import plan
from aizheimer.api.proving import attack, draw_share, evaluate, evaluate_suites
from aizheimer.api.several import forget_onto, forget_several
from aizheimer.edits.io import load_edit
from aizheimer.recipes.load import load_recipe

__all__ = [
    "MATRIX",
    "MATRIX_PICTURE",
    "Model",
    "as_concept",
    "attack",
    "chosen_device",
    "draw_share",
    "environment",
    "evaluate",
    "evaluate_suites",
    "export",
    "forget",
    "forget_onto",
    "forget_several",
    "import_edit",
    "interference",
    "load_base",
    "load_base_of",
    "load_edit",
    "load_model",
    "load_recipe",
    "model_of_run",
    "plan",
    "pull",
    "push",
    "stack",
]
