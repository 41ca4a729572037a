"""The ``mmindex`` command and its table of commands, which are imported when they run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import mmindex
from mmindex.core.errors import Terminated, exit_code_of
from mmindex_cli.interrupts import stop_catching
from mmindex_cli.lazy import HELP_OPTIONS, Entry, Group, LazyCommands
from mmindex_cli.streams import open_missing_streams


class _Commands(LazyCommands):
    """All commands. Add a line here for a new one."""

    entries = {  # noqa: RUF012 # never changed
        "build": Entry("build:build", "Crawl, encode, index, evaluate and publish."),
        "crawl": Entry("build:crawl", "List and hash the images and captions."),
        "encode": Entry("build:encode", "Encode the crawled items as vectors."),
        "index": Entry("build:index", "Build indexes from the vectors."),
        "evaluate": Entry("evaluate:evaluate", "Measure recall, with exact search and the index."),
        "query": Entry("query:query", "Find images or captions by text or image."),
        "serve": Entry("serve:serve", "Serve a search page and an HTTP API."),
        "match": Entry("match:match", "Check whether a text describes an image."),
        "classify": Entry("classify:classify", "Label images without training."),
        "dedup": Entry("dedup:dedup", "Find near-duplicate images."),
        "map": Entry("map:map_", "Draw a map of the images, with named groups and outliers."),
        "explain": Entry("explain:explain", "Show which parts of an image match a text."),
        "caption": Entry(
            "caption:caption", "Describe images, with captions of the corpus or new ones."
        ),
        "ask": Entry("ask:ask", "Answer a question about images."),
        "annotate": Entry("ask:annotate", "Follow an instruction for images."),
        "recommend": Entry("recommend:recommend", "Recommend images from likes and dislikes."),
        "export": Entry("export:export", "Write images, captions and vectors for other tools."),
        "adapt": Entry("adapt:adapt", "Adapt the model to your captions in seconds."),
        "train": Entry("train:train", "Train an open_clip model on captioned images."),
        "status": Entry("status:status", "Show the content, recall and last run of a store."),
        "versions": Entry("upkeep:versions", "List the versions in the store."),
        "check": Entry("check:check", "Verify the store, and repair it."),
        "gc": Entry("upkeep:gc", "Remove old versions and unused files."),
        "rollback": Entry("upkeep:rollback", "Restore an old version."),
        "forget": Entry("forget:forget", "Remove images permanently, from every version."),
        "schedule": Entry("schedule:schedule", "Print a nightly job for cron or systemd."),
        "models": Entry("about:models", "List the available models."),
        "corpora": Entry("about:corpora", "List the corpora that mmindex can download."),
        "doctor": Entry("about:doctor", "Check whether a build can run on this machine."),
        "completion": Entry("completion:completion", "Print a completion script for your shell."),
        "quarantine": Group(
            "List or retry items that were left out of the index.",
            {
                "list": Entry("quarantine:quarantine_list", "List the items and the reasons."),
                "retry": Entry("quarantine:quarantine_retry", "Try the items again."),
            },
        ),
    }


app = typer.Typer(
    name="mmindex",
    cls=_Commands,
    help="Index and search image corpora offline: crawl, encode, index, evaluate, query.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmindex {mmindex.__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", help="Show the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Index and search image corpora offline."""


def main() -> None:
    """Entry point of the installed command."""
    open_missing_streams()
    try:
        app()
    except (KeyboardInterrupt, Terminated) as error:  # before or after the error boundary
        sys.exit(exit_code_of(error))
    finally:
        stop_catching()  # an exception would only disturb the exit of the interpreter
