"""The model families that concepts can be removed from, behind one protocol."""

from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.backbones.loading import load_pipeline
from aizheimer.backbones.tokens import TokenPolicy

__all__ = ["Backbone", "TokenPolicy", "backbone_for", "load_pipeline"]
