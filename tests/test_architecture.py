"""The order of packages, declared dependencies, and names that must not occur."""

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"mmindex": ROOT / "pipeline" / "mmindex", "mmindex_cli": ROOT / "cli" / "mmindex_cli"}
# Words from the place of writing, spelt so that this file does not contain them.
NEVER_MENTIONED = (
    r"/wor[k]/",
    r"/tmp/de[v]\b",
    r"\bshare[d]/",
    r"\bissues? #?[0-9]",
    r"\bsub-?agen[t]s?\b",
    r"\bAI assistan[t]",
)
# Declared packages that no module imports, and why.
NOT_IMPORTED = {
    "faiss-cpu": "brings the same module as faiss-gpu, on other systems",
    "python-multipart": "starlette reads forms with it",
    "sentencepiece": "transformers reads vocabularies with it",
    "timm": "open_clip builds towers with it; fingerprints name its version",
    "torchvision": "open_clip needs the one that fits torch; doctor names its version",
}
# The only file that names the folder of real photos next to a checkout.
KNOWS_ITS_SURROUNDINGS = {".ci/run"}


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the two packages, by dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(tree: ast.Module) -> set[str]:
    """Return the dotted names of everything that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "importlib.import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(node.args[0].value)
    return names


def unit(name: str) -> str:
    """Return the name of a module in the table: a folder, a file, or the whole command line."""
    package, _, rest = name.partition(".")
    return package if package != "mmindex" else rest.partition(".")[0]


@cache
def places() -> dict[str, tuple[int, int]]:
    """Return row and place of each unit in the table of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
    assert len(rows) > 5
    return {
        name: (int(number), place)
        for number, names in rows
        for place, name in enumerate(re.findall(r"`(\w+)/?`", names))
    }


def test_the_table_lists_exactly_the_modules():
    there = {unit(name) for name in modules()} - {""}
    assert there == places().keys()


def test_a_module_imports_only_from_rows_above_it_or_to_its_left():
    wrong = []
    for name, tree in modules().items():
        for other in imported(tree):
            if other.partition(".")[0] not in PACKAGES or unit(name) == "":
                continue
            mine, its = unit(name), unit(other)
            # Everything can import `mmindex` and its version.
            if its in places() and its != mine and places()[its] > places()[mine]:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_modules_that_scripts_and_documents_import_exist():
    """Tests start small programs as text, which linters and refactoring tools do not see."""
    pattern = re.compile(r"^\s*(?:from|import) (mmindex(?:_cli)?(?:\.\w+)*)", re.MULTILINE)
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*texts, *(ROOT / "benchmarks").rglob("*.py")]
        for name in pattern.findall(path.read_text(encoding="utf-8"))
        if name not in modules()
    ]
    assert wrong == []


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in requirements}


def needed() -> set[str]:
    """Return the distributions that are always installed."""
    return distributions(project()["project"]["dependencies"])


def optional() -> set[str]:
    """Return the distributions of the extras."""
    extras = project()["project"]["optional-dependencies"]
    return distributions([line for name in extras if name != "dev" for line in extras[name]])


@cache
def owners() -> dict[str, set[str]]:
    """Return the distributions of each imported name; the name itself if none is installed."""
    installed = packages_distributions()
    names = {other.partition(".")[0] for tree in modules().values() for other in imported(tree)}
    return {
        top: {normal(name) for name in installed.get(top, [top])}
        for top in names - PACKAGES.keys() - sys.stdlib_module_names
    }


def imported_at_once(tree: ast.Module) -> set[str]:
    """Return what importing a module imports: not inside functions, and not for type checkers."""
    later = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    inner = {id(node) for outer in later for node in ast.walk(outer)}
    lines = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and id(n) not in inner]
    imports = [n for n in lines if isinstance(n, ast.Import | ast.ImportFrom)]
    return imported(ast.Module(imports, []))


def test_everything_imported_is_a_dependency_that_is_declared():
    declared = needed() | optional()
    missing = {
        f"{name}: {top}"
        for name, tree in modules().items()
        for top in {other.partition(".")[0] for other in imported(tree)} & owners().keys()
        if not owners()[top] & declared
    }
    assert missing == set()


def test_packages_of_an_extra_are_imported_only_where_they_are_used():
    too_early = {
        f"{name}: {top}"
        for name, tree in modules().items()
        for top in {other.partition(".")[0] for other in imported_at_once(tree)} & owners().keys()
        # The whole service is an extra, and nothing imports it at module level.
        if not owners()[top] & needed() and unit(name) != "serve"
    }
    assert too_early == set()


def test_every_dependency_that_is_declared_is_imported():
    used = set().union(*owners().values())
    assert (needed() | optional()) - used == NOT_IMPORTED.keys()


def test_the_dev_extra_is_the_dev_group():
    groups = project()["dependency-groups"]
    parts = [groups[part["include-group"]] for part in groups["dev"]]
    lines = [line for part in parts for line in part]
    assert sorted(lines) == sorted(project()["project"]["optional-dependencies"]["dev"])


def test_development_packages_have_tested_versions():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = distributions([line for line in text.splitlines() if not line.startswith("#")])
    wanted = needed() | distributions(project()["project"]["optional-dependencies"]["dev"])
    assert wanted - pinned - {"faiss-cpu"} == set()  # of systems other than Linux on x86-64


def test_every_test_file_is_collected(request):
    """By default, pytest ignores folders called build, dist or venv."""
    passed_over = request.config.getini("norecursedirs")
    lost = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        for part in path.relative_to(ROOT).parts[:-1]
        if any(fnmatch(part, pattern) for pattern in passed_over)
    ]
    assert lost == []


def test_no_file_names_the_place_where_it_was_written():
    pattern = "|".join(NEVER_MENTIONED)
    found = subprocess.run(
        ["git", "grep", "--untracked", "--text", "--only-matching", "-i", "-E", pattern],
        cwd=ROOT,
        capture_output=True,
    )
    if b"not a git repository" in found.stderr:
        pytest.skip("not a git checkout")
    assert found.returncode <= 1, found.stderr  # 1: no line matches
    lines = found.stdout.decode("utf-8", "replace").splitlines()
    told = [line for line in lines if line.split(":")[0] not in KNOWS_ITS_SURROUNDINGS]
    assert told == []
