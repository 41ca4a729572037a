"""The command line: help, exit codes, fast start, documented commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mmindex_cli.app import app
from support.command import MMINDEX, mmindex

ROOT = Path(__file__).parents[2]


def commands(group, prefix=""):
    """Return every command by its full name, as click sees it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    assert f"Example: mmindex {name}" in COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name):
    text = (ROOT / "README.md").read_text("utf-8")
    assert f"`mmindex {name}" in text or re.search(rf"`{name}`.*\n", text)


def test_every_command_that_a_hint_names_exists():
    sources = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    named = set()
    for path in sources:
        named |= set(re.findall(r"`mmindex ([a-z]+(?: list)?)", path.read_text("utf-8")))
    assert named <= set(COMMANDS) | {"quarantine list"}


@pytest.mark.parametrize("args", [("--help",), ("status",), ("build", "--help"), ("--version",)])
def test_help_and_status_import_neither_torch_nor_faiss(args, tmp_path):
    script = (
        "import sys\n"
        "from mmindex_cli.app import app\n"
        "try:\n"
        f"    app({[*args]!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('LOADED', *sorted({'torch', 'faiss', 'open_clip', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"MMINDEX_STORE": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("status",), 66, "no mmindex store"),
        (("build", "--source", "nonsense:x"), 2, "nonsense"),
        (("build", "--source", "folder:/does/not/exist"), 66, "/does/not/exist"),
        (("build", "--index", "nonsense", "--source", "scenes:20@1"), 2, "nonsense"),
        (("build", "--recall-target", "2"), 2, "recall_target"),
        (("build", "--config", "missing.toml"), 66, "missing.toml"),
        (("build", "--model", "ViT-B-31", "--source", "scenes:20@1"), 2, "ViT-B-32"),
        (("query", "--store", "/does/not/exist", "dog"), 66, "no mmindex store"),
        (("nonsense",), 2, "no such command 'nonsense'"),
    ],
)
def test_each_mistake_has_its_exit_code_and_one_line(args, code, words, tmp_path):
    done = mmindex(*args, code=code, cwd=tmp_path, env={"MMINDEX_STORE": str(tmp_path / "store")})
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "message", "where"),
    [
        ("--nope", "no such option: --nope", ""),
        ("qury red", "no such command 'qury'; did you mean 'query'?", ""),
        ("quarantine lst", "no such command 'lst'; did you mean 'list'?", "quarantine "),
        ("query red --formt json", "no such option: --formt; did you mean --format, ", "query "),
        ("query red -k 0", "invalid value for '-k': ", "query "),
        ("query red -k many", "invalid value for '-k': ", "query "),
        ("query red --to sound", "invalid value for '--to': 'sound' is not one of ", "query "),
        ("query red --store", "option '--store' requires an argument", "query "),
        ("classify", "missing option '--labels'", "classify "),
        ("dedup extra", "got unexpected extra argument", "dedup "),
        ("status \x1b[2J", "got unexpected extra argument(s) (\\x1b[2J)", "status "),
    ],
)
def test_an_invalid_command_line_is_2_with_one_error_and_one_hint(args, message, where, capsys):
    with pytest.raises(SystemExit) as ending:
        app(args.split(" "))
    said = capsys.readouterr()
    error, hint = said.err.splitlines()
    assert ending.value.code == 2
    assert error.startswith(f"error: {message}")
    assert hint == f"hint: `mmindex {where}--help` shows the usage"
    assert said.out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_knows_an_unknown_option(name, capsys):
    """In particular commands whose arguments accept any word."""
    with pytest.raises(SystemExit) as ending:
        app([*name.split(), "--no-such-thing"])
    assert ending.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: no such option: --no-such-thing")
    assert hint.startswith(f"hint: `mmindex {name} --help`")


def test_a_model_missing_on_the_hub_is_a_network_error_with_remedies(tmp_path):
    from support.images import write_pngs

    folder = tmp_path / "photos"
    write_pngs(folder, 3)
    done = mmindex(
        "build", "--source", f"folder:{folder}", "--store", tmp_path / "store", code=69,
        env={"HF_HOME": str(tmp_path / "hub")},
    )  # fmt: skip
    assert "--pretrained PATH" in done.stderr
    assert "--model photos" in done.stderr


def test_the_json_log_has_one_object_per_line(tmp_path, tiny_model):
    import json

    from support.images import write_pngs

    folder = tmp_path / "photos"
    write_pngs(folder, 3)
    done = mmindex(
        "build", "--source", f"folder:{folder}", "--store", tmp_path / "store",
        "--model", tiny_model.name, "--log-format", "json",
    )  # fmt: skip
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"run", "encode"} <= {event["stage"] for event in events}
    assert len({event["run_id"] for event in events}) == 1
    assert (tmp_path / "store" / "runs" / f"{events[0]['run_id']}.json").exists()


def _shell(script, tmp_path):
    """Run a line of shell, because only a shell can close streams as users close them."""
    return subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MM": str(MMINDEX), "MMINDEX_STORE": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.parametrize("args", ["--help", "--version", "models", "corpora"])
@pytest.mark.parametrize("end", [">/dev/full", ">&-"])
def test_results_that_cannot_be_written_are_an_io_error(args, end, tmp_path):
    done = _shell(f'"$MM" {args} {end}', tmp_path)
    assert done.returncode == 74, done.stderr
    assert done.stderr.startswith("error: output: ")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("end", ["2>&-", "2>/dev/full", "<&- 2>&-", "<&- >&- 2>&-"])
def test_the_exit_code_is_right_even_if_stderr_is_closed(end, tmp_path):
    assert _shell(f'"$MM" status {end}', tmp_path).returncode == 66


def test_a_reader_that_closes_the_pipe_is_not_a_failure(tmp_path):
    script = '{ "$MM" models; echo "exit $?" >&2; } | head -c 1'
    assert _shell(script, tmp_path).stderr == "exit 0\n"


def test_paths_are_inert_in_the_terminal(tmp_path):
    """Names of folders come from untrusted archives; each output stays on one line and is inert."""
    from support.images import write_pngs

    folder = tmp_path / "h\x1b[31m\n\u202ex"
    write_pngs(folder, 3)
    store = tmp_path / "st\x1b[2J"
    shown = mmindex("crawl", "--store", store, "--source", f"folder:{folder}")
    for args in (("status",), ("status", "--format", "json"), ("versions", "--format", "json")):
        again = mmindex(*args, "--store", store)
        for text in (shown.stdout, shown.stderr, again.stdout, again.stderr):
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


@pytest.mark.parametrize("what", ["store", "source"])
def test_a_path_that_no_store_can_record_is_reported_immediately(what, tmp_path):
    odd = os.fsdecode(bytes(tmp_path) + b"/odd\xff")
    values = {"store": tmp_path / "store", "source": tmp_path, what: odd}
    done = mmindex(
        "crawl", "--store", values["store"], "--source", f"folder:{values['source']}", code=2
    )
    assert "UTF-8" in done.stderr
