"""Train the UNet of the emoji world on cached latents, with its text encoder at a lower rate.

Epsilon prediction on scaled-linear betas. What makes it learn in hours on two cores:

* small batches: what counts is updates (Muon, ``--optimiser muon``, learns more in an update than
  AdamW and less in a minute: its iterations cost as much as a batch of 16 here);
* noise levels are drawn and weighted so that the noisy end counts, where only the words
  say what to draw: w(t) = min(1, 5 / SNR) (1 + 1 / SNR)^0.5, drawn with p(t) ~ sqrt(w);
* the text encoder comes with its words learned (train_text_encoder.py).

Training time adds up over sittings: ``--minutes`` more from the last checkpoint, with a
cool-down of the learning rate over the last fifth and a fresh warm-up the next time.

Example:
    python models/emoji/train_unet.py --minutes 90
"""

from __future__ import annotations

import argparse
import json
import random
import time
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from emoji_data import CANONICAL, STYLES, ConceptRow, Dataset, augment, caption, plain, tag_counts
from safetensors.torch import load_file, save_file
from training import EMA, Log, Muon, load_state, save_atomic, save_sheet
from transformers import CLIPTextModel, CLIPTokenizer

SHEET_LABELS = (
    "Santa Claus",
    "cat",
    "red apple",
    "old man",
    "police officer",
    "pizza",
    "rocket",
    "dog face",
    "castle",
    "soccer ball",
)


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


@torch.no_grad()
def cached_latents(out: Path, copies: int, seed: int) -> torch.Tensor:
    """Encode every drawing as it is and ``copies - 1`` augmented versions once: (copies, 1605, 4, 16, 16)."""
    path = out / "latents.safetensors"
    if path.exists():
        return load_file(path)["latents"].float()
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    images = Dataset.load(out).tensor().flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for copy in range(copies):
        change = partial(augment, generator=generator, shift=0.03, scale=0.06, degrees=4) if copy else plain
        rounds.append(torch.cat([vae.encode(change(chunk)).latent_dist.mean for chunk in images.split(64)]))
    latents = torch.stack(rounds)
    save_file({"latents": latents.half()}, path)
    print(f"latents: mean {latents.mean():.3f} std {latents.std((0, 1, 3, 4)).tolist()}", flush=True)
    return latents


def sampling_weights(concepts: list[ConceptRow], often: list[str], without: list[str]) -> torch.Tensor:
    """How often each drawing is seen, from ``NAME=FACTOR`` for a style or a group, never those ``without``: (1605,)."""
    labels = {row.label for row in concepts}
    if unknown := set(without) - labels:
        raise SystemExit(f"--without: got {', '.join(sorted(unknown))}; wanted labels of concepts.csv")
    factors = {name: float(factor) for name, _, factor in (word.partition("=") for word in often)}
    known = {*STYLES, *(row.group for row in concepts)}
    if unknown := set(factors) - known:
        raise SystemExit(f"--often: got {', '.join(sorted(unknown))}; wanted one of {', '.join(sorted(known))}")
    weights = [factors.get(row.group, 1.0) * (row.label not in without) for row in concepts]
    return torch.tensor([weight * factors.get(style, 1.0) for weight in weights for style in STYLES])


