"""Tiny but real components: what the tests run on instead of mocks.

``tiny_pipeline()`` is a ``StableDiffusionPipeline`` of random weights that differs from Stable
Diffusion 1 in size only: 32 px images, an autoencoder of factor 4, a UNet of three levels with
cross-attention in down, mid and up blocks (seven ``attn2``), and a CLIP text tower whose
tokenizer knows a few words whole and splits others. ``save_tiny(folder)`` writes it to disk with
a ``world.json`` beside it.

Example:
    >>> pipe = tiny_pipeline()
    >>> pipe.tokenizer.tokenize("santa claus")
    ['santa</w>', 'cla', 'us</w>']
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.duplicate import Duplicator

if TYPE_CHECKING:
    from aizheimer.concepts.world import World

IMAGE_SIZE = 32
LATENT_SIZE = 8
MAX_TOKENS = 32
DIM = 32
END_OF_TEXT = "<|endoftext|>"

# Words that are several sub-tokens, written with a bar between the parts.
SPLIT_WORDS = ("cla|us", "app|le", "twe|mo|ji", "gr|apes")
WHOLE_WORDS = (
    *("santa", "mrs", "cat", "dog", "red", "green", "old", "man", "woman", "tree", "car", "house", "fox", "tiger"),
    *("noto", "flat", "blob", "fluent", "style", "photo", "picture", "painting", "drawing", "image", "in", "of"),
    *("a", "an", "the", "and", "with", "on", "emoji", "face", "good", "close", "up"),
)
LABELS = ("santa claus", "mrs claus", "old man", "woman", "cat", "tiger", "dog", "red apple", "grapes", "tree", "car")
STYLES = ("noto", "flat", "twemoji")


def _symbols(word: str) -> list[str]:
    return [*word[:-1], word[-1] + "</w>"]


def _apply(symbols: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Apply byte-pair merges in order of rank."""
    for left, right in merges:
        i = 0
        while i < len(symbols) - 1:
            if (symbols[i], symbols[i + 1]) == (left, right):
                symbols[i : i + 2] = [left + right]
            i += 1
    return symbols


def _merges() -> list[tuple[str, str]]:
    """Return merges that spell every word as it is written above.

    Each word is first split by the merges found so far, then its pieces are joined by new merges of
    lower rank, so a later word cannot change an earlier one.
    """
    merges: list[tuple[str, str]] = []
    for word in (*SPLIT_WORDS, *WHOLE_WORDS):
        parts = word.split("|")
        for i, part in enumerate(parts):
            symbols = _apply(_symbols(part) if i == len(parts) - 1 else list(part), merges)
            while len(symbols) > 1:
                merges.append((symbols[0], symbols[1]))
                symbols[:2] = [symbols[0] + symbols[1]]
    return merges


def tiny_tokenizer(*, pad_token: str = END_OF_TEXT) -> CLIPTokenizer:
    """Return a CLIPTokenizer that pads as Stable Diffusion 1 does; ``pad_token="!"`` pads as Stable Diffusion 2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(a + b for a, b in merges), "<|startoftext|>", END_OF_TEXT]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS, pad_token=pad_token)


def _text_encoder(tokenizer: CLIPTokenizer, *, second: bool) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu" if second else "quick_gelu",
    )
    return CLIPTextModel(config)


def _unet(*, second: bool) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=DIM,
        attention_head_dim=[2, 4, 4] if second else 2,  # in Stable Diffusion's UNet this is the NUMBER of heads
        norm_num_groups=8,
        use_linear_projection=second,
        upcast_attention=second,
    )


def tiny_vae(**options: float) -> AutoencoderKL:
    """Return the autoencoder of all tiny pipelines; ``options`` go to its configuration."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        scaling_factor=0.5,
        **options,
    )


def tiny_pipeline(
    *,
    seed: int = 0,
    pad_token: str = END_OF_TEXT,
    prediction_type: str = "epsilon",
    second: bool = False,
) -> StableDiffusionPipeline:
    """Return a fresh pipeline of random weights; the same seed gives the same bits, and no global RNG is moved.

    ``second`` builds its networks as those of Stable Diffusion 2 are: linear projections around the UNet's
    transformers, a number of heads for each level, attention in single precision, OpenCLIP's activation. (OpenCLIP's
    last layer is not read there, and so is not in the released text encoder: its own last hidden state is.)
    """
    return _tiny_pipelines(seed, pad_token, prediction_type, second)()


@functools.cache
def _tiny_pipelines(
    seed: int, pad_token: str, prediction_type: str, second: bool
) -> Duplicator[StableDiffusionPipeline]:
    """Build a pipeline once; what comes back makes copies of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer(pad_token=pad_token)
        text_encoder = _text_encoder(tokenizer, second=second).eval()
        unet = _unet(second=second).eval()
        vae = tiny_vae().eval()
        # Freshly made cross-attention hardly looks at the words; sharper queries and keys do.
        for name, parameter in unet.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter.data.mul_(4)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return Duplicator(pipe)


def tiny_world() -> World:
    """Return the world the tiny pipeline would draw: eleven things in three styles."""
    from aizheimer.concepts.world import World, WorldItem

    return World(
        name="tiny",
        object_templates=tuple(f"{{concept}} in {style} style" for style in STYLES),
        style_templates=("{subject} in {concept} style",),
        subjects=LABELS,
        styles=STYLES,
        vocabulary=tuple(WorldItem(label=label, group="things", tags=tuple(label.split())) for label in LABELS),
        general_prompts=("a picture", "a drawing", "a picture in flat style"),
    )


def save_tiny(folder: Path, *, pipe: StableDiffusionPipeline | None = None) -> Path:
    """Write ``folder/pipeline`` and ``folder/world.json``; return the pipeline's folder."""
    pipeline_folder = folder / "pipeline"
    (pipe or tiny_pipeline()).save_pretrained(pipeline_folder)
    (folder / "world.json").write_text(tiny_world().to_json(), encoding="utf-8")
    return pipeline_folder
