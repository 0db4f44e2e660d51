"""The one-liners: forget, evaluate, attack, report.

Every function takes a model in any form: ``"emoji"``, a pipeline's folder, a hub id, a loaded
diffusers pipeline or a ``Backbone``.
"""

from __future__ import annotations

from aizheimer.api.forgetting import forget
from aizheimer.api.models import Model, as_concept, environment, load_model, model_of_run
from aizheimer.api.proving import attack, evaluate, evaluate_suites
from aizheimer.edits.io import load_edit
from aizheimer.recipes.load import load_recipe

__all__ = [
    "Model",
    "as_concept",
    "attack",
    "environment",
    "evaluate",
    "evaluate_suites",
    "forget",
    "load_edit",
    "load_model",
    "load_recipe",
    "model_of_run",
]
