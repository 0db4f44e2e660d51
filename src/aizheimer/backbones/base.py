"""What every other part of the package may ask of a model, whatever its family."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from aizheimer.backbones.families import FAMILIES, Family, family_of
from aizheimer.backbones.loading import load_pipeline
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.errors import ModelError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from jaxtyping import Bool

    from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordIds
    from aizheimer.backbones.conditioning import Conditioning, Conditions
    from aizheimer.backbones.prediction import Guided
    from aizheimer.backbones.readers import TextReader
    from aizheimer.backbones.windows import TextWindow
    from aizheimer.diffusion.prediction import Schedule

__all__ = ["Backbone", "NetworkName", "Part", "backbone_for", "load_pipeline"]

NetworkName = Literal["unet", "text_encoder", "text_encoder_2"]
"""The networks of a model that an edit may change; ``"unet"`` is the denoiser, also where that is a transformer."""
Part = Literal["unet", "text_encoder", "text_encoder_2", "text_encoders"]
"""What is trained at a time: one network, or all text encoders of a model that reads several."""


@runtime_checkable
class Backbone(Protocol):
    """A text-to-image model, seen by methods, data and evaluation.

    An implementation is a frozen view of a pipeline: it holds no weights of its own, and what it
    changes it restores.
    """

    @property
    def pipe(self) -> Any:
        """The pipeline itself."""
        ...

    @property
    def family(self) -> Family:
        """The family's short name; for messages, and for what is defined in some families only."""
        ...

    @property
    def world(self) -> World:
        """What the model draws, in words."""
        ...

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that is edited."""
        ...

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """The networks that an edit may change, by `NetworkName`; ``"unet"`` is the denoiser."""
        ...

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """All networks that turn words into pixels, by their names in the pipeline, the denoiser first."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's number format."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The noise schedule the denoiser was trained with."""
        ...

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts, see `aizheimer.diffusion.prediction`."""
        ...

    @property
    def max_tokens(self) -> int:
        """Rows of text that attention reads, with start, end and padding."""
        ...

    @property
    def pipeline_options(self) -> Mapping[str, Any]:
        """What a call of the pipeline must be given besides, so that it reads prompts as `condition` does."""
        ...

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows, and in joint attention the picture's own tokens."""
        ...

    @property
    def one_encoder(self) -> bool:
        """Whether the rows of one text encoder are all that the denoiser is told of a prompt."""
        ...

    @property
    def keys_read_text(self) -> bool:
        """Whether attention's keys and values read text rows themselves, not what blocks have made of them."""
        ...

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """Whose part each text encoder is of the token axis."""
        ...

    @property
    def text_readers(self) -> tuple[TextReader, ...]:
        """The text encoders that `read_tokens` reads, in the order of their channels; none where it refuses."""
        ...

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return padded and truncated token ids, as the pipeline makes them."""
        ...

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return all that the denoiser is told of prompts, without gradients.

        The empty prompt is what guidance starts from, which need not be what the text encoder says of no words: Stable
        Diffusion XL's is all zeros, the pooled vector too.
        """
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return the text encoders' rows, which the denoiser's attention reads, without gradients."""
        ...

    def token_ids(self, prompts: Sequence[str]) -> WordIds:
        """Return what `read_tokens` reads of prompts: token ids, of several encoders each one's own."""
        ...

    def read_tokens(self, ids: WordIds, *, vectors: torch.Tensor | None = None) -> Conditions:
        """Return what the text encoders say of token ids, with gradients; see `word_vectors` for ``vectors``."""
        ...

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vector (..., dim) that stands for each token at the text encoders' entrances, side by side.

        Args:
            ids: (...) token ids; where several encoders are read, (..., encoders).
        """
        ...

    def silent(self, prompts: Sequence[str]) -> Bool[torch.Tensor, " prompts"]:
        """Mark the prompts of which the denoiser is told zeros, whatever the text encoders say: SDXL's empty one."""
        ...

    def embed_concepts(self, words: Sequence[str]) -> torch.Tensor:
        """Return one vector (n, dim) for each word, to compare words with."""
        ...

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept."""
        ...

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return scaled latents of pixels in [-1, 1]."""
        ...

    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels in [-1, 1] of scaled latents."""
        ...

    def for_pipeline(self, latents: Latents) -> torch.Tensor:
        """Return latents in the form in which the pipeline wants them given."""
        ...

    def predict(
        self,
        x_t: Latents,
        t: Timesteps | int,
        conditions: Conditions,
        *,
        denoiser: torch.nn.Module | None = None,
    ) -> Latents:
        """Return the raw prediction of the denoiser, or of another one given in its place."""
        ...

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction under guidance, in the family's own way, and the plain predictions beside it."""
        ...

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the denoiser's weights."""
        ...

    def attention_modules(self) -> dict[str, torch.nn.Module]:
        """Return the modules that attend to text by name, in order of execution."""
        ...

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, torch.nn.Module]:
        """Return the linear layers that read text rows themselves, by name: what a closed form can solve for.

        Args:
            layers: Names of attention modules.
            parts: Any of ``"k"`` and ``"v"``.
        """
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter asks for gradients."""
        ...


def backbone_for(pipe: DiffusionPipeline, *, world: World | None = None) -> Backbone:
    """Return the backbone of a pipeline's family.

    Args:
        pipe: A loaded pipeline.
        world: What it draws, in words; by default read from the folder it was loaded from.

    Raises:
        ModelError: No backbone knows this class of pipeline; or the folder's ``world.json`` is damaged.

    Example:
        >>> backbone = backbone_for(load_pipeline("emoji"))
        >>> list(backbone.attention_modules())[0]
        'down_blocks.1.attentions.0.transformer_blocks.0.attn2'
    """
    classes = [base.__name__ for base in type(pipe).__mro__]
    family: Family | None = next((found for name in classes if (found := family_of(name)) is not None), None)
    if family is None:
        wanted = ", ".join(f"{info.pipeline} ({info.title})" for info in FAMILIES.values())
        raise ModelError(f"got a {type(pipe).__name__}; wanted one of {wanted}.")
    # Only a real folder: a hub id read as a relative path could meet a stranger's world.json.
    folder = Path(pipe.name_or_path) if pipe.name_or_path else None
    if world is None:
        found = World.load(folder) if folder is not None and folder.is_dir() else DEFAULT_WORLD
        world = None if found is DEFAULT_WORLD else found  # then the family's own
    module, _, name = FAMILIES[family].backbone.partition(":")
    kind = getattr(importlib.import_module(module), name)
    return kind(pipe) if world is None else kind(pipe, world=world)
