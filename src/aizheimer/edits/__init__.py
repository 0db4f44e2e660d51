"""The result of every method: a change of weights, applied, removed, scaled, saved and loaded."""

from aizheimer.edits.apply import Applied
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.edits.provenance import ConceptRecord, Provenance

__all__ = ["Applied", "ConceptRecord", "Edit", "Provenance", "load_edit"]
