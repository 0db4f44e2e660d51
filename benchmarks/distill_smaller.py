"""Forget while distilling to a smaller model: a student of a narrower UNet that is never shown the concept.

The teacher is the embedded model's UNet. The student has its configuration with fewer channels in every block, and
learns to predict what the teacher predicts, on rollouts of the teacher for prompts of its world. In place of a
picture of the concept the teacher is asked for what takes its place: the concept's prompts are taught, on rollouts of
the anchor's prompts, the anchor's prediction (without an anchor, the empty prompt's for a thing and for a style that
of the prompt without its words). No latent of the concept and no prediction for it is ever among the data. The
control, ``told``, is the same distillation that teaches the concept like everything else: what the small model costs
by itself.

The student begins from random weights, or pruned: every second (third, ...) channel of the teacher in every layer,
which keeps concatenations, heads, groups of norms and the frequencies of the time embedding in step; what fewer
inputs take from a sum's standard deviation is multiplied back in. Or it is shallow: all channels, and no middle block,
which costs the least of the UNet's blocks (Kim et al., BK-SDM, arXiv:2305.15798).

Measured are UA of the concept and the share of pictures of other things judged right, beside the teacher's on the
same prompts and seeds, the parameters, and the held-out errors.

Resumes: the training from its checkpoint, and rows that the output holds are not made again.

Example:
    python benchmarks/distill_smaller.py --targets cat --steps 4000 --shrink 2
    python benchmarks/distill_smaller.py --targets --page docs/smaller.md
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SETTINGS, Bench, write_json
from methods_table import write_between
from torch import nn

from aizheimer._seeding import generator_for
from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.backbones.conditioning import joined
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.cache import TensorCache, cache_folder
from aizheimer.data.latents import LatentBank, RolloutPlan
from aizheimer.data.sources import BankSource, teacher_source
from aizheimer.data.trajectories import kept_trajectories
from aizheimer.engine.anchor import BankAnchor
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.loop import train
from aizheimer.engine.noise_problem import DriftMonitor, NoiseProblem, RetainTerm, TargetTerm
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.session import borrowed
from aizheimer.engine.settings import TrainSettings
from aizheimer.modules.parameters import ParameterSelection

TARGETS = ("cat", "penguin", "rocket")
WAYS = ("spared", "told")
INITS = ("pruned", "random", "shallow")
HELD_OUT = 4


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is taught: prompts, encoded, and the teacher's rollouts with its predictions.

    Args:
        prompts: What the student reads.
        bank: The teacher's rollouts of what it was asked for in their place.
    """

    prompts: list[str]
    bank: LatentBank


