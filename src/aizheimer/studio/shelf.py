"""The models that visitors may choose from; the one that was used last stays loaded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aizheimer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone

NEIGHBOURS = 8


class Shelf:
    """Models by the names that the page shows. What was not put here cannot be loaded from the page.

    Args:
        models: Names, folders or hub ids, as `aizheimer.api.load_model` takes them.

    Example:
        >>> Shelf(["emoji", "/models/sd15", "/old/sd15"]).names
        ('emoji', 'sd15', 'sd15 (2)')
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._places: dict[str, str] = {}
        for place in dict.fromkeys(models):
            name = Path(place).name or place
            same = sum(known == name or known.startswith(f"{name} (") for known in self._places)
            self._places[f"{name} ({same + 1})" if same else name] = place
        self._loaded: tuple[str, Backbone] | None = None
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """What there is to choose from."""
        return tuple(self._places)

    def check(self, name: str) -> str:
        """Return a name that is on the shelf.

        Raises:
            InputError: It is not.
        """
        if name not in self._places:
            raise InputError(f"there is no model '{name[:60]}' here.{did_you_mean(name, self._places)}")
        return name

    def backbone(self, name: str) -> Backbone:
        """Return a model, loading it in the place of the one before."""
        from aizheimer import api

        self.check(name)
        with self._lock:
            if self._loaded is None or self._loaded[0] != name:
                self._loaded = None  # two models would need twice the memory
                self._loaded = name, api.load_model(self._places[name])
            return self._loaded[1]

    def is_loaded(self, name: str) -> bool:
        """Whether asking for a model costs nothing."""
        return self._loaded is not None and self._loaded[0] == name

    def neighbours(self, name: str, concept: str, count: int = NEIGHBOURS) -> list[str]:
        """Return the concepts of a model's world that are nearest to one: the first to suffer with it."""
        from aizheimer import api
        from aizheimer.evaluation.plan import nearest_candidates

        backbone = self.backbone(name)
        target = api.as_concept(concept, world=backbone.world)
        found = nearest_candidates(target, backbone.world, embed=backbone.embed_concepts, count=count)
        return [label for label, _ in found]
