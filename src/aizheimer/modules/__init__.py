"""What is trained and what is watched: parameter selectors and the attention probe."""

from __future__ import annotations

from aizheimer.modules.attention import AttentionProbe, attention_probe
from aizheimer.modules.maps import AttentionMap, heatmap, mass
from aizheimer.modules.parameters import (
    LAYER_PRESETS,
    PARTS,
    ParameterSelection,
    select_layers,
    select_parameters,
    swapped,
    trainable,
)

__all__ = [
    "LAYER_PRESETS",
    "PARTS",
    "AttentionMap",
    "AttentionProbe",
    "ParameterSelection",
    "attention_probe",
    "heatmap",
    "mass",
    "select_layers",
    "select_parameters",
    "swapped",
    "trainable",
]
