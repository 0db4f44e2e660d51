"""Train the two judges of the emoji world: which object, which style, or none of these.

Small ResNets (transformers' ResNetForImageClassification) on strongly augmented renders and
on VAE reconstructions, never on the generator's samples. Both also learn to tell all 1,605 drawings apart
on a head that is thrown away: a style is known by its drawings. A fifth of each batch is nothing at
all (blanks, noise, heavy blurs, blends of two drawings, shuffled patches, half-denoised
latents) with a uniform target, so that confidence means something; a temperature is fitted
on held-out augmentations and a reject threshold chosen there.

Example:
    python models/emoji/train_judges.py
    python models/emoji/train_judges.py --object-judge src/aizheimer/assets/emoji/judges/object
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from emoji_data import STYLES, Dataset, augment
from safetensors.torch import load_file, save_file
from torch import nn
from train_text_encoder import image_processor
from training import Log, cosine, load_state, save_atomic, save_sheet
from transformers import ResNetConfig, ResNetForImageClassification

STRONG = {"shift": 0.09, "scale": 0.2, "degrees": 14.0}
KEPT = 0.99  # share of correctly judged held-out pictures that the threshold must keep


def build_judge(labels: list[str]) -> ResNetForImageClassification:
    """A new 2 M parameter classifier of 64 px pictures."""
    config = ResNetConfig(
        num_channels=3,
        embedding_size=32,
        hidden_sizes=[48, 96, 160, 256],
        depths=[1, 1, 2, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        image_size=64,
    )
    return ResNetForImageClassification(config)


@torch.no_grad()
def reconstructions(out: Path, images: torch.Tensor, seed: int, rounds: int) -> torch.Tensor:
    """VAE reconstructions of augmented drawings, uint8 (rounds, 1605, 3, 64, 64), latents lightly noised."""
    path = out / f"reconstructions-{seed}.safetensors"
    if path.exists():
        return load_file(path)["images"]
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(rounds):
        for chunk in images.split(107):
            z = vae.encode(augment(chunk, generator, **STRONG)).latent_dist.mean
            level = torch.rand(len(z), 1, 1, 1, generator=generator) * 0.25
            decoded = vae.decode(z + level * torch.randn(z.shape, generator=generator)).sample
            result.append(decoded.clamp(-1, 1).add(1).mul(127.5).round().byte())
    stacked = torch.cat(result).view(rounds, len(images), 3, 64, 64)
    save_file({"images": stacked}, path)
    return stacked


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with replicated borders."""
    if sigma < 0.2:
        return images
    radius = max(1, round(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Uniform numbers in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast, saturation, mild blur and pixel noise: the label stays."""
    n = len(images)
    grey = images.mean(1, keepdim=True)
    out = grey + (images - grey) * uniform(0.6, 1.3, (n, 1, 1, 1), generator)
    out = out * uniform(0.8, 1.15, (n, 1, 1, 1), generator) + uniform(-0.12, 0.12, (n, 1, 1, 1), generator)
    out = blur(out, float(uniform(0, 1.3, (1,), generator)))
    return (out + torch.randn(out.shape, generator=generator) * uniform(0, 0.12, (n, 1, 1, 1), generator)).clamp(-1, 1)


def nothing(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn drawings into pictures of nothing in particular, one of six ways each."""
    n, other = len(images), images.roll(1, 0)
    colour = uniform(-1, 1, (n, 3, 1, 1), generator).where(uniform(0, 1, (n, 1, 1, 1), generator) < 0.5, torch.ones(1))
    patches = images.unfold(2, 16, 16).unfold(3, 16, 16)[:, :, torch.randperm(4, generator=generator)]
    patches = patches[:, :, :, torch.randperm(4, generator=generator)].permute(0, 1, 2, 4, 3, 5).reshape(n, 3, 64, 64)
    ways = torch.stack(
        [
            colour.expand_as(images) + 0.05 * torch.randn(images.shape, generator=generator),
            F.interpolate(torch.randn(n, 3, 8, 8, generator=generator), size=64, mode="bilinear"),
            blur(images, float(uniform(5, 9, (1,), generator))),
            (images + other) / 2,
            patches,
            blur(images * 0.3 + torch.randn(images.shape, generator=generator), float(uniform(0, 2, (1,), generator))),
        ]
    )
    return ways[torch.randint(0, len(ways), (n,), generator=generator), torch.arange(n)].clamp(-1, 1)


class Pictures:
    """Draws batches of labelled pictures and of nothing."""

    def __init__(self, out: Path, seed: int, rounds: int = 3) -> None:
        self.images = Dataset.load(out).tensor().flatten(0, 1)
        self.decoded = reconstructions(out, self.images, seed, rounds)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Half renders, half reconstructions: (n, 3, 64, 64) and drawing indices (n,)."""
        index = torch.randint(0, len(self.images), (n,), generator=self.generator)
        half = n // 2
        renders = augment(self.images[index[:half]], self.generator, **STRONG)
        copy = torch.randint(0, len(self.decoded), (n - half,), generator=self.generator)
        decoded = augment(self.decoded[copy, index[half:]], self.generator, shift=0.03, scale=0.05, degrees=3)
        return jitter(torch.cat([renders, decoded]), self.generator), index

    def nothing(self, n: int) -> torch.Tensor:
        """Pictures that no judge should name."""
        index = torch.randint(0, len(self.images), (n,), generator=self.generator)
        return nothing(augment(self.images[index], self.generator, **STRONG), self.generator)


def targets(kind: str, index: torch.Tensor) -> torch.Tensor:
    """Drawing index to class: concepts are rows of five styles."""
    return index // len(STYLES) if kind == "object" else index % len(STYLES)


@torch.no_grad()
def logits_of(model: ResNetForImageClassification, images: torch.Tensor) -> torch.Tensor:
    """Logits in chunks."""
    return torch.cat([model(chunk).logits for chunk in images.split(128)])


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature of least negative log-likelihood on held-out pictures."""
    grid = torch.logspace(-1, 1, 81)
    losses = torch.stack([F.cross_entropy(logits / t, labels) for t in grid])
    return float(grid[losses.argmin()])


def calibration_error(confidence: torch.Tensor, correct: torch.Tensor, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins."""
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = [
        (which == b).float().mean() * (confidence[which == b].mean() - correct[which == b].float().mean()).abs()
        for b in which.unique()
    ]
    return float(torch.stack(gaps).sum())


def assess(model: ResNetForImageClassification, kind: str, out: Path, labels: list[str]) -> dict:
    """Fit temperature and threshold on one held-out set, measure on another."""
    fit, test = Pictures(out, 1001, rounds=1), Pictures(out, 2002, rounds=1)
    images, index = fit.draw(3210)
    logits, truth = logits_of(model, images), targets(kind, index)
    temperature = fit_temperature(logits, truth)
    confidence, named = (logits / temperature).softmax(1).max(1)
    threshold = float(confidence[named == truth].quantile(1 - KEPT))
    images, index = test.draw(6420)
    truth = targets(kind, index)
    confidence, named = (logits_of(model, images) / temperature).softmax(1).max(1)
    accepted = confidence >= threshold
    rejected = (logits_of(model, test.nothing(1000)) / temperature).softmax(1).max(1).values < threshold
    pairs: dict[tuple[str, str], int] = {}
    for a, b in zip(truth[named != truth].tolist(), named[named != truth].tolist(), strict=True):
        pairs[labels[a], labels[b]] = pairs.get((labels[a], labels[b]), 0) + 1
    worst = sorted(pairs.items(), key=lambda p: -p[1])[:25]
    return {
        "kind": kind,
        "temperature": temperature,
        "reject_threshold": threshold,
        "n": len(truth),
        "accuracy_without_reject": float((named == truth).float().mean()),
        "accuracy": float(((named == truth) & accepted).float().mean()),
        "accepted": float(accepted.float().mean()),
        "nothing_rejected": float(rejected.float().mean()),
        "expected_calibration_error": calibration_error(confidence, named == truth),
        "confused_pairs": [{"truth": a, "judged": b, "count": n} for (a, b), n in worst],
    }


def train(
    kind: str, labels: list[str], args: argparse.Namespace, *, trunk: ResNetForImageClassification | None = None
) -> ResNetForImageClassification:
    """Train one judge, resuming from its checkpoint, else from another judge's features."""
    torch.manual_seed(args.seed)
    model, pictures = build_judge(labels), Pictures(args.out, args.seed)
    drawing = nn.Linear(model.config.hidden_sizes[-1], len(pictures.images))
    both = nn.ModuleDict({"judge": model, "drawing": drawing})
    if trunk is not None:
        model.resnet.load_state_dict(trunk.float().resnet.state_dict())
    optimiser = torch.optim.AdamW(both.parameters(), args.lr, weight_decay=0.05)
    checkpoint, step, elapsed = args.out / f"judge-{kind}.pt", 0, 0.0
    if state := load_state(checkpoint):
        both.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        pictures.generator.set_state(state["generator"])
        step, elapsed = state["step"], state["elapsed"]
    log, total, hits = Log(args.out / f"judge-{kind}.jsonl", elapsed), 0.0, 0.0
    steps = args.steps if kind == "object" else args.style_steps
    while step < steps:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * cosine(step, steps)
        images, index = pictures.draw(args.batch)
        truth = targets(kind, index)
        features = model.resnet(torch.cat([images, pictures.nothing(args.batch // 4)])).pooler_output.flatten(1)
        logits = model.classifier(features)
        named, empty = logits[: args.batch], logits[args.batch :]
        loss = F.cross_entropy(named, truth, label_smoothing=0.05) - 0.5 * empty.log_softmax(1).mean()
        loss = loss + F.cross_entropy(drawing(features[: args.batch]), index)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        total, hits = total + loss.item() / 100, hits + (named.argmax(1) == truth).float().mean().item() / 100
        if step % 100 == 0:
            log.write(step=step, loss=total, accuracy=hits)
            total = hits = 0.0
        if step % 250 == 0 or step == steps:
            state = {"model": both.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            save_atomic(state | {"elapsed": log.elapsed, "generator": pictures.generator.get_state()}, checkpoint)
    return model.eval()


def save_judge(model: ResNetForImageClassification, folder: Path, result: dict) -> None:
    """Write the folder; temperature and threshold go into config.json by hand, for transformers drops them."""
    model.half().save_pretrained(folder)
    image_processor().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"temperature": result["temperature"], "reject_threshold": result["reject_threshold"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Train both judges, calibrate them and write folders, figures and a sheet of nothings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--style-steps", type=int, default=1500)
    parser.add_argument("--object-judge", type=Path, help="folder of a finished object judge: train the style's only")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    # A style is known by its drawings: the style judge starts from features that tell them apart.
    labels = {"object": [c.label for c in Dataset.load(args.out).concepts], "style": list(STYLES)}
    figures, model = [], None
    for kind, names in labels.items():
        if kind == "object" and args.object_judge:
            model = ResNetForImageClassification.from_pretrained(args.object_judge).float().eval()
        else:
            model = train(kind, names, args, trunk=model)
        result = assess(model, kind, args.out, names)
        save_judge(model, args.out / "judges" / kind, result)
        figures.append(result)
        print(json.dumps({k: v for k, v in result.items() if k != "confused_pairs"}), flush=True)
    (args.out / "judges.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False))
    pictures = Pictures(args.out, 2002, rounds=1)
    save_sheet(torch.cat([pictures.draw(32)[0], pictures.nothing(32)]), args.out / "judges-sheet.png", 16)


if __name__ == "__main__":
    main()