def narrower(unet: Any, shrink: int, *, init: str, seed: int) -> nn.Module:
    """Return a UNet with a part of the channels of another, or of its blocks.

    Args:
        unet: The teacher.
        shrink: Channels are divided by it, except in a shallow one.
        init: "pruned", "random" or "shallow".
        seed: Of random weights.
    """
    if init == "shallow":
        # Without its record of what was left to the defaults, which would be put back.
        config = {name: value for name, value in unet.config.items() if name != "_use_default_values"}
        shallow: nn.Module = type(unet).from_config({**config, "mid_block_type": None})
        kept = {name: value for name, value in unet.state_dict().items() if not name.startswith("mid_block.")}
        shallow.load_state_dict(kept)
        return shallow.eval()
    channels = [width // shrink for width in unet.config.block_out_channels]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initialisation knows no other source of chance
        student: nn.Module = type(unet).from_config({**unet.config, "block_out_channels": channels})
    if init == "pruned":
        teacher = unet.state_dict()
        student.load_state_dict({name: pruned(teacher[name], own.shape) for name, own in student.state_dict().items()})
    return student.eval()


def pruned(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return every n-th entry of each dimension that must be n times smaller, made up for where inputs are summed.

    Example:
        >>> pruned(torch.arange(8.0).reshape(2, 4), torch.Size([2, 2])) / 2**0.5
        tensor([[0., 2.],
                [4., 6.]])
    """
    strides = [have // want for have, want in zip(weight.shape, shape, strict=True)]
    chosen = weight[tuple(slice(None, want * step, step) for want, step in zip(shape, strides, strict=True))]
    return chosen * strides[1] ** 0.5 if len(strides) > 1 else chosen.clone()


def with_denoiser(backbone: Backbone, unet: nn.Module) -> Backbone:
    """Return the model with another UNet; text encoder, decoder and scheduler are shared."""
    pipe: Any = backbone.pipe
    made = type(pipe)(**{**pipe.components, "unet": unet}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return backbone_for(made, world=backbone.world)


def lesson(
    teacher: Backbone, asked: list[str], read: list[str], *, count: int, plan: RolloutPlan, name: str, folder: Path
) -> Lesson:
    """Roll the teacher out on some prompts; the student will read others in their place, or the same."""
    bank = kept_trajectories(
        teacher,
        teacher.condition(asked).cpu(),
        null_embedding=teacher.condition([""]).cpu(),
        prompt_index=torch.arange(count) % len(asked),
        plan=plan,
        name=f"distillation, {name}",
        seed=0,
        cache=TensorCache(cache_folder(folder)),
        progress=lambda done, total: (
            print(f"{name}: {done} of {total} rollouts", flush=True) if done == total else None
        ),
    )
    return Lesson(prompts=read, bank=bank)


def lessons(
    teacher: Backbone, concept: Concept, *, told: bool, rollouts: int, plan: RolloutPlan, folder: Path
) -> tuple[Lesson, Lesson]:
    """Return what is taught of everything else, and of the concept.

    Prompts of everything else with the concept's words in them are left out of both ways alike.
    """
    world = teacher.world
    others = [text for item in world.vocabulary for text in world.prompts_for(item.label)]
    others = [text for text in (*others, *world.general_prompts) if not mention(concept.target).search(text)]
    order = torch.randperm(len(others), generator=generator_for(0, "distillation")).tolist()
    others = [others[i] for i in order]
    own = world.prompts(concept)
    asked = own if told else anchor_prompts(own, concept)
    kept = lesson(
        teacher, others[:rollouts], others[:rollouts], count=rollouts, plan=plan, name="the rest", folder=folder
    )
    count = max(len(own), rollouts // 16) + HELD_OUT
    label = "the concept" if told else "in its place"
    return kept, lesson(teacher, asked, own, count=count, plan=plan, name=f"{label}: {concept.target}", folder=folder)


def distilled(
    teacher: Backbone, student: Backbone, taught: tuple[Lesson, Lesson], *, settings: TrainSettings, folder: Path
) -> dict[str, float]:
    """Train the student's whole UNet, from the folder's checkpoint if there is one; return the last held-out errors."""
    kept, own = taught
    null = teacher.condition([""]).cpu()
    rows, words = joined([teacher.condition(kept.prompts).cpu(), null]), teacher.condition(own.prompts).cpu()
    banks, concept_banks = (one.bank.split(HELD_OUT) for one in (kept, own))

    def rest(bank: LatentBank) -> BankSource:
        return teacher_source(bank, null_index=len(kept.prompts), device=student.device)

    def replaced(bank: LatentBank) -> BankSource:
        return BankSource.of(bank, target=bank.prediction, device=student.device)

    selection = ParameterSelection(tuple(name for name, _ in student.denoiser.named_parameters()))
    size, chance = settings.batch_size, generator_for(0, "held out")
    run = RunFolder(folder)
    run = run.create(resume=run.holds_run())
    with borrowed(student, selection) as weights:
        problem = NoiseProblem(
            parameters=weights.parameters,
            terms=[
                RetainTerm(backbone=student, source=rest(banks[0]), embeddings=rows, batch_size=size),
                TargetTerm(
                    backbone=student, source=replaced(concept_banks[0]), embeddings=words, target=BankAnchor(),
                    batch_size=max(1, size // 8), weight=1 / 8,
                ),
            ],
            held_out=DriftMonitor(
                backbone=student,
                forget=replaced(concept_banks[1]).draw(16, step=0, generator=chance),
                forget_embeddings=words,
                retain=rest(banks[1]).draw(32, step=0, generator=chance),
                retain_embeddings=rows,
            ),
        )  # fmt: skip
        identity = {"teacher": teacher.fingerprint(), "taught": [len(kept.bank), len(own.bank)]}
        result = train(problem, settings, run=run, callbacks=Callbacks(on_monitor=tell), identity=identity)
    student.denoiser.load_state_dict(result.tensors, strict=False)
    last = [row for row in result.history if row["event"] == "monitor"][-1]
    return {name: last[name] for name in ("forget_drift", "retention_drift")}


def tell(row: dict[str, Any]) -> None:
    """Print a look at the held-out set."""
    print(f"step {row['step']}: error {row['retention_drift']:.4f}, concept {row['forget_drift']:.4f}", flush=True)


def judged(bench: Bench, backbone: Backbone, concept: Concept, *, labels: int, seeds: int) -> dict[str, float]:
    """Return UA and the share of pictures of other things judged right."""
    others = [item.label for item in backbone.world.vocabulary if item.label != concept.target]
    chosen = np.random.default_rng(1).permutation(len(others))[:labels]
    own = bench.right(backbone, [concept.target], seeds=seeds)[concept.target]
    kept = bench.right(backbone, [others[i] for i in sorted(chosen)], seeds=1)
    right = [hit for hits in kept.values() for hit in hits]
    return {"ua": 1 - float(np.mean(own)), "retained": float(np.mean(right)), "pictures": len(right)}


def row(bench: Bench, key: tuple[str, str, str], args: argparse.Namespace) -> dict[str, Any]:
    """Make one student and judge it; the key is the target, how the student begins, and what it is told."""
    target, init, way = key
    teacher, concept = load_model("emoji"), bench.concept(target)
    plan = RolloutPlan(steps=args.rollout_steps)
    taught = lessons(teacher, concept, told=way == "told", rollouts=args.rollouts, plan=plan, folder=args.students)
    student = with_denoiser(teacher, narrower(teacher.denoiser, args.shrink, init=init, seed=0))
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, schedule="cosine", warmup=min(100, args.steps - 1), batch_size=args.batch,
        optimizer="adamw", drift_limit=None, monitor_every=max(1, args.steps // 20), checkpoint_every=100,
    )  # fmt: skip
    folder = args.students / "-".join(part.replace(" ", "-") for part in (*key, str(args.shrink)))
    started = time.perf_counter()
    errors = distilled(teacher, student, taught, settings=settings, folder=folder)
    sizes = {
        name: sum(p.numel() for p in one.denoiser.parameters())
        for name, one in (("teacher", teacher), ("student", student))
    }
    figures = {
        name: judged(bench, one, concept, labels=args.labels, seeds=args.seeds)
        for name, one in (("teacher", teacher), ("student", student))
    }
    return {
        "target": target, "init": init, "way": way, "shrink": args.shrink, "steps": args.steps, "parameters": sizes,
        "seconds": round(time.perf_counter() - started, 1), **errors, **figures,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown, the teacher's figures before the arrow and the student's after it."""
    lines = [
        "| target | begins | concept is | steps | parameters, millions | UA | others right | error, concept's error |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for made in rows:
        sizes = [made["parameters"][who] / 1e6 for who in ("teacher", "student")]
        cells = [
            f"{made['steps']:,}",
            " → ".join(f"{size:.2f}" for size in sizes),
            *(
                " → ".join(f"{100 * made[who][key]:.0f} %" for who in ("teacher", "student"))
                for key in ("ua", "retained")
            ),
            f"{made['retention_drift']:.3f}, {made['forget_drift']:.3f}",
        ]
        lines.append(f"| {made['target']} | {made['init']} | {made['way']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Make the rows that the output does not hold, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/distill_smaller.json"))
    parser.add_argument("--students", type=Path, default=Path("build/students"), help="where checkpoints go")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--inits", nargs="*", choices=INITS, default=["pruned", "random"])
    parser.add_argument("--shrink", type=int, default=2, help="channels are divided by it; not a shallow one's")
    parser.add_argument("--steps", type=int, default=4000, help="steps of AdamW")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rollouts", type=int, default=800, help="trajectories of everything else")
    parser.add_argument("--rollout-steps", type=int, default=20)
    parser.add_argument("--page", type=Path, help="write the table between its marks 'distilled' in this page")
    parser.add_argument("--labels", type=int, default=60, help="other things that are judged")
    parser.add_argument("--seeds", type=int, default=5, help="pictures of each prompt of the concept")
    args = parser.parse_args(arguments)
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    settings = ("shrink", "steps", "lr", "batch", "rollouts", "rollout_steps", "labels", "seeds")
    asked = {name: getattr(args, name) for name in settings}
    bench = Bench(compiled=False, settings=SETTINGS)
    for key in [(target, init, way) for target in args.targets for init in args.inits for way in args.ways]:
        if any(((r["target"], r["init"], r["way"]), r["asked"]) == (key, asked) for r in rows):
            continue
        rows.append({**row(bench, key, args), "asked": asked})
        write_json(args.output, {"rows": rows})
        print(json.dumps(rows[-1]), flush=True)
    if args.page is not None and rows:
        write_between(args.page, "distilled", table(rows))


if __name__ == "__main__":
    main()
