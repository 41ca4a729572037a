"""The house keeps its order: who may import whom, what is declared, what is never mentioned."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"mmindex": ROOT / "pipeline" / "mmindex", "mmindex_cli": ROOT / "cli" / "mmindex_cli"}
# What belongs to the place where this was written, spelt so that this file does not hold it.
NEVER_MENTIONED = (
    r"/wor[k]/",
    r"/tmp/de[v]\b",
    r"\bshare[d]/",
    r"\bissues? #?\d",
    r"\bsub-?agen[t]s?\b",
    r"\bAI assistan[t]",
)
# The one file that says where real photos lie beside a checkout.
KNOWS_ITS_SURROUNDINGS = {".ci/run"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the two packages, by dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(tree: ast.Module) -> set[str]:
    """Dotted names of everything that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def unit(name: str) -> str:
    """What the table calls a module: a folder, a file, or the command line as a whole."""
    package, _, rest = name.partition(".")
    return package if package != "mmindex" else rest.partition(".")[0]


@cache
def places() -> dict[str, tuple[int, int]]:
    """Row and place of each unit in the table of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
    assert len(rows) > 5
    return {
        name: (int(number), place)
        for number, names in rows
        for place, name in enumerate(re.findall(r"`(\w+)/?`", names))
    }


def test_every_module_stands_in_the_table_and_nothing_else_does():
    there = {unit(name) for name in modules()} - {""}
    assert there == places().keys()


def test_a_module_imports_only_what_stands_above_it_or_to_its_left():
    wrong = []
    for name, tree in modules().items():
        for other in imported(tree):
            if other.partition(".")[0] not in PACKAGES or unit(name) == "":
                continue
            mine, its = unit(name), unit(other)
            # `import mmindex` and its version are for everybody.
            if its in places() and its != mine and places()[its] > places()[mine]:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_modules_that_scripts_and_documents_import_exist():
    """Tests start small programs as text, which no linter and no move of a module sees."""
    pattern = re.compile(r"^\s*(?:from|import) (mmindex(?:_cli)?(?:\.\w+)*)", re.MULTILINE)
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*texts, *(ROOT / "benchmarks").rglob("*.py")]
        for name in pattern.findall(path.read_text(encoding="utf-8"))
        if name not in modules()
    ]
    assert wrong == []


def test_everything_imported_is_a_dependency_that_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["hf"], *extras["heif"]]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in declared}
    owners = packages_distributions()
    missing = set()
    for name, tree in modules().items():
        for top in {other.partition(".")[0] for other in imported(tree)}:
            if top in sys.stdlib_module_names or top in PACKAGES or top == "__future__":
                continue
            known = {owner.lower().replace("_", "-") for owner in owners.get(top, [top])}
            if not known & names:
                missing.add(f"{name}: {top}")
    assert missing == set()


def test_nothing_tells_where_it_was_written():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile("|".join(NEVER_MENTIONED), re.IGNORECASE)
    told = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if name in KNOWS_ITS_SURROUNDINGS or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "ignore")
        told += [f"{name}: {match[0]}" for match in pattern.finditer(text)]
    assert told == []
