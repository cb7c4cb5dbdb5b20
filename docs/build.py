"""The site: README.md and the pages of docs/, and references made from the code. `make docs`.

Pages lie where a repository's reader finds them; here they are staged, with links that hold in the site. The reference
of commands is what each `--help` says, that of settings every config there is, that of the API the docstrings.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

import fromnoise
from fromnoise.cli.flags import Parser
from fromnoise.cli.main import COMMANDS, main
from fromnoise.recipes import RECIPES, VAE_RECIPES
from fromnoise.training.run import Run

ROOT = Path(fromnoise.__file__).parent.parent
OF_A_RUN = ("train", "plan", "doctor")
"""Commands that take every setting of a run as a flag; those have a page of their own."""
SETTINGS = """\
A run is a tree of settings. Each is a key in `run.yaml` and, with dots, a flag of `fromnoise train`, `plan` and
`doctor`. Where a setting is a choice between kinds, `--KEY.type NAME` puts another in force, with its own defaults:
each kind has a table here. The defaults are those of the recipes `shapes` and `vae-small`; `fromnoise train RECIPE
--help` shows another's."""
PYTHON = """\
# Python

`import fromnoise` shows five names, which are all that most programs need. Nothing is imported before it is asked for.

```python
import fromnoise
from fromnoise.evaluation.wanted import Wanted

run = fromnoise.recipes.shapes()  # a recipe is a function that returns a `Run`
shorter = run.training.model_copy(update={"steps": 500})
run = run.model_copy(update={"training": shorter})
model = fromnoise.train(run, "runs/mine")  # or goes on with it there
model = fromnoise.load("runs/mine")  # a run, a checkpoint or a file
(picture,) = model("a red circle left of a blue square", seed=0)
picture.save("picture.png")
found = fromnoise.evaluate("runs/mine", Wanted(samples=60))  # of shapes: the share that is right, by task
```

::: fromnoise.load
::: fromnoise.train
::: fromnoise.evaluate
::: fromnoise.Run
::: fromnoise.recipes
    options: {members: [named, summary]}
::: fromnoise.pipeline.pipeline.Pipeline
"""


def page(text: str) -> str:
    """A page of docs/, for the site: comments in it are the tests', and links that leave docs/ lead elsewhere."""
    text = re.sub(r"^<!--.*?-->$", "", text, flags=re.M | re.S)
    text = re.sub(r"\]\(\.\./lessons/(\w+)\.ipynb\)", r"](lessons/\1.md)", text)
    text = text.replace("](../README.md)", "](index.md)").replace("](../benchmarks/results/", "](results/")
    text = re.sub(r"\]\(\.\./fromnoise/(\w+)/(\w+)\.py\)", r"](reference/fromnoise.\1.md#fromnoise.\1.\2)", text)
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", r"\1 (`\2`)", text)  # what has no page in the site is named


