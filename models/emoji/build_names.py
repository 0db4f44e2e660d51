"""Write names.csv: what the 321 concepts are called in five other languages, from CLDR.

Fetches emojibase-data with ``npm pack`` (nothing is executed from it), of which concepts.csv is made too, and takes
each emoji's short name. The names also go into the package's world.json, on which no picture and no edit depends: they
are what the suite ``families`` asks for in other languages.

Example:
    python models/emoji/build_names.py
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from emoji_data import LANGUAGES, NAMES_FILE, read_concepts, read_names

PACKAGE = "emojibase-data@17.0.0"
WORLD = Path(__file__).parents[2] / "src" / "aizheimer" / "assets" / "emoji" / "world.json"


def fetch(cache: Path) -> Path:
    """Download the package once and return its archive."""
    found = next(cache.glob("emojibase-data-*.tgz"), None)
    if found is None:
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=cache, check=True, stdout=sys.stderr)
        found = next(cache.glob("emojibase-data-*.tgz"))
    return found


def short_names(archive: Path, language: str) -> dict[str, str]:
    """Return CLDR's short names by hexcode, without what is in brackets: "Polizist(in)" is "Polizist"."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{language}/compact.json")
        if member is None:
            raise FileNotFoundError(f"{archive} holds nothing in {language}")
        rows = json.load(member)
    flat = [row for emoji in rows for row in (emoji, *emoji.get("skins", ()))]
    return {row["hexcode"]: re.sub(r"\s*\(.*?\)", "", row["label"]).strip() for row in flat}


def write_names(archive: Path, file: Path) -> None:
    """Write a line for each concept, a column for each language; empty where the name is a label of this world.

    "Koala" is no other name than "koala", and what is another thing's label would ask for that.
    """
    concepts = read_concepts()
    labels = {row.label.casefold() for row in concepts}
    names = {language: short_names(archive, language) for language in LANGUAGES}
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["label", *LANGUAGES])
        for row in concepts:
            found = [names[language].get(row.hexcode, "") for language in LANGUAGES]
            writer.writerow([row.label, *("" if name.casefold() in labels else name for name in found)])


def put_into(world: Path) -> None:
    """Put the names into a world that is there already; nothing else of it changes."""
    content, names = json.loads(world.read_text(encoding="utf-8")), read_names()
    for item in content["vocabulary"]:
        item["names"] = names[item["label"]]
    world.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Fetch, write the table, and put it into the world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build", help="where downloads are kept")
    args = parser.parse_args()
    write_names(fetch(args.out / "names"), NAMES_FILE)
    put_into(WORLD)
    names = read_names()
    print(f"{NAMES_FILE}: {sum(map(len, names.values()))} names of {len(names)} concepts")


if __name__ == "__main__":
    main()
