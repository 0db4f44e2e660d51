"""Draw one prompt with an edit at several strengths: an edit is a change of weights, so it can be scaled.

python examples/strength.py runs/santa-claus
"""

import sys
from pathlib import Path

import torch
from PIL import Image

import aizheimer

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def main(folder: Path) -> None:
    """Save strength.png into the run folder: one picture for each strength, at the same seed."""
    edit = aizheimer.load_edit(folder)
    backbone = aizheimer.load_model("emoji")
    prompt = backbone.world.prompts_for(edit.provenance.concept.target)[0]
    pictures = []
    for strength in STRENGTHS:
        with edit.scale(strength).applied(backbone.pipe) as pipe:
            generator = torch.Generator().manual_seed(7)
            pictures.append(pipe(prompt, num_inference_steps=20, generator=generator).images[0])

    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * width, 0))
    row.save(folder / "strength.png")
    print(f"{folder / 'strength.png'}: strengths {', '.join(map(str, STRENGTHS))}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/santa-claus"))
