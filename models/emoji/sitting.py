"""What the trainings of both models share: the drawings and how often each is seen, and a sitting of so many minutes.

Training time adds up over sittings: ``--minutes`` more from the last checkpoint, with a cool-down of the learning rate
over the last fifth and a fresh warm-up the next time.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from emoji_data import CANONICAL, STYLES, ConceptRow, Dataset, augment, caption, plain, tag_counts
from safetensors.torch import load_file, save_file
from training import Log, save_sheet

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


@dataclass(frozen=True)
class Drawings:
    """The drawings as latents, and how often each is seen.

    Attributes:
        latents: (versions, drawings, 4, 16, 16).
        concepts: Drawing i is of concept i // 5 in style i % 5.
        counts: How many concepts carry each tag.
        often: (drawings,) relative frequencies.
        p_synonym: Share of captions that name synonyms only.
    """

    latents: torch.Tensor
    concepts: list[ConceptRow]
    counts: dict[str, int]
    often: torch.Tensor
    p_synonym: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> Drawings:
        """Encode the drawings, or read their latents, and weigh them as the command line says."""
        latents = cached_latents(args.out, args.copies, args.seed)[: args.use_copies]
        concepts = Dataset.load(args.out).concepts
        often = sampling_weights(concepts, args.often, args.without)
        if args.missed:
            often[missed(args.missed, concepts)] *= args.missed_factor
        return cls(latents, concepts, tag_counts(concepts), often, args.p_synonym)

    def batch(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Latents and captions of random drawings; a tenth of the captions are empty."""
        index = torch.multinomial(self.often, n, replacement=True, generator=generator)
        copy = torch.randint(0, len(self.latents), (n,), generator=generator)
        rng = random.Random(int(torch.randint(0, 2**31, (1,), generator=generator)))
        texts = []
        for i in index.tolist():
            row, style = self.concepts[i // len(STYLES)], STYLES[i % len(STYLES)]
            empty = rng.random() < 0.1
            texts.append("" if empty else caption(row, style, self.counts, rng, p_synonym=self.p_synonym))
        return self.latents[copy, index], texts


class Trainer(Protocol):
    """What a sitting needs of a training."""

    step: int

    def update(self, factor: float) -> tuple[float, float]:
        """One optimiser step at a share of the learning rate; returns the trained and the plain loss."""

    def save(self, elapsed: float) -> None:
        """Checkpoint everything that the next update needs."""

    def sheet(self) -> None:
        """Draw the sample sheet."""


def learning_rate_factor(
    spent: float, budget: float, step_here: int, *, warmup: int = 150, cooldown: float = 0.2
) -> float:
    """Warm up by steps, hold, then fall linearly to 2 % over ``cooldown``, the last part of the time budget."""
    left = max(0.0, 1 - spent / budget)
    return min(1.0, (step_here + 1) / warmup, 0.02 + 0.98 * left / cooldown)


def sit(trainer: Trainer, log: Log, args: argparse.Namespace) -> None:
    """Train for the given time, checkpoint every 250 steps, sample every ``--sheet-every``."""
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
        if trainer.step % args.sheet_every == 0:
            trainer.sheet()
    trainer.save(log.elapsed)
    trainer.sheet()


def draw_sheet(pipe, path: Path) -> None:
    """Sample ten concepts in five styles with fixed seeds."""
    prompts = [CANONICAL.format(label=label, style=s) for label in SHEET_LABELS for s in STYLES]
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    images = pipe(prompts, generator=generators, num_inference_steps=20, guidance_scale=2.0, output_type="pt").images
    save_sheet(images * 2 - 1, path, 10)


def add_arguments(parser: argparse.ArgumentParser, *, name: str) -> None:
    """Add the arguments of a sitting, and of what is drawn how often."""
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--name", default=name, help="stem of checkpoint, log and sheet")
    parser.add_argument("--minutes", type=float, default=90, help="how long this sitting lasts")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--copies", type=int, default=8, help="versions of each drawing to encode, the first as drawn")
    parser.add_argument("--use-copies", type=int, default=8, help="how many of them to train on: fewer learn sooner")
    parser.add_argument("--cooldown", type=float, default=0.2, help="last part of the sitting in which the rate falls")
    parser.add_argument("--often", nargs="*", default=[], help="NAME=FACTOR: draw a style or a group more often")
    parser.add_argument("--missed", type=Path, help="JSON of evaluate.py: draw what it found wrong more often")
    parser.add_argument("--missed-factor", type=float, default=4.0, help="how much more often")
    parser.add_argument("--without", nargs="*", default=[], help="labels never to draw: the oracle of forgetting them")
    parser.add_argument("--p-synonym", type=float, default=0.25)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--sheet-every", type=int, default=1000, help="updates between two sample sheets")
    parser.add_argument("--fast", action="store_true", help="compute in bfloat16; never compiled as well")
    parser.add_argument("--seed", type=int, default=0)


def check_fast(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse ``--fast`` where it is slow.

    A UNet that is compiled and runs under autocast has wrong gradients with torch 2.13 on a CPU: of the emoji UNet's
    326 parameters 291 point elsewhere (cosine 0.23 with the right gradient in all), and nothing says so.
    """
    if args.fast and torch.backends.cpu.get_cpu_capability() != "AVX512":
        parser.error("--fast: this processor has no bfloat16 and is twenty times slower in it; leave the option out")
