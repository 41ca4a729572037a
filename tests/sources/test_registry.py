"""Each kind of source has one module, and all places that name the kinds agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmindex.core.errors import UsageError
from mmindex.sources import registry
from mmindex.sources.base import Place
from mmindex.sources.kinds import built_in
from mmindex.sources.spec import absolute_spec, parse_spec
from support.command import mmindex
from support.corpora import jpeg, write_files

ROOT = Path(__file__).resolve().parents[2]
Install = Callable[..., None]


def table_rows(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", built_in())
def test_the_readme_has_the_summary_of_each_kind(name: str) -> None:
    kind = registry.find(name)
    assert f"| `{kind.name}:{kind.form}` | {kind.summary} |" in table_rows(ROOT / "README.md")


def test_the_documentation_has_a_row_for_each_kind_and_for_nothing_else() -> None:
    text = (ROOT / "docs" / "sources.md").read_text("utf-8")
    kinds = re.findall(r"^\| `([\w-]+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert sorted(kinds) == list(built_in())


@pytest.mark.parametrize("name", built_in())
def test_a_kind_has_tests_and_a_valid_example(name: str) -> None:
    kind = registry.find(name)
    assert parse_spec(kind.example).kind == name
    assert kind.suffix.startswith(".") == (kind.place is Place.PATTERN)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "sources").glob("*.py"))
    assert f"{name}:" in tests


def test_help_lists_every_kind() -> None:
    result = mmindex("build", "--help")
    whole = re.sub(r"-\s*│\s*│\s*|-\s*\n\s*", "-", result.stdout)  # names can be split
    words = re.split(r"[\s,.│]+", whole)
    assert set(built_in()) <= set(words)


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'webdataset'"):
        parse_spec("webdatset:x")


def test_a_path_without_a_kind_suggests_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(str(tmp_path))
    assert caught.value.hint == f"did you mean folder:{tmp_path}?"


# A distribution as installed by pip: a module, and metadata with an entry point.


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    modules = set(sys.modules)

    def put(distribution: str, kind: str, module: str, text: str) -> None:
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[mmindex.sources]\n{kind} = {module}:KIND\n")
        (folder / f"{module}.py").write_text(text)
        registry._added.cache_clear()

    registry._added.cache_clear()
    yield put
    registry._added.cache_clear()
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", "") and str(folder) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def documented_kind() -> str:
    """The module that the documentation shows."""
    text = (ROOT / "docs" / "sources.md").read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]


@pytest.mark.slow
def test_the_documented_kind_of_another_package_is_crawled_and_answers(
    tmp_path: Path, install: Install
) -> None:
    install("holiday-albums", "album", "holiday_albums", documented_kind())
    write_files(
        tmp_path / "trip",
        {"alps.album": "a.jpg\ta red boat\nsub/b.jpg\ta blue house\ngone.jpg\tlost\n"}
        | {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(2)},
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    store = ("--store", tmp_path / "s")
    build = ("build", *store, "--source", "album:alps.album", "--model", "embedded")
    mmindex(*build, "--workers", "0", env=env, cwd=tmp_path / "trip")
    found = mmindex("query", *store, "--format", "tsv", "a red boat", env=env)
    assert "album/alps/a.jpg" in found.stdout
    assert "album/alps/sub/b.jpg" in found.stdout
    assert "album/alps/gone.jpg" in mmindex("quarantine", "list", *store, env=env).stdout


def test_paths_of_another_package_s_kind_are_made_absolute(
    tmp_path: Path, install: Install
) -> None:
    install("holiday-albums", "album", "holiday_albums", documented_kind())
    assert absolute_spec("album:x.album", tmp_path) == f"album:{tmp_path}/x.album"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("raise RuntimeError('half\\ninstalled')", "RuntimeError"),
        ("KIND = 7", "is not a kind with this name"),
    ],
)
def test_a_broken_package_fails_only_those_who_use_its_kind(
    install: Install, text: str, words: str
) -> None:
    install("broken-albums", "album", "broken_albums", text)
    assert "album" in registry.names()
    assert registry.find("folder").name == "folder"
    with pytest.raises(UsageError, match="broken-albums") as caught:
        registry.find("album")
    assert words in caught.value.message
    with pytest.raises(UsageError, match="broken-albums"):
        registry.listed()


def test_one_name_for_two_kinds_is_refused(install: Install) -> None:
    install("holiday-albums", "album", "holiday_albums", documented_kind())
    install("other-albums", "album", "other_albums", documented_kind())
    with pytest.raises(UsageError, match="holiday-albums, other-albums"):
        registry.find("album")


def test_a_package_cannot_take_the_name_of_a_built_in_kind(install: Install) -> None:
    install("my-coco", "coco", "my_coco", documented_kind())
    with pytest.raises(UsageError, match="my-coco defines it too"):
        parse_spec("coco:val2017")
    assert parse_spec("scenes:3").kind == "scenes"


def test_status_and_help_read_no_entry_points(tmp_path: Path) -> None:
    for words in (["--help"], ["status", "--store", str(tmp_path)]):
        script = (
            "import sys, importlib.metadata as m\n"
            "def refused(*_, **__): raise SystemExit('entry points were read')\n"
            "m.entry_points = refused\n"
            f"sys.argv = ['mmindex', *{words!r}]\n"
            "from mmindex_cli.app import main\n"
            "main()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "entry points" not in done.stderr + done.stdout
