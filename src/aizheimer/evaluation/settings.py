"""How much to draw and how: the one place where an evaluation's numbers are written down."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

AtLeastOne = Annotated[int, Field(ge=1)]
Precision: TypeAlias = Literal["model", "bfloat16"]
"""What the networks compute in while they draw: their weights' type, or bfloat16 where torch's autocast allows."""


class EvaluationSettings(BaseModel):
    """Size and sampling of an evaluation.

    The default draws 85 pictures with the edit and as many without (those come from the cache the second time).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_images: AtLeastOne = Field(default=25, description="Pictures that ask for the target, over all its prompts.")
    neighbours: int = Field(default=10, ge=0, description="Nearest other concepts by text embedding.")
    neighbour_images: AtLeastOne = Field(default=3, description="Pictures of each neighbour.")
    others: int = Field(default=30, ge=0, description="Further concepts, drawn evenly from all groups.")
    other_images: AtLeastOne = Field(default=1, description="Pictures of each further concept.")
    steps: AtLeastOne = Field(default=20, description="DDIM steps.")
    guidance: float | None = Field(default=None, ge=0, description="Guidance scale; None takes the model's own.")
    seed: int = Field(default=0, ge=0, description="First seed; the pictures start from this one and the next few.")
    batch_size: AtLeastOne = Field(default=8, description="Pictures drawn at a time; does not change them.")
    precision: Precision = Field(default="model", description="What is computed in; bfloat16 draws faster.")
    effective_only: bool = Field(
        default=False, description="Leave target prompts out on which the unedited model does not show the target."
    )
    bootstrap: AtLeastOne = Field(default=2000, description="Draws of the bootstrap.")
    level: float = Field(default=0.95, gt=0, lt=1, description="Level of the intervals.")

    @property
    def retain_images(self) -> int:
        """Pictures that must not change."""
        return self.neighbours * self.neighbour_images + self.others * self.other_images

    @classmethod
    def sized(cls, samples: int, **fields: object) -> EvaluationSettings:
        """Return settings that draw about ``samples`` pictures, divided as the default divides its 85.

        Args:
            samples: Pictures drawn with the edit, 3 or more.
            **fields: Any other field.

        Example:
            >>> EvaluationSettings.sized(85) == EvaluationSettings()
            True
        """
        default = cls()
        if samples < 3:
            raise ValueError(f"samples: got {samples}; wanted 3 or more")
        share = samples / (default.target_images + default.retain_images)
        target = max(1, round(default.target_images * share))
        each = max(1, round(default.neighbour_images * min(share, 4.0)))
        neighbours = max(1, round(default.neighbours * default.neighbour_images * share / each))
        others = max(1, samples - target - neighbours * each)
        sizes = {"target_images": target, "neighbours": neighbours, "neighbour_images": each, "others": others}
        return cls.model_validate({**sizes, **fields})

    @classmethod
    def of_size(cls, samples: int | None, *, full: bool, **fields: object) -> EvaluationSettings:
        """Return the settings of a size that a user may have said: `full`, about so many pictures, or the default."""
        if full:
            return cls.full(**fields)
        return cls.model_validate(fields) if samples is None else cls.sized(samples, **fields)

    @classmethod
    def full(cls, **fields: object) -> EvaluationSettings:
        """Return settings for figures to publish: 100 target, 200 neighbour and 120 other pictures."""
        sizes = {"target_images": 100, "neighbours": 20, "neighbour_images": 10, "others": 120}
        return cls.model_validate({**sizes, **fields})
