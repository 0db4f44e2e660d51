"""What every other part of the package may ask of a model, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from aizheimer.backbones.loading import load_pipeline
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.errors import ModelError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, StableDiffusionPipeline
    from diffusers.models.attention_processor import Attention

    from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds
    from aizheimer.diffusion.noise import NoiseSchedule

__all__ = ["Backbone", "NetworkName", "backbone_for", "load_pipeline"]

NetworkName = Literal["unet", "text_encoder"]
"""The networks of a model that an edit may change."""


@runtime_checkable
class Backbone(Protocol):
    """A text-to-image model, seen by methods, data and evaluation.

    An implementation is a frozen view of a pipeline: it holds no weights of its own, and what it
    changes it restores.
    """

    @property
    def pipe(self) -> StableDiffusionPipeline:
        """The pipeline itself."""
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
    def schedule(self) -> NoiseSchedule:
        """The noise schedule the denoiser was trained with."""
        ...

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens in a prompt, with start, end and padding."""
        ...

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return padded and truncated token ids, as the pipeline makes them."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return what the pipeline feeds the denoiser's cross-attention, without gradients."""
        ...

    def read_tokens(self, ids: TokenIds, *, vectors: torch.Tensor | None = None) -> TextEmbeddings:
        """Return what the text encoder says of token ids, with gradients; see `word_vectors` for ``vectors``."""
        ...

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vector (..., dim) that stands for each token id (...) at the text encoder's entrance."""
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

    def predict(
        self,
        x_t: Latents,
        t: Timesteps | int,
        embeddings: TextEmbeddings,
        *,
        denoiser: torch.nn.Module | None = None,
    ) -> Latents:
        """Return the raw prediction of the denoiser, or of another one given in its place."""
        ...

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the denoiser's weights."""
        ...

    def attention_modules(self) -> dict[str, Attention]:
        """Return the cross-attention modules by name, in order of execution."""
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
    from diffusers import StableDiffusionPipeline

    from aizheimer.backbones.stable_diffusion import StableDiffusionBackbone

    if not isinstance(pipe, StableDiffusionPipeline):
        raise ModelError(f"got a {type(pipe).__name__}; wanted a StableDiffusionPipeline.")
    # Only a real folder: a hub id read as a relative path could meet a stranger's world.json.
    folder = Path(pipe.name_or_path) if pipe.name_or_path else None
    if world is None:
        world = World.load(folder) if folder is not None and folder.is_dir() else DEFAULT_WORLD
    return StableDiffusionBackbone(pipe, world=world)
