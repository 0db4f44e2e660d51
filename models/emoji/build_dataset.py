"""Render the icon sets into one array: 321 concepts x 5 styles, RGB on white.

Fetches five npm packages with ``npm pack`` (nothing is executed from them), reads the
SVG bodies of ``icons.json`` and renders them with resvg. Idempotent: a finished set
is not rendered again.

``--imagefolder`` also writes the drawings at 64 px with their captions, as HuggingFace's imagefolder: what
``aizheimer forget ... --method data-censoring --images FOLDER`` trains on.

Example:
    python models/emoji/build_dataset.py --out models/emoji/build
    python models/emoji/build_dataset.py --imagefolder models/emoji/build/drawings
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from emoji_data import RENDER_SIZE, STYLES, Dataset, read_concepts, write_imagefolder
from PIL import Image

PACKAGES = {
    "noto": "@iconify-json/noto",
    "blob": "@iconify-json/noto-v1",
    "twemoji": "@iconify-json/twemoji",
    "fluent": "@iconify-json/fluent-emoji",
    "flat": "@iconify-json/fluent-emoji-flat",
}
MARGIN = 0.04  # white border on each side, as a share of the picture


def fetch_icons(style: str, cache: Path) -> dict:
    """Download one icon set with ``npm pack`` (once) and return its ``icons.json``."""
    folder = cache / style
    target = folder / "icons.json"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", PACKAGES[style]], cwd=folder, check=True, stdout=sys.stderr)
        archive = next(folder.glob("*.tgz"))
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/icons.json")
            if member is None:
                raise FileNotFoundError(f"{archive} holds no package/icons.json")
            partial = target.with_suffix(".tmp")
            partial.write_bytes(member.read())
        partial.replace(target)
        archive.unlink()
    return json.loads(target.read_text())


def svg_of(icons: dict, slug: str) -> str:
    """Return a complete SVG document for ``slug``, following aliases, with a white margin."""
    entry = icons["icons"].get(slug)
    if entry is None:
        parent = icons["aliases"][slug]["parent"]
        entry = {**icons["icons"][parent], **{k: v for k, v in icons["aliases"][slug].items() if k != "parent"}}
    left, top = entry.get("left", icons.get("left", 0)), entry.get("top", icons.get("top", 0))
    width = entry.get("width", icons.get("width", 16))
    height = entry.get("height", icons.get("height", 16))
    side = max(width, height) * (1 + 2 * MARGIN)
    x, y = left - (side - width) / 2, top - (side - height) / 2
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x} {y} {side} {side}">{entry["body"]}</svg>'


def render(svg: str, size: int) -> np.ndarray:
    """Rasterise an SVG to ``size`` x ``size`` uint8 RGB on white."""
    import resvg_py  # an extra, and --help should not need it

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(canvas, picture).convert("RGB"))


def render_style(style: str, slugs: list[str], out: Path) -> np.ndarray:
    """Render every slug of one style; the result is cached as ``images-<style>.npy``."""
    target = out / f"images-{style}.npy"
    if target.exists():
        return np.load(target)
    icons = fetch_icons(style, out / "icons")
    images = np.stack([render(svg_of(icons, slug), RENDER_SIZE) for slug in slugs])
    partial = out / f"images-{style}.tmp.npy"
    np.save(partial, images)
    partial.replace(target)
    print(f"{style}: {len(images)} drawings at {RENDER_SIZE} px", file=sys.stderr)
    return images


def sample_sheet(data: Dataset, path: Path, rows: int = 10) -> None:
    """Write a sheet of evenly spaced concepts (rows) in every style (columns)."""
    picks = np.linspace(0, len(data.concepts) - 1, rows).astype(int)
    sheet = np.concatenate([np.concatenate(list(data.images[i]), axis=1) for i in picks], axis=0)
    Image.fromarray(sheet).save(path)


def main() -> None:
    """Build the dataset folder and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--imagefolder", type=Path, metavar="FOLDER", help="write captioned drawings here as well")
    parser.add_argument("--captions", type=int, default=8, help="captions of each captioned drawing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    slugs = [c.slug for c in read_concepts()]
    for style in STYLES:
        render_style(style, slugs, args.out)
    data = Dataset.load(args.out)
    sample_sheet(data, args.out / "dataset-sheet.png")
    print(f"{len(data.concepts)} concepts x {len(STYLES)} styles in {args.out}")
    if args.imagefolder is not None:
        count = write_imagefolder(data, args.imagefolder, captions=args.captions)
        print(f"{count} captioned drawings in {args.imagefolder}")


if __name__ == "__main__":
    main()
