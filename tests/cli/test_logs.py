"""Log events: one complete JSON object per line with run and stage, or lines of text."""

import json
import re
import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys, warnings
from mmindex.core.progress import bar, get_logger, show_bars
from mmindex_cli.logs import configure_logging
configure_logging({form!r}, "run-1")
show_bars(True)
log = get_logger("crawl")
log.info("found", path="a\\nb\\x1b[31m\\u202e", count=3)
log.warning("long", text="x" * 100_000)
logging.getLogger("a.library").warning("said %s", "this")
warnings.warn("careful")
for _ in bar(range(3), total=3, label="x", unit="y"):
    pass
"""


def run(form, *wrap):
    command = [*wrap, sys.executable, "-c", SCRIPT.format(form=form)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_every_line_is_an_event_with_time_level_run_and_stage():
    done = run("json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events[:3]] == ["found", "long", "said this"]
    assert "careful" in events[3]["event"]
    for event in events:
        assert {"timestamp", "level", "run_id", "stage", "event"} <= event.keys()
        assert event["run_id"] == "run-1"
    assert events[2]["logger"] == "a.library"
    assert events[0]["path"] == "a\nb\x1b[31m\u202e"
    assert not re.search("[^\x20-\x7e\n]", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize("form", ["json", "text"])
def test_each_event_is_written_in_one_system_call(form, tmp_path):
    """A run that is killed between two calls leaves no partial line."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    done = run(form, "strace", "-f", "-e", "trace=write", "-o", trace)
    sizes = [int(n) for n in re.findall(r"write\(2,.*, (\d+)\)\s+=", trace.read_text())]
    lines = done.stderr.splitlines(keepends=True)
    if form == "json":
        assert sizes == [len(line.encode()) for line in lines]
    else:
        assert sizes[:2] == [len(line.encode()) for line in lines[:2]]


def test_the_text_format_is_readable():
    lines = run("text").stderr.splitlines()
    assert lines[0] == "crawl: found  path='a\\nb\\x1b[31m\\u202e' count=3"
    assert lines[1].startswith("warning: crawl: long")
