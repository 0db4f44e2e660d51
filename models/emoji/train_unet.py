"""Train the UNet of the emoji world on cached latents, with its text encoder at a lower rate.

Epsilon prediction on scaled-linear betas. What makes it learn in hours on two cores:

* small batches: what counts is updates (Muon, ``--optimiser muon``, learns more in an update than
  AdamW and less in a minute: its iterations cost as much as a batch of 16 here);
* noise levels are drawn and weighted so that the noisy end counts, where only the words
  say what to draw: w(t) = min(1, 5 / SNR) (1 + 1 / SNR)^0.5, drawn with p(t) ~ sqrt(w);
* the text encoder comes with its words learned (train_text_encoder.py).

Training time adds up over sittings of ``--minutes`` (sitting.py).

Example:
    python models/emoji/train_unet.py --minutes 90
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from sitting import Drawings, add_arguments, check_fast, draw_sheet, sit
from training import EMA, Log, Muon, load_state, save_atomic
from transformers import CLIPTextModel, CLIPTokenizer


def build_unet(cross_attention_dim: int = 192) -> UNet2DConditionModel:
    """A new 16 x 16 x 4 UNet with seven cross-attention modules."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[2, 4, 6],  # diffusers' name for the number of heads
        cross_attention_dim=cross_attention_dim,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, sampled by DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


class NoiseSampler:
    """Draws timesteps by importance and gives each its loss weight."""

    def __init__(self, scheduler: DDIMScheduler, power: float) -> None:
        self.alphas = scheduler.alphas_cumprod
        snr = self.alphas / (1 - self.alphas)
        weight = (5 / snr).clamp(max=1.0) * (1 + 1 / snr) ** power
        self.probability = weight.sqrt() / weight.sqrt().sum()
        self.weight = weight / self.probability / weight.sum()

    def __call__(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``n`` timesteps and their weights (mean about 1)."""
        t = torch.multinomial(self.probability, n, replacement=True, generator=generator)
        return t, self.weight[t]


def split_parameters(unet: UNet2DConditionModel) -> tuple[list, list]:
    """Hidden matrices and convolutions for Muon; biases, norms, first and last layer for AdamW."""
    edge = ("conv_in", "conv_out", "time_embedding")
    hidden = [p for n, p in unet.named_parameters() if p.ndim >= 2 and not n.startswith(edge)]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in unet.parameters() if id(p) not in chosen]


class Trainer:
    """Networks, optimisers and data of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.drawings = Drawings.of(args)
        self.tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(args.out / "text_encoder")
        self.unet = build_unet(self.text.config.hidden_size).to(memory_format=torch.channels_last)
        if args.fast:  # the fused attention's backward is slow in bfloat16: a third of the update
            self.unet.set_attn_processor(AttnProcessor())
            self.text.set_attn_implementation("eager")
        self.scheduler = build_scheduler()
        self.noise = NoiseSampler(self.scheduler, args.noise_power)
        hidden, rest = split_parameters(self.unet)
        if args.optimiser == "adamw":
            rest, hidden = hidden + rest, []
        adam = [
            {"params": rest, "lr": args.adam_lr, "base": args.adam_lr, "weight_decay": 0.01},
            {"params": list(self.text.parameters()), "lr": args.text_lr, "base": args.text_lr, "weight_decay": 0.0},
        ]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(adam, betas=(0.9, 0.99), fused=True)
        }
        if hidden:
            self.optimisers["muon"] = Muon([{"params": hidden, "base": args.muon_lr}], args.muon_lr, weight_decay=0.01)
        self.unet_ema, self.text_ema = EMA(self.unet, args.ema), EMA(self.text, args.ema)
        self.generator = torch.Generator().manual_seed(args.seed)
        self.step, self.elapsed = 0, 0.0

    def encode(self, texts: list[str]) -> torch.Tensor:
        """What StableDiffusionPipeline feeds the UNet: (batch, 32, 192)."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text(ids)[0]

    def update(self, factor: float) -> tuple[float, float]:
        """One optimiser step; returns the weighted and the plain loss."""
        x0, texts = self.drawings.batch(self.args.batch, self.generator)
        t, weight = self.noise(len(x0), self.generator)
        noise = torch.randn(x0.shape, generator=self.generator)
        noisy = self.scheduler.add_noise(x0, noise, t)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.fast):
            latents = noisy.to(memory_format=torch.channels_last)
            predicted = self.unet(latents, t, self.encode(texts), return_dict=False)[0]
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (error * weight).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*self.unet.parameters(), *self.text.parameters()], 1.0)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["base"] * factor
            optimiser.step()
            optimiser.zero_grad()
        self.unet_ema.update(self.unet)
        self.text_ema.update(self.text)
        self.step += 1
        return loss.item(), error.mean().item()

    def save(self, elapsed: float) -> None:
        """Checkpoint everything that the next update needs."""
        state = {
            "unet": self.unet.state_dict(),
            "text": self.text.state_dict(),
            "unet_ema": self.unet_ema.state_dict(),
            "text_ema": self.text_ema.state_dict(),
            "optimisers": {k: o.state_dict() for k, o in self.optimisers.items()},
            "generator": self.generator.get_state(),
            "step": self.step,
            "elapsed": elapsed,
        }
        save_atomic(state, self.args.out / f"{self.args.name}.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one, else from ``--start``."""
        if state := load_state(self.args.out / f"{self.args.name}.pt"):
            self.unet.load_state_dict(state["unet"])
            self.text.load_state_dict(state["text"])
            self.unet_ema.load_state_dict(state["unet_ema"])
            self.text_ema.load_state_dict(state["text_ema"])
            for name, optimiser in self.optimisers.items():
                rates = [group["base"] for group in optimiser.param_groups]
                optimiser.load_state_dict(state["optimisers"][name])
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["base"] = rate  # this sitting's, not the last one's
            self.generator.set_state(state["generator"])
            self.step, self.elapsed = state["step"], state["elapsed"]
        elif self.args.start:
            self.unet.load_state_dict(UNet2DConditionModel.from_pretrained(self.args.start).state_dict())
            self.unet_ema = EMA(self.unet, self.args.ema)

    def pipeline(self) -> StableDiffusionPipeline:
        """The averaged weights as an ordinary pipeline."""
        unet, text = build_unet(self.text.config.hidden_size), CLIPTextModel(self.text.config)
        self.unet_ema.copy_to(unet)
        self.text_ema.copy_to(text)
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL.from_pretrained(self.args.out / "vae"),
            text_encoder=text.eval(),
            tokenizer=self.tokenizer,
            unet=unet.eval(),
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sheet(self) -> None:
        """Sample ten concepts in five styles with fixed seeds."""
        draw_sheet(self.pipeline(), self.args.out / f"{self.args.name}-sheet.png")


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, name="unet")
    parser.add_argument("--start", type=Path, help="folder of UNet weights to begin with, when there is no checkpoint")
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--text-lr", type=float, default=1e-4)
    parser.add_argument("--noise-power", type=float, default=0.5)
    args = parser.parse_args()
    check_fast(parser, args)
    return args


def main() -> None:
    """Train for the given time."""
    args = parse()
    torch.set_flush_denormal(True)
    trainer = Trainer(args)
    trainer.resume()
    sit(trainer, Log(args.out / f"{args.name}.jsonl", trainer.elapsed), args)


if __name__ == "__main__":
    main()
