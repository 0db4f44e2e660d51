"""Write the trained parts as the package's assets: fp16 diffusers and transformers folders.

``--restore`` goes the other way: a new machine takes VAE, text encoder and UNet from the assets, and
train_unet.py goes on from there (with a fresh optimiser).

``--model emoji-mmdit`` writes the second model. Its folder holds all that plain diffusers needs, the VAE
and the text encoder once more; judges and CLIP are the first model's, and stay in its folder.

Example:
    python models/emoji/export.py
    python models/emoji/export.py --restore
    python models/emoji/export.py --model emoji-mmdit
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
import train_mmdit
from diffusers import AutoencoderKL, StableDiffusionPipeline
from emoji_data import STYLES, read_concepts, read_names
from train_unet import build_scheduler, build_unet
from training import load_state
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

ASSETS = Path(__file__).parents[2] / "src" / "aizheimer" / "assets"


def averaged_pipeline(out: Path, name: str) -> tuple[StableDiffusionPipeline, int]:
    """The pipeline with averaged weights, and the number of updates behind it."""
    state = load_state(out / f"{name}.pt")
    if state is None:
        raise SystemExit(f"{out / name}.pt: not found; run train_unet.py first")
    text = CLIPTextModel.from_pretrained(out / "text_encoder")
    unet = build_unet(text.config.hidden_size)
    unet.load_state_dict(state["unet_ema"]["shadow"], strict=False)
    text.load_state_dict(state["text_ema"]["shadow"], strict=False)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=text,
        unet=unet,
        scheduler=build_scheduler(),
        tokenizer=CLIPTokenizer.from_pretrained(out / "tokenizer"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe.to(torch.float16), state["step"]


def world(name: str = "emoji") -> dict:
    """The words of this world, for ``aizheimer.concepts.World``; the judges are the first model's."""
    rows, names = read_concepts(), read_names()
    judges = "" if name == "emoji" else "../emoji/"
    return {
        "name": name,
        "object_templates": [f"{{concept}} in {s} style" for s in STYLES],
        "style_templates": ["{subject} in {concept} style"],
        "subjects": [r.label for r in rows],
        "styles": list(STYLES),
        "vocabulary": [
            {"label": r.label, "group": r.group, "tags": list(r.tags), "names": names[r.label]} for r in rows
        ],
        "general_prompts": [*(f"a picture in {s} style" for s in STYLES), "a picture", "a drawing", "an emoji"],
        "guidance": 2.0,
        "judges": {
            "object": f"{judges}judges/object",
            "style": f"{judges}judges/style",
            "clip": f"{judges}clip",
        },
    }


def tidy_configs(folder: Path) -> None:
    """Drop ``_name_or_path``, which names a folder of the machine that trained, and have text encoders load in float32.

    The weights are float16. Where nobody says what to load them in, diffusers takes float32 and transformers what the
    config says; both must be the same.
    """
    for file in folder.rglob("*config.json"):
        config = json.loads(file.read_text())
        changed = {name: value for name, value in config.items() if name != "_name_or_path"}
        changed |= {"dtype": "float32"} if "dtype" in config else {}
        if changed != config:
            file.write_text(json.dumps(changed, indent=2) + "\n")


def restore(out: Path, name: str, assets: Path) -> None:
    """Copy the shipped parts into the build folder, for training to go on from them."""
    pipe = StableDiffusionPipeline.from_pretrained(assets / "pipeline", dtype=torch.float32, local_files_only=True)
    out.mkdir(parents=True, exist_ok=True)
    for part in ("vae", "text_encoder", "tokenizer"):
        getattr(pipe, part).save_pretrained(out / part)
    pipe.unet.save_pretrained(out / f"{name}-start")
    print(f"{out}: train_unet.py --start {out / name}-start goes on from here")


def megabytes(folder: Path) -> float:
    """Size of a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def export_mmdit(out: Path, name: str, assets: Path) -> None:
    """Write the second model's pipeline and words."""
    pipe, step = train_mmdit.averaged_pipeline(out, name)
    pipe.to(torch.float16).save_pretrained(assets / "pipeline")
    tidy_configs(assets / "pipeline")
    (assets / "world.json").write_text(json.dumps(world("emoji-mmdit"), indent=1, ensure_ascii=False) + "\n")
    parts = ", ".join(f"{p.name} {megabytes(p):.1f}" for p in sorted((assets / "pipeline").iterdir()) if p.is_dir())
    print(f"{assets}: {megabytes(assets):.1f} MB ({parts}), transformer after {step} updates")


def main() -> None:
    """Export pipeline, CLIP, judges and words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--model", choices=("emoji", "emoji-mmdit"), default="emoji")
    parser.add_argument("--name", help="stem of the checkpoint; unet or mmdit by default")
    parser.add_argument("--assets", type=Path, help="where to write; the package's folder of the model by default")
    parser.add_argument("--restore", action="store_true", help="copy the assets into the build folder instead")
    args = parser.parse_args()
    args.assets = args.assets or ASSETS / args.model
    args.name = args.name or ("unet" if args.model == "emoji" else "mmdit")
    if args.restore:
        restore(args.out, args.name, ASSETS / "emoji")
        return
    args.assets.mkdir(parents=True, exist_ok=True)
    if args.model == "emoji-mmdit":
        export_mmdit(args.out, args.name, args.assets)
        return
    pipe, step = averaged_pipeline(args.out, args.name)
    pipe.save_pretrained(args.assets / "pipeline")
    tidy_configs(args.assets / "pipeline")
    if (args.out / "clip").exists():
        CLIPModel.from_pretrained(args.out / "clip").half().save_pretrained(args.assets / "clip")
        for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
            shutil.copy(args.out / "clip" / file, args.assets / "clip" / file)
    if (args.out / "judges").exists():
        shutil.copytree(args.out / "judges", args.assets / "judges", dirs_exist_ok=True)
    (args.assets / "world.json").write_text(json.dumps(world(), indent=1, ensure_ascii=False) + "\n")
    print(f"{args.assets}: {megabytes(args.assets):.1f} MB, UNet after {step} updates")


if __name__ == "__main__":
    main()
