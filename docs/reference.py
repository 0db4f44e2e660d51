"""Write what the documentation takes from the code: reference pages, and blocks on methods' and attacks' pages.

    python docs/reference.py          write what is out of date
    python docs/reference.py --check  say what is, and exit with 1 if anything is

A block stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``; the rest of a page is written by hand. A
test runs the check.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

from aizheimer._registry import ATTACKS, METHODS
from aizheimer.backbones.families import FAMILIES, kinds
from aizheimer.cli.app import app
from aizheimer.cli.matrix import method_matrix
from aizheimer.cli.method_page import parameters, with_recipe
from aizheimer.recipes.load import list_recipes, load_recipe, recipe_notes
from aizheimer.recipes.schema import RecipeFile

DOCS = Path(__file__).parent
GENERATED = "<!-- Written by docs/reference.py; do not edit. -->\n"


def method_blocks(name: str) -> dict[str, str]:
    """Return the generated blocks of a method's page: what it is at a glance, and its parameters."""
    kind = METHODS.get(name)
    info = kind.info
    families = ", ".join(
        FAMILIES[family].title + (f" (with {' and '.join(f'`{o}`' for o in settings)})" if settings else "")
        for family, settings in info.families.items()
    )
    rows = [
        ("kind", info.kind_in_words),
        ("edits", info.edits),
        ("needs", ", ".join(info.needs) or "nothing but the concept"),
        ("works on", families),
        ("status", info.status),
        ("paper", _linked(info.paper)),
    ]
    glance = f"`aizheimer forget CONCEPT --method {name}`\n\n" + table(("", ""), rows)
    return {"glance": glance, "parameters": _method_parameters(name)}


def _method_parameters(name: str) -> str:
    """Return a method's parameters as a table, and one for each group of them that is off by default."""
    kind, recipe = METHODS.get(name), load_recipe(name)
    off = optional_groups(kind)
    fields = [f for f in with_recipe(kind(), recipe.method) if f["name"].partition(".")[0] not in off]
    fields += [_switch(group, kind, getattr(recipe.method, group)) for group in off]
    order = list(kind.model_fields)
    fields.sort(key=lambda field: order.index(field["name"].partition(".")[0]))
    used = any("recipe" in field for field in fields)
    intro = f"`--method {name}` uses the recipe of that name; its column says where it departs from the defaults.\n\n"
    parts = [(intro if used else "") + _parameter_table(fields, default="method's default" if used else "default")]
    for group, its in off.items():
        own, value = its(), getattr(recipe.method, group)
        rows = with_recipe(own, own if value is None else value)
        shown = [{**field, "name": f"{group}.{field['name']}"} for field in rows]
        by = " The recipe switches it on." if value is not None else ""
        parts.append(f"Where `{group}` is on (`{group}={{}}`, or any of these):{by}\n\n{_parameter_table(shown)}")
    return "\n\n".join(parts)


