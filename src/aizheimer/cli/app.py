"""Assemble the commands and run them behind one error boundary."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aizheimer._processes import process_count
from aizheimer.cli import guard
from aizheimer.cli.attack import attack
from aizheimer.cli.bench import bench
from aizheimer.cli.certificate import certificate
from aizheimer.cli.check import check
from aizheimer.cli.compare import compare
from aizheimer.cli.env import env
from aizheimer.cli.evaluate import evaluate
from aizheimer.cli.export import export
from aizheimer.cli.forget import forget
from aizheimer.cli.generate import generate
from aizheimer.cli.hub import pull, push
from aizheimer.cli.imports import import_
from aizheimer.cli.interference import interference
from aizheimer.cli.ls import ls
from aizheimer.cli.plan import plan
from aizheimer.cli.report import report
from aizheimer.cli.show import show
from aizheimer.cli.shrink import shrink
from aizheimer.cli.stack import diff, stack
from aizheimer.cli.studio import studio
from aizheimer.cli.tune import tune
from aizheimer.cli.validate import validate
from aizheimer.cli.verify import verify
from aizheimer.errors import InputError

app = typer.Typer(
    name="aizheimer",
    cls=guard.InterruptibleGroup,
    help="Make a text-to-image diffusion model forget a concept, and measure what it forgot and what it kept.",
    epilog='Try: aizheimer forget "Santa Claus" --out runs/santa-claus',
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = {
    forget: (
        'aizheimer forget "Santa Claus" --keep "Mrs. Claus"',
        "aizheimer forget cat --method aizheimer-paper --out runs/cat",
        "aizheimer forget twemoji training.steps=60",
        "aizheimer forget cat dog --method spm --out runs/pets",
        "aizheimer forget fox --onto runs/pets",
    ),
    tune: (
        'aizheimer tune "Santa Claus" --require "UA>=0.95" --minimise "IRA drop"',
        'aizheimer tune cat --method uce --require "UA>=0.9" --search strength=0.2..1.2 --trials 8',
        'aizheimer tune cat --method esd --require "UA>=0.9" --backend ray --workers 4',
    ),
    shrink: ('aizheimer shrink runs/santa-claus --require "UA>=0.95"',),
    plan: ('aizheimer plan "Santa Claus" --method esd', "aizheimer plan cat --model path/to/model --fit 8GiB"),
    evaluate: ("aizheimer evaluate runs/santa-claus", "aizheimer evaluate runs/santa-claus --require ua=0.9"),
    attack: (
        "aizheimer attack runs/santa-claus --attack relearn",
        "aizheimer attack runs/santa-claus --attack relearn --no-controls weights=full steps=20",
        "aizheimer attack runs/santa-claus --all relearn.steps=20 quantise.bits=[4]",
    ),
    compare: ("aizheimer compare runs/esd runs/uce", "aizheimer compare runs/* --to best --out comparison"),
    interference: ("aizheimer interference runs/cat runs/dog runs/fox", "aizheimer interference runs/* --images 20"),
    check: ("aizheimer check runs/santa-claus", "aizheimer check runs/santa-claus --gate my-gate.yaml"),
    bench: (
        "aizheimer bench --method aizheimer --method esd --concept cat --out bench",
        "aizheimer bench plan.yaml --backend ray --workers 4",
    ),
    certificate: ("aizheimer certificate runs/santa-claus",),
    verify: ("aizheimer verify runs/santa-claus", "aizheimer verify runs/santa-claus --samples 40"),
    report: ("aizheimer report runs/santa-claus", "aizheimer report runs/santa-claus --card"),
    export: (
        "aizheimer export runs/santa-claus --format lora-kohya",
        "aizheimer export runs/santa-claus --format single-file --out no-santa.safetensors",
    ),
    import_: (
        'aizheimer import esd-van-gogh.pt --base path/to/stable-diffusion-v1-4 --concept "Van Gogh"',
        "aizheimer import delta.bin --base path/to/stable-diffusion-v1-4 --concept cat --method concept-ablation",
    ),
    stack: (
        "aizheimer stack runs/cat runs/dog@0.5 --out runs/pets",
        "aizheimer stack runs/pets --minus runs/cat --out runs/dog-only",
    ),
    diff: ("aizheimer diff runs/cat runs/cat-2",),
    push: ("aizheimer push runs/santa-claus somebody/no-santa-claus --licence openrail --gate release",),
    pull: ("aizheimer pull somebody/no-santa-claus",),
    generate: ('aizheimer generate "Santa Claus in noto style" --edit runs/santa-claus -n 4',),
    studio: ("aizheimer studio", "aizheimer studio --model emoji --model path/to/stable-diffusion-v1-5"),
    show: ("aizheimer show runs/santa-claus", "aizheimer show aizheimer", "aizheimer show relearn"),
    ls: ("aizheimer ls", "aizheimer ls methods", "aizheimer ls attacks"),
    validate: ("aizheimer validate my-recipe.yaml", "aizheimer validate aizheimer training.steps=60"),
    env: ("aizheimer env --json",),
}
"""Every command, in the order of the help page, with what one might type."""

TOGETHER = ("forget", "evaluate")
"""Commands that several processes can do together, as accelerate starts them."""

for command, examples in EXAMPLES.items():
    app.command(name=command.__name__.rstrip("_"), epilog="\n\n".join(f"Try: {example}" for example in examples))(
        command
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        from aizheimer import __version__

        typer.echo(f"aizheimer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make a text-to-image diffusion model forget a concept, and measure what it forgot and what it kept."""
    del version  # handled by its callback before anything else
    if process_count() > 1 and context.invoked_subcommand not in TOGETHER:
        raise InputError(
            f"Got {process_count()} processes for {context.invoked_subcommand or 'the help page'}; only "
            f"{' and '.join(TOGETHER)} share their work. Start it without accelerate launch."
        )
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        args: The words after the program's name; those of the process by default.

    Returns:
        0 done, 1 failed, 2 bad input, 3 a requested gate is not met, 130 interrupted.
    """
    return guard.run(typer.main.get_command(app), sys.argv[1:] if args is None else args)
