"""Forget one concept of the shipped model, draw before and after, and measure it.

python examples/forget_and_compare.py "Santa Claus" runs/example
"""

import sys
from pathlib import Path

import torch

import aizheimer


def main(concept: str, folder: Path) -> None:
    """Make the edit, save two pictures and print the figures."""
    backbone = aizheimer.load_model("emoji")
    pipe = backbone.pipe
    edit = aizheimer.forget(pipe, concept, seed=0)
    edit.save(folder)

    prompt = backbone.world.prompts_for(concept)[0]

    def draw(name: str) -> None:
        generator = torch.Generator().manual_seed(7)
        pipe(prompt, num_inference_steps=20, generator=generator).images[0].save(folder / name)

    draw("before.png")
    with edit.applied(pipe):
        draw("after.png")

    result = aizheimer.evaluate(pipe, edit)
    print(f"unlearning accuracy        {result.ua.value:.2f}")
    print(f"in-domain retain accuracy  {result.ira.value:.2f} (before: {result.ira.original:.2f})")
    print(f"pictures in                {folder}")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "Santa Claus", Path(sys.argv[2] if len(sys.argv) > 2 else "runs/example")
    )
