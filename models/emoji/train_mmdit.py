"""Train the joint-attention transformer of the emoji world by flow matching, on the latents and captions of the UNet.

The model is a small Stable Diffusion 3: x_t = (1 - s) x_0 + s noise, and the transformer predicts
noise - x_0. s is drawn logit-normal, and shifted towards noise as the scheduler shifts it when it
samples. Text encoders and VAE are those of the first model, frozen. StableDiffusion3Pipeline wants two
CLIP encoders with projections and reads their last but one layer: so the first gets a layer on top that
adds nothing, and the second is its first layer alone, of which the rows are the words before they have
read each other. Both projections are the identity.

Without T5 the pipeline puts 256 rows of zeros after CLIP's 32. They are alike, have no position, and stay alike through
every block. So here there is one of them, which counts 256 times in the softmax: the same numbers from a third of the
tokens (`CountedRows`).

Training time adds up over sittings of ``--minutes`` (sitting.py).

Example:
    python models/emoji/train_mmdit.py --minutes 240
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from sitting import Drawings, add_arguments, check_fast, draw_sheet, sit
from torch import Tensor, nn
from training import EMA, Log, load_state, save_atomic
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

T5_ROWS = 256
"""Rows of zeros that StableDiffusion3Pipeline adds by default where there is no T5."""

SIZE = 16
"""Side of the latents."""


def build_transformer(*, width: int, layers: int, head: int, text_dim: int) -> SD3Transformer2DModel:
    """A new transformer on 16 x 16 x 4 latents in patches of 2: 64 image tokens."""
    if width % head:
        raise SystemExit(f"--width: got {width}; wanted a multiple of --head, {head}")
    return SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=head,
        num_attention_heads=width // head,
        caption_projection_dim=width,
        joint_attention_dim=2 * text_dim,
        pooled_projection_dim=2 * text_dim,
        pos_embed_max_size=SIZE // 2,
        qk_norm="rms_norm",
    )


def start_quiet(transformer: SD3Transformer2DModel) -> None:
    """DiT's start: every block is the identity and the prediction zero, until they have learned better."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear")) or name == "proj_out":
            nn.init.zeros_(module.weight)
    for part in (transformer.time_text_embed.timestep_embedder, transformer.time_text_embed.text_embedder):
        for layer in (part.linear_1, part.linear_2):
            nn.init.normal_(layer.weight, std=0.02)


def build_scheduler(shift: float) -> FlowMatchEulerDiscreteScheduler:
    """Straight paths, sampled by Euler's steps."""
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def text_encoders(text: CLIPTextModel) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The first model's text encoder twice, as Stable Diffusion 3 reads it: whole, and its first layer."""
    whole = _projected(text, text.config.num_hidden_layers + 1)
    nothing = whole.text_model.encoder.layers[-1]
    for layer in (nothing.self_attn.out_proj, nothing.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return whole, _projected(text, 1)


def _projected(text: CLIPTextModel, layers: int) -> CLIPTextModelWithProjection:
    config = copy.deepcopy(text.config)
    config.num_hidden_layers, config.projection_dim = layers, config.hidden_size
    encoder = CLIPTextModelWithProjection(config)
    own = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.state_dict().items()}
    missing, _ = encoder.load_state_dict(own, strict=False)  # layers that are not wanted are left over
    new = ("text_projection.", f"text_model.encoder.layers.{text.config.num_hidden_layers}.")
    if unknown := [name for name in missing if not name.startswith(new)]:
        raise SystemExit(f"the text encoder has no {', '.join(unknown)}: transformers calls them otherwise now")
    nn.init.eye_(encoder.text_projection.weight)
    return encoder.eval().requires_grad_(False)