def missed(evaluation: Path, concepts: list[ConceptRow]) -> torch.Tensor:
    """Which drawings an evaluation found drawn wrong, by object or by style: bool (1605,)."""
    pictures = [row for row in json.loads(evaluation.read_text())["pictures"] if row["kind"] == "label"]
    wrong = {
        (row["object"], row["style"])
        for row in pictures
        if row["judged_object"] != row["object"] or row["judged_style"] != row["style"]
    }
    return torch.tensor([(row.label, style) in wrong for row in concepts for style in STYLES])


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
        self.latents = cached_latents(args.out, args.copies, args.seed)[: args.use_copies]
        self.concepts = Dataset.load(args.out).concepts
        self.counts = tag_counts(self.concepts)
        self.often = sampling_weights(self.concepts, args.often, args.without)
        if args.missed:
            self.often[missed(args.missed, self.concepts)] *= args.missed_factor
        self.tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(args.out / "text_encoder")
        self.unet = build_unet(self.text.config.hidden_size).to(memory_format=torch.channels_last)
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

    def batch(self) -> tuple[torch.Tensor, list[str]]:
        """Latents and captions of random drawings; a tenth of the captions are empty."""
        n = self.args.batch
        index = torch.multinomial(self.often, n, replacement=True, generator=self.generator)
        copy = torch.randint(0, len(self.latents), (n,), generator=self.generator)
        rng = random.Random(int(torch.randint(0, 2**31, (1,), generator=self.generator)))
        texts = []
        for i in index.tolist():
            row, style = self.concepts[i // len(STYLES)], STYLES[i % len(STYLES)]
            empty = rng.random() < 0.1
            texts.append("" if empty else caption(row, style, self.counts, rng, p_synonym=self.args.p_synonym))
        return self.latents[copy, index], texts

    def encode(self, texts: list[str]) -> torch.Tensor:
        """What StableDiffusionPipeline feeds the UNet: (batch, 32, 192)."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text(ids)[0]

    def update(self, factor: float) -> tuple[float, float]:
        """One optimiser step; returns the weighted and the plain loss."""
        x0, texts = self.batch()
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
        pipe = self.pipeline()
        prompts = [CANONICAL.format(label=label, style=s) for label in SHEET_LABELS for s in STYLES]
        generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        images = pipe(
            prompts, generator=generators, num_inference_steps=20, guidance_scale=2.0, output_type="pt"
        ).images
        save_sheet(images * 2 - 1, self.args.out / f"{self.args.name}-sheet.png", 10)


def learning_rate_factor(
    spent: float, budget: float, step_here: int, *, warmup: int = 150, cooldown: float = 0.2
) -> float:
    """Warm up by steps, hold, then fall linearly to 2 % over ``cooldown``, the last part of the time budget."""
    left = max(0.0, 1 - spent / budget)
    return min(1.0, (step_here + 1) / warmup, 0.02 + 0.98 * left / cooldown)


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--name", default="unet", help="stem of checkpoint, log and sheet")
    parser.add_argument("--start", type=Path, help="folder of UNet weights to begin with, when there is no checkpoint")
    parser.add_argument("--minutes", type=float, default=90, help="how long this sitting lasts")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--copies", type=int, default=8, help="versions of each drawing to encode, the first as drawn")
    parser.add_argument("--use-copies", type=int, default=8, help="how many of them to train on: fewer learn sooner")
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--text-lr", type=float, default=1e-4)
    parser.add_argument("--cooldown", type=float, default=0.2, help="last part of the sitting in which the rate falls")
    parser.add_argument("--often", nargs="*", default=[], help="NAME=FACTOR: draw a style or a group more often")
    parser.add_argument("--missed", type=Path, help="JSON of evaluate.py: draw what it found wrong more often")
    parser.add_argument("--missed-factor", type=float, default=4.0, help="how much more often")
    parser.add_argument("--without", nargs="*", default=[], help="labels never to draw: the oracle of forgetting them")
    parser.add_argument("--noise-power", type=float, default=0.5)
    parser.add_argument("--p-synonym", type=float, default=0.25)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--fast", action="store_true", help="compile, and compute in bfloat16: 1.4 times the updates")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.fast and torch.backends.cpu.get_cpu_capability() != "AVX512":
        parser.error("--fast: this processor has no bfloat16 and is twenty times slower in it; leave the option out")
    return args


def main() -> None:
    """Train for the given time, checkpoint every 250 steps, sample every 1000."""
    args = parse()
    torch.set_flush_denormal(True)
    trainer = Trainer(args)
    trainer.resume()
    if args.fast:
        trainer.unet.compile()
    log = Log(args.out / f"{args.name}.jsonl", trainer.elapsed)
    started, here, sums = time.time(), 0, [0.0, 0.0]
    while time.time() - started < args.minutes * 60:
        factor = learning_rate_factor(time.time() - started, args.minutes * 60, here, cooldown=args.cooldown)
        losses = trainer.update(factor)
        here += 1
        sums = [a + b / 100 for a, b in zip(sums, losses, strict=True)]
        if trainer.step % 100 == 0:
            log.write(step=trainer.step, loss=sums[0], mse=sums[1], lr_factor=factor)
            sums = [0.0, 0.0]
        if trainer.step % 250 == 0:
            trainer.save(log.elapsed)
        if trainer.step % 1000 == 0:
            trainer.sheet()
    trainer.save(log.elapsed)
    trainer.sheet()


if __name__ == "__main__":
    main()