def optional_groups(kind: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the groups of a method's parameters that are null by default, and so would be left out of a table."""
    found = {}
    for name, info in kind.model_fields.items():
        groups = [a for a in get_args(info.annotation) if inspect.isclass(a) and issubclass(a, BaseModel)]
        if info.default is None and groups:
            found[name] = groups[0]
    return found


def _switch(group: str, kind: type[BaseModel], value: BaseModel | None) -> dict[str, Any]:
    """Return the row of a whole group: null by default, and what a recipe sets in it."""
    row = {"name": group, "default": None, "description": kind.model_fields[group].description or ""}
    own = {} if value is None else with_recipe(type(value)(), value)
    set_by_recipe = {field["name"]: field["recipe"] for field in own if "recipe" in field}
    return row if value is None else row | {"recipe": set_by_recipe}


def _parameter_table(fields: list[dict[str, Any]], *, default: str = "default") -> str:
    used = any("recipe" in field for field in fields)
    header = ("parameter", default, "recipe", "meaning") if used else ("parameter", default, "meaning")
    return table(header, [_parameter(field, with_column=used) for field in fields])


def matrix_block() -> str:
    """Return which method works on which kind of model, as ``aizheimer ls --matrix`` prints it."""
    rows = [
        (f"[{name}](methods/{name}.md)", *(_works(cell) for cell in cells.values()))
        for name, cells in method_matrix().items()
    ]
    return table(("method", *(kind.title for kind in kinds().values())), rows)


def _works(cell: dict[str, Any]) -> str:
    settings = " and ".join(f"`{setting}`" for setting in cell["settings"])
    return ("yes, with " + settings if settings else "yes") if cell["works"] else "no"


def _parameter(field: dict[str, Any], *, with_column: bool) -> tuple[str, ...]:
    recipe = [code(field["recipe"]) if "recipe" in field else ""] if with_column else []
    return f"`{field['name']}`", code(field["default"]), *recipe, field["description"]


def attack_blocks(name: str) -> dict[str, str]:
    """Return the generated blocks of an attack's page."""
    kind = ATTACKS.get(name)
    info = kind.info
    rows = [
        ("access", info.access),
        ("changes", info.changes),
        ("needs", ", ".join(info.needs) or "nothing but the edited model"),
        ("works on", info.works_on),
        ("paper", _linked(info.paper)),
    ]
    cells = [(f"`{f['name']}`", code(f["default"]), f["description"]) for f in parameters(kind())]
    glance = f"`aizheimer attack RUN --attack {name}`\n\n" + table(("", ""), rows)
    return {"glance": glance, "parameters": table(("parameter", "default", "meaning"), cells)}


def cli_page() -> str:
    """Return the reference of all commands, from the command line's own definitions."""
    group: Any = typer.main.get_command(app)
    parts = [
        GENERATED,
        "# Command line\n\nEvery command, with every argument and option. Results go to stdout, progress to stderr.\n"
        "Exit codes: 0 done, 1 failed, 2 bad input, 3 a requirement is not met, 130 interrupted.\n",
    ]
    for name, command in group.commands.items():
        parts.append(f"## {name}\n\n{_prose(command.help or '')}\n")
        with command.make_context(name, [], resilient_parsing=True) as context:
            usage = " ".join(["aizheimer", name, *command.collect_usage_pieces(context)])
            rows = [row for option in command.params if (row := _option(option, context)) is not None]
        parts.append(f"```text\n{usage}\n```\n")
        parts.append(table(("argument or option", "default", "meaning"), rows) + "\n")
        examples = re.findall(r"Try: (.*)", command.epilog or "")
        if examples:
            parts.append("```console\n" + "".join(f"$ {line}\n" for line in examples) + "```\n")
    return "\n".join(parts)


def recipes_page() -> str:
    """Return the reference of recipe files, and what each shipped recipe sets."""
    fields = [(f"`{name}`", str(info.description)) for name, info in RecipeFile.model_fields.items()]
    parts = [
        GENERATED,
        "# Recipes and configuration\n\nA recipe is a YAML file that names a method and its parameters. "
        "`--method` takes a shipped recipe's name or a file;\n`key=value` on the command line replaces a parameter, "
        "nested ones by dots: `training.steps=60`. Unknown keys are\nerrors, and all mistakes are told at once.\n",
        table(("key", "meaning"), fields) + "\n",
        "A recipe is checked without running it:\n\n```console\n$ aizheimer validate my-recipe.yaml\n"
        "$ aizheimer show esd\n```\n",
        "## Shipped recipes\n",
    ]
    for name, description in list_recipes().items():
        recipe = load_recipe(name)
        own = type(recipe.method)()
        rows = [
            (f"`{f['name']}`", code(f["recipe"]), code(f["default"]))
            for f in with_recipe(own, recipe.method)
            if "recipe" in f
        ]
        parts.append(
            f"### {name}\n\n{description} Method: [{recipe.method_name}](../methods/{recipe.method_name}.md).\n"
        )
        if notes := recipe_notes(name):
            parts.append(f"{_prose(notes)}\n")
        parts.append(table(("parameter", "recipe", "method's default"), rows) + "\n")
    bare = [name for name in METHODS.names() if name not in list_recipes()]
    links = ", ".join(f"[{name}](../methods/{name}.md)" for name in bare)
    parts.append(f"### Methods without a recipe\n\nThese start from their own defaults: {links}.\n")
    parts.append("## Environment\n\n" + table(("variable", "meaning"), ENVIRONMENT) + "\n")
    return "\n".join(parts)


ENVIRONMENT = [
    ("`AIZHEIMER_CACHE`", "Folder of what is drawn and encoded once; `~/.cache/aizheimer` without it."),
    ("`HF_HUB_OFFLINE`", "Read by huggingface_hub: set it to 1 and models are taken from its cache alone."),
    ("`OMP_NUM_THREADS`", "Read by torch: cores that one process computes on."),
]


def papers_page() -> str:
    """Return the index of papers: what each method, attack and metric is made after."""
    rows = [(_linked(METHODS.get(n).info.paper), "method", f"[{n}](methods/{n}.md)") for n in METHODS.names()]
    rows += [(_linked(ATTACKS.get(n).info.paper), "attack", f"[{n}](attacks/{n}.md)") for n in ATTACKS.names()]
    rows += metric_papers((DOCS / "metrics.md").read_text(encoding="utf-8"))
    rows = [row for row in rows if not row[0].startswith(("no paper", "aizheimer:", "ours"))]
    order = ("method", "attack", "metric")
    lines = [
        GENERATED,
        "# Papers\n\nWhat methods, attacks and metrics here are made after; the page says how ours differs.\n",
        table(("paper", "", "here"), sorted(rows, key=lambda row: (order.index(row[1]), row[0].casefold()))) + "\n",
    ]
    return "\n".join(lines)


def metric_papers(text: str) -> list[tuple[str, str, str]]:
    """Return paper, "metric" and place for every reference of the metrics' page; one paper may stand behind several."""
    places: dict[str, list[str]] = {}
    for section in text.split("\n### ")[1:]:
        name = section.partition("\n")[0]
        anchor = re.sub(r"[^a-z0-9]+", "-", name.casefold())
        found = re.search(r"^\| reference \| (.*) \|$", section, flags=re.MULTILINE)
        for paper in found[1].split("; ") if found else ():
            places.setdefault(paper, []).append(f"[{name}](metrics.md#{anchor})")
    return [(paper, "metric", ", ".join(links)) for paper, links in places.items()]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; bars inside of cells are escaped."""
    header = list(header)
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def code(value: Any) -> str:
    """Return a default as JSON in backticks, a long one cut."""
    value = value if isinstance(value, str | int | float | bool | list | tuple | dict | type(None)) else str(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return _escaped(" ".join(str(text).split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Keep angle brackets and stars of prose from becoming HTML or emphasis; code in backticks is left."""
    parts = text.split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;").replace("*", "\\*") for i, p in enumerate(parts))


def _prose(text: str) -> str:
    return "\n\n".join(_escaped(" ".join(part.split())) for part in text.strip().split("\n\n"))


def _linked(paper: str) -> str:
    return re.sub(r"arXiv[: ](\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def _option(option: Any, context: Any) -> tuple[str, str, str] | None:
    if getattr(option, "hidden", False):
        return None
    if option.param_type_name == "argument":
        return f"`{option.metavar or option.name.upper()}`", "", option.help or ""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    shown = option.show_default if isinstance(option.show_default, str) else option.default
    if callable(shown):
        shown = None
    value = "" if shown in (None, False, (), "") else f"`{shown}`"
    return names, "required" if option.required else value, option.help or ""


def pages() -> dict[Path, Callable[[], str]]:
    """Return the pages that are generated whole."""
    return {
        DOCS / "reference" / "cli.md": cli_page,
        DOCS / "reference" / "recipes.md": recipes_page,
        DOCS / "papers.md": papers_page,
    }


def with_blocks(text: str, blocks: dict[str, str]) -> str:
    """Return a page with its generated blocks replaced; a block that the page has no place for is left out."""
    for name, content in blocks.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        if found:
            _, _, after = rest.partition(end)
            text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return text


def wanted() -> dict[Path, str]:
    """Return what every page that has something generated should hold."""
    found = {path: make().rstrip("\n") + "\n" for path, make in pages().items()}
    for folder, names, blocks in (("methods", METHODS, method_blocks), ("attacks", ATTACKS, attack_blocks)):
        for name in names.names():
            path = DOCS / folder / f"{name}.md"
            if path.is_file():
                found[path] = with_blocks(path.read_text(encoding="utf-8"), blocks(name))
    models = DOCS / "models.md"
    found[models] = with_blocks(models.read_text(encoding="utf-8"), {"matrix": matrix_block()})
    return found


def outdated() -> list[Path]:
    """Return the pages that do not hold what the code says."""
    return [path for path, text in wanted().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Write what is out of date, or only say what is."""
    stale = outdated()
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is not what the code says; run: make reference")
        return bool(stale)
    texts = wanted()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
