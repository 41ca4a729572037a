"""Every example in README and docs runs, and every name in it exists."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

import mmindex
from mmindex.core import errors
from mmindex.core.config import Config, SourceConfig, load_config
from mmindex.crawl.tables import IMAGE_COLUMNS
from mmindex.sources.corpora import known as known_corpora
from mmindex_cli.app import app
from mmindex_cli.common import run_id
from support.command import write_coco
from support.corpora import jpeg, write_files
from support.documents import PAGES, ROOT, anchors, blocks, examples, links, prose, spans
from support.photo_files import photograph
from support.video_files import write_video

# Programs whose examples are not run, and why.
NOT_RUN = {
    "pip": "changes the environment, from the network",
    "sudo": "changes the machine",
}
# Replacements for parts of examples, and why; each must occur somewhere.
STAND_INS = {
    "#val2017": "#val2017 --model embedded",  # the default model would be downloaded
    "scenes:800": "scenes:30",  # time
    "scenes:300": "scenes:60",
    "scenes:200": "scenes:30",
    "/var/lib/node_exporter": ".",  # not there on every machine
}
# Examples whose exit code is not 0, and why.
EXIT_CODES = {
    "mmindex evaluate --expect published": 66,  # there are no published figures for drawn scenes
    "mmindex evaluate --compare other-store": 66,  # there is only one store
    "mmindex evaluate --qrels coco.qrels": 66,  # the file is only an example
}
# Pages that start without a store, as a new user does.
FIRST_STEPS = {"README.md"}
# Options of other programs that occur on the pages.
FOREIGN_OPTIONS = {
    "--address": "ray",
    "--array": "sbatch",
    "--cpus-per-task": "sbatch",
    "--dependency": "sbatch",
    "--embeddings": "autofaiss",
    "--force-reinstall": "pip",
    "--index-url": "pip",
    "--no-deps": "pip",
    "--gpus-per-task": "sbatch",
    "--head": "ray",
    "--image-weights": "benchmarks/fit_photos.py",
    "--job-name": "sbatch",
    "--mem": "sbatch",
    "--now": "systemctl",
    "--parsable": "sbatch",
    "--photos": "benchmarks/bench_fusion.py",
    "--requeue": "sbatch",
    "--sshloginfile": "parallel",
    "--strict": "mypy",
    "--runs": "benchmarks/bench_few_shot.py",
    "--tests": "benchmarks/bench_few_shot.py",
    "--text-model": "benchmarks/fit_photos.py",
    "--user": "systemctl",
    "--wrap": "sbatch",
    "--work": "benchmarks/fit_photos.py",
}
# Files of other programs that occur on the pages.
FOREIGN_FILES = {"metrics/zeroshot_retrieval.py": "CLIP_benchmark"}
_SECTIONS = "|".join(Config.model_fields)
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "MMINDEX_STORE": "store"}


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return every command by its full name."""
    for name in group.commands:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def run(arguments: list[str]) -> Result:
    """Run ``mmindex`` with these arguments in this process, as a separate run."""
    run_id.cache_clear()
    return CliRunner().invoke(app, arguments)


