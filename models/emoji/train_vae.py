"""Train the AutoencoderKL of the emoji world: 64 px images, factor 4, 16 x 16 x 4 latents.

A plain VAE of this size gives latents that a small UNet cannot learn to denoise. So the
first three latent channels are tied to the 4x average-pooled picture (standardised per
channel) and the fourth is kept near unit variance: mean 0, deviation 1, smooth, with
scaling factor 1, and the latent previews the picture for free.

Loss: L1 + 0.5 L1 of image gradients + 0.3 anchor + small regularisers, on 32 px crops.

Example:
    python models/emoji/train_vae.py --minutes 12
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from emoji_data import Dataset, augment
from training import EMA, Log, cosine, load_state, save_atomic, save_sheet

CROP = 32
LATENT_NOISE = 0.08


def build_vae() -> AutoencoderKL:
    """A new 64 px autoencoder with two downsamplings."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def anchor_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation per channel of the 4x pooled pictures, each (1, 3, 1, 1)."""
    pooled = F.avg_pool2d(images, 4)
    return pooled.mean((0, 2, 3), keepdim=True), pooled.std((0, 2, 3), keepdim=True)


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Finite differences along height and width."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def vae_loss(
    vae: AutoencoderKL, images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """All parts of the loss on a batch of crops in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    latents = posterior.mean
    noise = torch.randn(latents.shape, generator=generator)
    decoded = vae.decode(latents + LATENT_NOISE * noise).sample
    pairs = zip(gradients(decoded), gradients(images), strict=True)
    detail = latents[:, 3:]
    return {
        "l1": (decoded - images).abs().mean(),
        "gradient": 0.5 * sum((a - b).abs().mean() for a, b in pairs),
        "anchor": 0.3 * F.mse_loss(latents[:, :3], (F.avg_pool2d(images, 4) - mean) / std),
        "detail": 0.05 * (detail.mean().square() + (detail.square().mean() - 1).square()),
        "smooth": 0.02 * sum(g.square().mean() for g in gradients(detail)),
        # The posterior's spread equals the noise the decoder was trained to bear.
        "spread": 0.01 * (posterior.logvar - 2 * torch.log(torch.tensor(LATENT_NOISE))).square().mean(),
    }


def random_crops(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random CROP x CROP window of each picture."""
    spots = torch.randint(0, images.shape[-1] - CROP + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([im[:, y : y + CROP, x : x + CROP] for im, (y, x) in zip(images, spots, strict=True)])


def main() -> None:
    """Train, or go on from the last checkpoint, for a given time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    images = Dataset.load(args.out).tensor().flatten(0, 1)
    generator = torch.Generator().manual_seed(args.seed)
    mean, std = anchor_statistics(augment(images[::4], generator))
    vae = build_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = EMA(vae, 0.998)
    checkpoint = args.out / "vae.pt"
    step, elapsed = 0, 0.0
    if state := load_state(checkpoint):
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        ema.load_state_dict(state["ema"])
        generator.set_state(state["generator"])
        step, elapsed = state["step"], state["elapsed"]
    log = Log(args.out / "vae.jsonl", elapsed)
    totals: dict[str, float] = {}
    while step < args.steps:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * cosine(step, args.steps)
        index = torch.randint(0, len(images), (args.batch,), generator=generator)
        parts = vae_loss(vae, random_crops(augment(images[index], generator), generator), mean, std, generator)
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        ema.update(vae)
        step += 1
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value.item() / 200
        if step % 200 == 0 or step == args.steps:
            log.write(step=step, **totals)
            totals = {}
            state = {"model": vae.state_dict(), "ema": ema.state_dict(), "optimiser": optimiser.state_dict()}
            save_atomic(state | {"step": step, "elapsed": log.elapsed, "generator": generator.get_state()}, checkpoint)
    ema.copy_to(vae)
    vae.eval().save_pretrained(args.out / "vae")
    with torch.no_grad():
        picks = augment(images[:: len(images) // 16][:16], generator)
        both = torch.stack([picks, vae(picks).sample], 1).flatten(0, 1)
    save_sheet(both, args.out / "vae-sheet.png", 8)


if __name__ == "__main__":
    main()