class CountedRows:
    """Joint attention in which the last row of the text counts as many times as it was said to stand for."""

    def __init__(self, count: int) -> None:
        self.extra = math.log(count)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """What JointAttnProcessor2_0 does, with log(count) added to the logits of the last key."""

        def heads(x: Tensor, norm: Any = None) -> Tensor:
            x = x.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            return x if norm is None else norm(x)

        image, text = hidden_states, encoder_hidden_states
        query = torch.cat([heads(attn.to_q(image), attn.norm_q), heads(attn.add_q_proj(text), attn.norm_added_q)], 2)
        key = torch.cat([heads(attn.to_k(image), attn.norm_k), heads(attn.add_k_proj(text), attn.norm_added_k)], 2)
        value = torch.cat([heads(attn.to_v(image)), heads(attn.add_v_proj(text))], 2)
        bias = torch.zeros(1, 1, 1, key.shape[2], dtype=query.dtype, device=query.device)
        bias[..., -1] = self.extra
        if torch.is_autocast_enabled("cpu"):  # the fused attention's backward is slow in bfloat16
            weights = (query @ key.mT * query.shape[-1] ** -0.5 + bias).softmax(-1)
            output = weights.to(value.dtype) @ value
        else:
            output = F.scaled_dot_product_attention(query, key, value.to(query), attn_mask=bias)
        output = output.transpose(1, 2).flatten(2)
        image, text = output.split([image.shape[1], text.shape[1]], 1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


@torch.no_grad()
def encode(pipe_parts: tuple[Any, Any, Any], texts: list[str]) -> tuple[Tensor, Tensor]:
    """What StableDiffusion3Pipeline makes of texts, with one row of zeros: (batch, 33, 384) and (batch, 384)."""
    tokenizer, first, second = pipe_parts
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    said = [encoder(ids, output_hidden_states=True) for encoder in (first, second)]
    rows = torch.cat([each.hidden_states[-2] for each in said], 2)
    return F.pad(rows, (0, 0, 0, 1)), torch.cat([each.text_embeds for each in said], 1)


class Encoded:
    """Captions as the frozen encoders read them, each encoded once: they come again and again (82 % of 320,000)."""

    def __init__(self, words: tuple[Any, Any, Any], most: int = 60_000) -> None:
        self.words, self.most = words, most
        self.known: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """`encode`'s rows and pooled vectors, rounded to float16 (25 KB a caption)."""
        if new := sorted(set(texts) - set(self.known)):
            if len(self.known) + len(new) > self.most:
                self.known, new = {}, sorted(set(texts))
            rows, pooled = encode(self.words, new)
            self.known.update(zip(new, zip(rows.half(), pooled.half(), strict=True), strict=True))
        rows, pooled = zip(*(self.known[text] for text in texts), strict=True)
        return torch.stack(rows).float(), torch.stack(pooled).float()


class Trainer:
    """Networks, optimiser and data of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.drawings = Drawings.of(args)
        text = CLIPTextModel.from_pretrained(args.out / "text_encoder")
        tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
        self.words = (tokenizer, *text_encoders(text))
        self.encoded = Encoded(self.words)
        self.shape = {
            "width": args.width,
            "layers": args.layers,
            "head": args.head,
            "text_dim": text.config.hidden_size,
        }
        self.transformer = build_transformer(**self.shape)
        start_quiet(self.transformer)
        self.transformer.set_attn_processor(CountedRows(T5_ROWS))
        matrices = [p for p in self.transformer.parameters() if p.ndim > 1]
        vectors = [p for p in self.transformer.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": args.decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), fused=True)
        self.ema = EMA(self.transformer, args.ema)
        self.generator = torch.Generator().manual_seed(args.seed)
        self.step, self.elapsed = 0, 0.0

    def levels(self, n: int) -> Tensor:
        """Noise levels in (0, 1): logit-normal, shifted as the scheduler's are."""
        u = torch.sigmoid(torch.randn(n, generator=self.generator))
        return self.args.shift * u / (1 + (self.args.shift - 1) * u)

    def update(self, factor: float) -> tuple[float, float]:
        """One optimiser step; returns the loss and its share of predicting nothing at all."""
        x0, texts = self.drawings.batch(self.args.batch, self.generator)
        rows, pooled = self.encoded(texts)
        s = self.levels(len(x0))
        noise = torch.randn(x0.shape, generator=self.generator)
        level = s[:, None, None, None]
        target = noise - x0
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.fast):
            predicted = self.transformer(
                hidden_states=(1 - level) * x0 + level * noise,
                timestep=s * 1000,
                encoder_hidden_states=rows,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
        loss = F.mse_loss(predicted.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.transformer.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.args.lr * factor
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update(self.transformer)
        self.step += 1
        return loss.item(), loss.item() / target.square().mean().item()

    def save(self, elapsed: float) -> None:
        """Checkpoint everything that the next update needs, and what the network is built of."""
        state = {
            "transformer": self.transformer.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "shape": self.shape,
            "shift": self.args.shift,
            "step": self.step,
            "elapsed": elapsed,
        }
        save_atomic(state, self.args.out / f"{self.args.name}.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        state = load_state(self.args.out / f"{self.args.name}.pt")
        if state is None:
            return
        if (state["shape"], state["shift"]) != (self.shape, self.args.shift):
            raise SystemExit(
                f"{self.args.name}.pt is of {state['shape']}, shift {state['shift']}; "
                f"got {self.shape}, shift {self.args.shift}: give the same, or another --name"
            )
        self.transformer.load_state_dict(state["transformer"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def sheet(self) -> None:
        """Sample ten concepts in five styles with fixed seeds, by the averaged weights."""
        transformer = build_transformer(**self.shape)
        self.ema.copy_to(transformer)
        pipe = pipeline(transformer, self.words, out=self.args.out, shift=self.args.shift)
        draw_sheet(pipe, self.args.out / f"{self.args.name}-sheet.png")


def pipeline(
    transformer: SD3Transformer2DModel, words: tuple[Any, Any, Any], *, out: Path, shift: float
) -> StableDiffusion3Pipeline:
    """An ordinary pipeline without T5."""
    tokenizer, first, second = words
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    vae.register_to_config(shift_factor=0.0)  # Stable Diffusion 3 adds it, and cannot add None
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=build_scheduler(shift),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def averaged_pipeline(out: Path, name: str) -> tuple[StableDiffusion3Pipeline, int]:
    """The pipeline with averaged weights, and the number of updates behind it."""
    state = load_state(out / f"{name}.pt")
    if state is None:
        raise SystemExit(f"{out / name}.pt: not found; run train_mmdit.py first")
    transformer = build_transformer(**state["shape"])
    transformer.load_state_dict(state["ema"]["shadow"], strict=False)
    words = text_encoders(CLIPTextModel.from_pretrained(out / "text_encoder"))
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    return pipeline(transformer, (tokenizer, *words), out=out, shift=state["shift"]), state["step"]


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, name="mmdit")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--head", type=int, default=32, help="channels of one attention head")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.01, help="weight decay of matrices")
    parser.add_argument("--shift", type=float, default=2.0, help="how far noise levels lean towards noise; 1 is not")
    args = parser.parse_args()
    check_fast(parser, args)
    return args


def main() -> None:
    """Train for the given time."""
    args = parse()
    torch.set_flush_denormal(True)
    trainer = Trainer(args)
    trainer.resume()
    size = sum(p.numel() for p in trainer.transformer.parameters())
    print(f"{size / 1e6:.2f} M parameters, {2 * size / 1e6:.1f} MB in float16", flush=True)
    sit(trainer, Log(args.out / f"{args.name}.jsonl", trainer.elapsed), args)


if __name__ == "__main__":
    main()
