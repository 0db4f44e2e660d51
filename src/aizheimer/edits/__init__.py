"""The result of every method: a change of weights or of behaviour, applied, removed, scaled, saved and loaded."""

from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.edits.apply import Applied, hooks_on
from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import Hook
from aizheimer.edits.io import load_edit
from aizheimer.edits.provenance import ConceptRecord, Provenance

__all__ = ["Applied", "ConceptRecord", "Edit", "Hook", "Provenance", "hooks_on", "load_edit", "module_fingerprint"]