def stage_pages(place: Path) -> None:
    """All that lies in docs/, and what its pages link to, in the new directory `place`; README.md is its first page."""
    shutil.copytree(ROOT / "docs", place, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(ROOT / "benchmarks" / "results", place / "results")
    for file in place.glob("*.md"):
        file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
    first = re.sub(r"\]\((?!docs/|\w+:|#)", "](../", (ROOT / "README.md").read_text(encoding="utf-8"))
    (place / "index.md").write_text(page(first.replace("](docs/", "](")), encoding="utf-8")


def lesson(file: Path, place: Path) -> str:
    """The page of an executed notebook; its pictures are written into the directory `place`."""
    lines: list[str] = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source.replace(".ipynb)", ".md)").replace("<details>", "<details markdown>"), ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            shown = output.get("data", {})
            if "image/png" in shown:
                picture = place / f"{file.stem}_{len(lines)}.png"
                picture.write_bytes(base64.b64decode(shown["image/png"]))
                lines += [f"![What the code above shows]({picture.name})", ""]
            else:
                lines += ["```text", "".join(output.get("text", shown.get("text/plain", ""))).rstrip(), "```", ""]
    return "\n".join(lines)


def stage_lessons(place: Path) -> list[str]:
    """All lessons as pages in the new directory `place`; their names."""
    place.mkdir()
    files = sorted((ROOT / "lessons").glob("*.ipynb"))
    for file in files:
        (place / f"{file.stem}.md").write_text(lesson(file, place), encoding="utf-8")
    return [file.stem for file in files]


def told(*args: str) -> tuple[str, Parser | None]:
    """What `fromnoise ARGS --help` prints, and the parser that it shows, where it shows one."""
    shown: list[Parser] = []
    keep = patch.object(Parser, "print_help", lambda self, file=None: shown.append(self))
    with keep, suppress(SystemExit), redirect_stdout(StringIO()) as printed:
        main([*args, "--help"])
    return printed.getvalue(), shown[0] if shown else None


def command(name: str) -> str:
    """The page of a command: what it is called with, what it does, and its options."""
    text, parser = told(name)
    lines = [f"# fromnoise {name}", "", f"*{COMMANDS[name]}*", ""]
    if parser is None:
        lines += ["```text", text.rstrip(), "```", ""]
        parser = told(name, "shapes")[1]
    else:
        lines += ["```text", parser.format_usage().strip(), "```", "", described(parser.description or ""), ""]
    for title, group in groups_of(parser).items():
        if name not in OF_A_RUN or title == "options":
            lines += [f"## {title.capitalize()}", "", *table(group), ""]
    if name in OF_A_RUN:
        lines += ["Every [setting of the run](../reference/settings.md) is an option, too.", ""]
    return "\n".join(lines)


def groups_of(parser: Parser | None) -> dict[str, Any]:
    """The groups of options that a parser has, by their titles."""
    assert parser is not None, "this help shows a parser"
    return {group.title or "": group for group in parser._action_groups if group._group_actions}


def described(text: str) -> str:
    """A description as Markdown: what is indented in it stays as it is."""
    return re.sub(r"^(?:  .*\n?)+", lambda found: f"\n```text\n{found[0].rstrip()}\n```\n", text, flags=re.M)


def table(group: Any) -> Iterator[str]:
    """The options of a group, a row each: what is written, and what it means."""
    yield "| option | meaning |"
    yield "|---|---|"
    for action in group._group_actions:
        shape = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
        word = " ".join([*action.option_strings[-1:], shape]) + " ..." * (action.nargs == "*")
        meaning = (action.help or "").replace("%%", "%")
        meaning = " ".join(meaning.split()).replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{word.strip().replace(',', ', ')}` | {meaning} |"


def settings() -> str:
    """The page of every setting there is."""
    lines, seen = ["# Settings", "", SETTINGS, ""], set[str]()
    for recipe, title in (("shapes", "Of a run"), ("vae-small", "Of the run of a VAE, besides")):
        lines += [f"## {title}", ""]
        for name, group in kinds(recipe, seen):
            lines += [f"### {name}", "", group.description or "", "", *table(group), ""]
    return "\n".join(lines)


def kinds(recipe: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Key, kind and options of every group of settings that a run of `recipe` has or could have, but for those seen."""
    queue: list[list[str]] = [[]]
    while queue:
        flags = queue.pop(0)
        for key, group in groups_of(told("train", recipe, *flags)[1]).items():
            types = [action.metavar for action in group._group_actions if action.dest == f"{key}.type"]
            names = types[0].strip("{}").split(",") if types else []  # the one in force first
            chosen = flags[-1:] if flags[-2:-1] == [f"--{key}.type"] else names[:1]
            name = ": ".join([key, *chosen])
            if name not in seen and key != "options":
                seen.add(name)
                yield name, group
                queue += [[*flags, f"--{key}.type", other] for other in names if f"{key}: {other}" not in seen]


def recipes() -> str:
    """The page of recipes: what each docstring says."""
    lines = [
        "# Recipes",
        "",
        "`fromnoise train RECIPE` trains one, with any [setting](settings.md) changed.",
        "",
    ]
    for name, recipe in {**RECIPES, **VAE_RECIPES}.items():
        head, _, rest = (inspect.getdoc(recipe) or "").partition("\n")
        about, found, facts = rest.partition("Hardware:")
        kind = "" if isinstance(recipe(), Run) else " (a VAE)"
        lines += [f"## {name}{kind}", "", head, "", about.strip(), "", "```text", (found + facts).rstrip(), "```", ""]
    return "\n".join(lines)


def packages() -> list[str]:
    """The packages of fromnoise but for its command line, lowest floor first, as pyproject.toml has them."""
    floors = re.findall(r'^    "(fromnoise\.[^"]*)",$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return [name for floor in reversed(floors) for name in floor.split(" | ") if name != "fromnoise.cli"]


def api(package: str) -> str:
    """The page of a package: the docstrings of its modules."""
    files = sorted(ROOT.joinpath(*package.split(".")).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return "\n".join([f"# {package}", "", *(f"::: {name}\n" for name in names if not name.endswith("__init__"))])


def stage(place: Path) -> Path:
    """Stage every page in place/docs; the settings of the site: mkdocs.yml, with what is generated in its `nav`, and
    what is in docs/ without being listed there."""
    shutil.rmtree(place, ignore_errors=True)
    stage_pages(place / "docs")
    lessons = stage_lessons(place / "docs" / "lessons")
    made = {f"commands/{name}.md": command(name) for name in COMMANDS}
    made |= {"reference/recipes.md": recipes(), "reference/settings.md": settings(), "reference/python.md": PYTHON}
    made |= {f"reference/{name}.md": api(name) for name in packages()}
    for name, text in made.items():
        file = place / "docs" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w./-]+\.md", str(config["nav"])))
    sections: dict[str, list[Any]] = {name: part for entry in config["nav"] for name, part in entry.items()}
    sections["How to"] += sorted(file.name for file in (place / "docs").glob("*.md") if file.name not in listed)
    sections["Lessons"] += [f"lessons/{name}.md" for name in lessons]
    sections["Commands"] += [{name: f"commands/{name}.md"} for name in COMMANDS]
    sections["Python"] += [{name.removeprefix("fromnoise."): f"reference/{name}.md"} for name in packages()]
    config |= {"docs_dir": "docs", "site_dir": "site"}
    (place / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return place / "mkdocs.yml"


def build(place: Path) -> Path:
    """Build the site anew below `place`; where it is.

    Raises:
        ValueError: where a link leads nowhere, or a docstring cannot be read.
    """
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(stage(place))]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False
    )
    if done.returncode or "griffe: " in done.stdout:
        raise ValueError(f"the site cannot be built:\n{done.stdout}")
    return place / "site"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=ROOT / "build" / "docs", help="directory that is made anew")
    site = build(parser.parse_args().place.absolute())
    print(f"{site / 'index.html'}\nto search in it, too: python -m http.server --directory {site}")