def serve_and_stop(arguments: list[str]) -> tuple[int, str, str]:
    """Start the service on a free port, stop it once it serves; return code, stdout, stderr."""
    words = [word for word in arguments if word != "--open"]
    command = [sys.executable, "-u", "-m", "mmindex_cli", *words, "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.terminate()
        rest, told = process.communicate(timeout=30)
    return process.returncode, said + rest, told


def run_line(line: str) -> str:
    """Run a line of shell in the current folder and return its stdout."""
    said = ""
    for part in line.split(" && "):
        command, _, target = part.partition(" > ")
        words = [os.path.expanduser(word) for word in shlex.split(command)]  # noqa: PTH111 # words, not paths
        if words[:2] == ["mmindex", "serve"]:
            code, said, told = serve_and_stop(words[1:])
        elif words[0] == "mmindex":
            if words[1] == "build" and "--dry-run" not in words:
                words += ["--workers", "0"]  # no processes: faster for a few images
            done = run(words[1:])
            code, said = done.exit_code, done.stdout
            told = done.stderr if done.exception is None else f"{done.stderr}{done.exception!r}"
        else:
            ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
            code, said, told = ended.returncode, ended.stdout, ended.stderr
        assert code == EXIT_CODES.get(line, 0), f"$ {line}\nexit {code}\n{said}{told}"
        if target:
            Path(target.strip()).write_text(said, encoding="utf-8")
    return said


def stand_in(text: str) -> str:
    for shown, used in STAND_INS.items():
        text = text.replace(shown, used)
    return text


@contextlib.contextmanager
def environment(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(home):
        patch.setenv("HOME", str(home))
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create everything that the examples assume, in the places where they expect it."""
    home = tmp_path_factory.mktemp("docs") / "home"
    files: dict[str, bytes | str] = {f"Pictures/{n}.jpg": photograph(n) for n in range(6)}
    files |= {name: jpeg(7) for name in ("beach.jpg", "holiday.jpg")}
    files["favourites.txt"] = "beach.jpg\nholiday.jpg\n"
    files["answers.txt"] = "sea\nbeach\n"
    files["labels.txt"] = "a boat\na house\n"
    shots = "".join(f"Pictures/{n}.jpg,{'city' if n % 2 else 'sea'}\n" for n in range(6))
    files["shots.csv"] = f"image,label\n{shots}"
    write_files(home, files)
    write_coco(home / "coco", 30)
    (home / "Videos").mkdir()
    write_video(home / "Videos" / "trip.mp4")
    with environment(home):
        for number in (24, 30):  # two versions, so that a rollback is possible
            run_line(f"mmindex build --source scenes:{number}@1")
        run_line("mmindex build --store coco.mmindex --source coco:~/coco#val2017 --model embedded")
    home.rename(home.with_name("template"))
    return home.with_name("template")


@pytest.fixture
def home(template: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new copy of it for each page; for cron.md, the corpus has changed."""
    page, home = request.param, template.with_name("home")
    shutil.copytree(template, home)
    if page in FIRST_STEPS:
        shutil.rmtree(home / "store")
        shutil.rmtree(home / "coco.mmindex")
    if page == "docs/cron.md":
        write_coco(home / "coco", 30, first=2)
        (home / "coco/val2017/000000000001.jpg").unlink()
    with environment(home):
        yield home
    shutil.rmtree(home)


def words(text: str) -> set[str]:
    """Return the words of an output, without numbers, paths and units."""
    plain = re.sub(r"\S*[/~\\]\S*", " ", text)
    return set(re.findall(r"[a-z]{3,}", plain))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("home", "page"),
    [(page, page) for page in PAGES if any(kind == "console" for kind, _ in blocks(page))],
    indirect=["home"],
    ids=str,
)
def test_every_example_runs_and_prints_what_is_shown(home, page):
    for kind, block in blocks(page):
        if kind == "python" and page == "README.md":
            exec(compile(stand_in(block), f"{page}", "exec"), {})  # noqa: S102 # our own page
        for example in examples(block) if kind == "console" else ():
            if example.line.split(" ", 1)[0] in NOT_RUN:
                continue
            said = run_line(stand_in(example.line))
            assert words("\n".join(example.output)) <= words(said), f"$ {example.line}\n{said}"
    if page == "docs/cron.md":
        named = set(re.findall(r"\bmmindex_[a-z_]+\b", PAGES[page]))
        written = (home / "coco.prom").read_text("utf-8")
        assert {name for name in named if name not in written} == set()


def test_no_exception_is_unused():
    lines = [
        example.line
        for page in PAGES
        for kind, block in blocks(page)
        if kind == "console"
        for example in examples(block)
    ]
    everything = "\n".join([*lines, *(block for page in PAGES for _, block in blocks(page))])
    assert {
        name for name in NOT_RUN if not re.search(rf"^{name} ", "\n".join(lines), re.M)
    } == set()
    assert {part for part in STAND_INS if part not in everything} == set()
    assert set(EXIT_CODES) - set(lines) == set()
    assert {name for name in FOREIGN_OPTIONS if name not in "".join(PAGES.values())} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence_is_valid(page):
    for span in spans(page):
        for line in span.split(" && "):
            if not line.startswith("mmindex "):
                continue
            arguments = shlex.split(line.replace("[N]", "1").replace('"$(date +%u)/7"', "1/7"))[1:]
            name = next((n for n in (" ".join(arguments[:2]), arguments[0]) if n in COMMANDS), None)
            if arguments in (["quarantine"], ["--help"]):
                continue
            assert name is not None, f"`{line}`: there is no such command"
            rest = arguments[len(name.split()) :]
            if rest:  # a command alone is a name, not a call without arguments
                COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_exists(page):
    known = {"--help", "--version"} | set(FOREIGN_OPTIONS)
    for command in COMMANDS.values():
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", PAGES[page]))
    assert named - known == set(), f"{page} names options that no command has"


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_exists(page):
    settings = {"source": SourceConfig} | {
        name: type(field.default) for name, field in Config.model_fields.items() if name != "source"
    }
    unknown = {
        f"{section}.{key}"
        for section, key in re.findall(rf"`({_SECTIONS})\.([a-z_]+)\b(?!\.\w)(?!\()", prose(page))
        if key not in settings[section].model_fields
        and not hasattr(mmindex.Index, key)
        and key not in ("json", "toml", "faiss")  # files
    }
    assert not unknown, f"{page} names settings that do not exist"


@pytest.mark.slow
@pytest.mark.parametrize("home", ["docs"], indirect=True)
@pytest.mark.parametrize(
    "block", [block for page in PAGES for kind, block in blocks(page) if kind == "toml"]
)
def test_every_toml_example_is_valid(home, block):
    path = home / "example.toml"
    path.write_text(block, encoding="utf-8")
    if block.startswith("[[expected]]"):  # valid, but for another corpus than that of the store
        assert run(["evaluate", "--expect", str(path)]).exit_code == errors.NoInputError.exit_code
    elif "[[files]]" in block:
        assert known_corpora(str(path))
    elif "[project" not in block:
        assert load_config(path, {})


def keys(value: Any) -> set[str]:
    """Return the names of all fields of a JSON value, at any depth."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    return set(value) | set().union(*map(keys, value.values()))


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("home", ["docs"], indirect=True)
def test_every_json_field_exists():
    real = [
        keys(json.loads(run(["query", "a red boat", "--format", "json"]).stdout)),
        keys(json.loads(run(["evaluate", "--format", "json"]).stdout)),
        keys(json.loads(run(["status", "--format", "json"]).stdout)),
    ]
    for page in PAGES:
        for kind, block in blocks(page):
            if kind == "json":
                shown = keys(json.loads(block))
                assert any(shown <= fields for fields in real), f"{page}: {sorted(shown)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_file_exists(page):
    here = (ROOT / page).parent
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = here / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    homes = (ROOT, ROOT / "pipeline" / "mmindex", ROOT / "benchmarks", ROOT / "tests" / "torture")
    for span in spans(page):
        found = re.match(r"([\w./-]*(?:/|test_|bench_)[\w.-]*\.(?:py|md|sh))(?: |$)", span)
        if not found or found[1] in FOREIGN_FILES:
            continue
        if not any((folder / found[1]).exists() for folder in (here, *homes)):
            broken.append(span)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page):
    for name, wanted in re.findall(
        r"((?:tests/\w+/)?test_\w+\.py)(?: -k (\w+|\"[^\"]+\"))?", PAGES[page]
    ):
        found = [ROOT / name] if name.startswith("tests/") else [*(ROOT / "tests").rglob(name)]
        (path,) = found
        assert path.is_file(), name
        text = path.read_text("utf-8").lower()
        for word in re.findall(r"\w+", wanted.lower()):
            assert word in {"or", "and", "not"} or word in text, f"{name} -k {wanted}"


def test_the_tables_of_exit_codes_are_complete():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {value.exit_code for value in classes if issubclass(value, errors.MmindexError)}
    wanted = {0, *codes, errors.Terminated.exit_code, errors.exit_code_of(KeyboardInterrupt())}
    for page in ("README.md", "docs/cron.md"):
        rows = re.findall(r"^\| ([\d, ]+) \|", PAGES[page], re.MULTILINE)
        shown = {int(code) for row in rows for code in row.split(",") if code.strip().isdigit()}
        assert wanted <= shown, page


def test_the_columns_that_conditions_can_name_are_listed():
    assert set(IMAGE_COLUMNS) <= set(spans("docs/search.md"))
