"""Tiny pipelines of every family, as `tests.tiny` has one of Stable Diffusion 1: real classes, random weights.

All of them draw 32 px pictures through the same autoencoder of factor 4, from latents of 4 x 8 x 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.tiny import (
    DIM,
    LATENT_SIZE,
    MAX_TOKENS,
    SPLIT_WORDS,
    WHOLE_WORDS,
    tiny_pipeline,
    tiny_tokenizer,
    tiny_vae,
)

_LETTERS = "abcdefghijklmnopqrstuvwxyz,.!-<>0123456789"


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer that knows the words of the tiny CLIP tokenizer, split alike, and all letters."""
    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    pieces += [("▁" + word, -1.0) for word in WHOLE_WORDS]
    for word in SPLIT_WORDS:
        first, *rest = word.split("|")
        pieces += [("▁" + first, -1.0), *((part, -1.0) for part in rest)]
    pieces += [(letter, -9.0) for letter in ("▁", *_LETTERS)]
    vocabulary = list({piece: (piece, score) for piece, score in reversed(pieces)}.values())[::-1]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=MAX_TOKENS)


def _t5(tokenizer: T5Tokenizer, dim: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(tokenizer), d_model=dim, d_kv=16, d_ff=dim, num_layers=1, num_heads=2)
    encoder = T5EncoderModel(config).eval()
    # Freshly made T5 says nearly the same of every word.
    encoder.shared.weight.data.mul_(0.05 / encoder.shared.weight.std())
    return encoder


def _clip(kind: type[Any], tokenizer: CLIPTokenizer, *, dim: int = DIM, blocks: int = 2) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=dim,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def tiny_sd2(seed: int = 0) -> Any:
    """Return Stable Diffusion 2 in small: velocity, padding with "!", networks built as those of the second version."""
    return tiny_pipeline(seed=seed, pad_token="!", prediction_type="v_prediction", second=True)


def tiny_sdxl(seed: int = 0, *, second: int = DIM, blocks: tuple[int, int] = (2, 2)) -> StableDiffusionXLPipeline:
    """Return Stable Diffusion XL in small: two text encoders, pooled vector, time ids, Euler's scheduler.

    The second encoder's width and the encoders' blocks may differ, as in the real one they do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizers = tiny_tokenizer(), tiny_tokenizer(pad_token="!")
        unet = UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=DIM + second,
            attention_head_dim=2,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=DIM + 6 * 8,
        ).eval()
        text_encoder = _clip(CLIPTextModel, tokenizers[0], blocks=blocks[0])
        text_encoder_2 = _clip(CLIPTextModelWithProjection, tokenizers[1], dim=second, blocks=blocks[1])
        vae = tiny_vae().eval()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    return _silent(pipe)


def tiny_sd3(seed: int = 0, *, t5: bool = True) -> StableDiffusion3Pipeline:
    """Return Stable Diffusion 3.5 in small: three text encoders, joint attention, a second attention in block 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second, third = tiny_tokenizer(), tiny_tokenizer(pad_token="!"), tiny_t5_tokenizer()
        transformer = SD3Transformer2DModel(
            sample_size=LATENT_SIZE,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * DIM,
            caption_projection_dim=32,
            pooled_projection_dim=2 * DIM,
            pos_embed_max_size=LATENT_SIZE,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ).eval()
        clips = (_clip(CLIPTextModelWithProjection, first), _clip(CLIPTextModelWithProjection, second))
        vae = tiny_vae(shift_factor=0.1).eval()
        t5_encoder = _t5(third, 2 * DIM) if t5 else None
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=clips[0],
        tokenizer=first,
        text_encoder_2=clips[1],
        tokenizer_2=second,
        text_encoder_3=t5_encoder,
        tokenizer_3=third if t5 else None,
    )
    return _silent(pipe)


def tiny_flux(seed: int = 0, *, guided: bool = True) -> FluxPipeline:
    """Return Flux.1 in small: T5's rows, CLIP's pooled vector, a block of two streams and one of one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = tiny_tokenizer(), tiny_t5_tokenizer()
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=DIM,
            pooled_projection_dim=DIM,
            guidance_embeds=guided,
            axes_dims_rope=(4, 4, 8),
        ).eval()
        clip, t5, vae = _clip(CLIPTextModel, first), _t5(second, DIM), tiny_vae(shift_factor=0.1).eval()
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=clip,
        tokenizer=first,
        text_encoder_2=t5,
        tokenizer_2=second,
        transformer=transformer,
    )
    pipe.default_sample_size = LATENT_SIZE
    return _silent(pipe)


def _silent(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


BUILDERS: dict[str, Callable[..., Any]] = {"sd2-v": tiny_sd2, "sdxl": tiny_sdxl, "sd3": tiny_sd3, "flux": tiny_flux}
"""Every pipeline here by a short name, a column's of ``aizheimer ls --matrix``."""
