"""Where an edit comes from."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from aizheimer._version import __version__
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.concepts.concept import Concept

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors")


class ConceptRecord(BaseModel):
    """The concept an edit forgets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    anchor: str = ""
    keep: tuple[str, ...] = ()
    kind: Literal["object", "style"] = "object"

    @classmethod
    def of(cls, concept: Concept) -> ConceptRecord:
        """Return the record of a concept."""
        return cls(target=concept.target, anchor=concept.anchor, keep=concept.keep, kind=concept.kind)

    def to_concept(self) -> Concept:
        """Return the concept the record was made of."""
        return Concept(self.target, anchor=self.anchor, keep=self.keep, kind=self.kind)


def current_versions() -> dict[str, str]:
    """Return the versions of everything that decides the bits of an edit."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"aizheimer": __version__, "python": platform.python_version(), **versions}


def base_name(name_or_path: str | None) -> str:
    """Return what to call a base: its last two parts, which name a hub id whole and do not tell where home is.

    Example:
        >>> base_name("/home/somebody/models/sd-1-5")
        'models/sd-1-5'
    """
    return "/".join(Path(name_or_path or "").parts[-2:])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


TEXT_FIELDS: Mapping[str, str] = {"text_encoder": "text_fingerprint", "text_encoder_2": "text_fingerprint_2"}
"""Which field of `Provenance` names each text encoder."""


def text_fingerprints(networks: Mapping[Any, nn.Module], parts: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the hashes of text encoders, as fields of `Provenance`.

    Args:
        networks: A pipeline's, by part.
        parts: Those that are wanted; None for all text encoders. Other networks have their own field.
    """
    wanted = [part for part in (networks if parts is None else parts) if part in TEXT_FIELDS]
    return {TEXT_FIELDS[part]: module_fingerprint(networks[part]) for part in wanted}


class Provenance(BaseModel):
    """Who made an edit, of what, how.

    Example:
        >>> record = Provenance(method="aizheimer", concept=ConceptRecord(target="cat"), base_fingerprint="0" * 16)
        >>> Provenance.model_validate_json(record.model_dump_json()) == record
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    concept: ConceptRecord
    base_fingerprint: str = Field(description="Hash of the denoiser the edit was made for.")
    text_fingerprint: str = Field(
        default="", description="Hash of the text encoder, for an edit that changes it or holds what it said."
    )
    text_fingerprint_2: str = Field(default="", description="The same of a second text encoder; not written if empty.")
    base_name: str = Field(default="", description="Folder or hub id that denoiser was loaded from.")
    recipe: dict[str, Any] = Field(default_factory=dict, description="Every hyper-parameter, resolved.")
    versions: dict[str, str] = Field(default_factory=current_versions)
    seed: int = 0
    created: str = Field(default_factory=_now, description="UTC time.")
    strength: float = Field(
        default=1.0, allow_inf_nan=False, description="What the changes are multiplied by when applied."
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="Anything else worth keeping, as JSON.")

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what models with one text encoder do not have: their records are as they always were."""
        record = handler(self)
        if not self.text_fingerprint_2:
            record.pop("text_fingerprint_2", None)
        return record

    @property
    def fingerprints(self) -> dict[str, str]:
        """The hash of every network that must be the base's, by part; of those that do not matter an empty one."""
        return {"unet": self.base_fingerprint} | {part: getattr(self, name) for part, name in TEXT_FIELDS.items()}

    @property
    def text_fingerprints(self) -> dict[str, str]:
        """The hash of every text encoder that matters, by part."""
        return {part: one for part, one in self.fingerprints.items() if part != "unet" and one}

    @property
    def printed(self) -> dict[str, str]:
        """What a method wants everybody to read who looks at its edit: lines by name, ``extra["printed"]``."""
        found = self.extra.get("printed")
        return {str(name): str(line) for name, line in found.items()} if isinstance(found, dict) else {}
