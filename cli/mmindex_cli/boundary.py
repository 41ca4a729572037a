"""The error boundary of all commands: turn every failure into error lines and an exit code.

Expected failures print one ``error:`` and one ``hint:`` line on stderr and exit with their class's
code; anything else is a bug: exit 70. Tracebacks appear with ``--debug`` only. With
``--log-format json``, the failure is the last event instead of the two lines.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import typer

from mmindex.core.errors import (
    InternalError,
    MmindexError,
    Terminated,
    exit_code_of,
    from_os_error,
)
from mmindex_cli.flags import as_flags
from mmindex_cli.interrupts import catch_signals
from mmindex_cli.logs import LogFormat
from mmindex_cli.streams import in_colour, say, settle_stdout

# Newer versions of typer include click, older ones use the package; this works for both.
CommandLineError: Final[type[Exception]] = typer.BadParameter.__mro__[2]

# What a stopped command keeps; the other commands change nothing.
_KEPT: Final = {
    **dict.fromkeys(
        ("build", "crawl", "encode", "quarantine_retry"),
        "finished downloads and encoded shards are kept, and the store still shows its last "
        "published version. Run the same command again to continue",
    ),
    "index": "the store still shows its last published version. Run the same command again",
    "train": "the last checkpoint is kept. Run the same command again to continue from it",
    "forget": "run the same command again: it finishes what was started",
    "gc": "run the same command again: it finishes what was started",
    "rollback": "`mmindex status` shows which version is published now",
}


@dataclass(frozen=True, slots=True)
class Reporting:
    """How to report a failure of the running command."""

    command: str = ""
    log_format: LogFormat = "text"
    debug: bool = False
    run_id: str = ""


reporting = Reporting()


def run_guarded(run: Callable[[], object], explain: Callable[[Any], MmindexError | int]) -> int:
    """Run a command line and return its exit code.

    Args:
        run: the command line.
        explain: converts an error of click to an mmindex error, or to an exit code if there is
            nothing to print.
    """
    global reporting  # noqa: PLW0603 # set by the command that runs, see common.command
    reporting = Reporting()
    catch_signals()
    try:
        run()
        sys.stdout.flush()
    except typer.Exit as ending:
        return ending.exit_code
    except typer.Abort:
        return _stopped("cancelled", 1)
    except CommandLineError as error:
        said = explain(error)
        return said if isinstance(said, int) else _fail(said)
    except MmindexError as error:
        return _fail(error)
    except BrokenPipeError:
        settle_stdout()  # the reader of the output has ended (``| head``), which is not a failure
    except OSError as error:
        return _fail(from_os_error(error, error.filename or "output"))
    except KeyboardInterrupt as error:
        return _stopped("interrupted", exit_code_of(error))
    except Terminated as error:
        return _stopped("terminated", exit_code_of(error))
    except Exception as error:  # noqa: BLE001 - the boundary: what gets here is a bug
        return _fail(_as_bug(error))
    return 0


def _as_bug(error: Exception) -> MmindexError:
    bug = InternalError(
        f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]}",
        "this is a bug in mmindex. Run the command again with --debug and report the traceback",
    )
    bug.__cause__ = error
    return bug


def _fail(error: MmindexError) -> int:
    if reporting.debug:
        traceback.print_exception(error, file=sys.stderr)
    _report("failed", as_flags(error.message), as_flags(error.hint), error.exit_code)
    return error.exit_code


def _stopped(word: str, code: int) -> int:
    kept = _KEPT.get(reporting.command, "nothing was changed") if reporting.command else ""
    _report(word, word, kept, code)
    return code


def _report(event: str, message: str, hint: str, code: int) -> None:
    settle_stdout()
    if reporting.log_format == "json":
        details = {"error": message, "hint": hint} if event == "failed" else {}
        say(_event(event, **details, exit_code=code))
        return
    say(f"{in_colour('error:', 'red', sys.stderr)} {_one_line(message)}")
    if hint:
        say(f"{in_colour('hint:', 'cyan', sys.stderr)} {_one_line(hint)}")


def _event(what: str, **values: object) -> str:
    """Write the last event of a failed run in the format of the log."""
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    common = {"stage": "run", "event": what, "level": "error", "timestamp": stamp}
    return json.dumps({"run_id": reporting.run_id, **common, **values})


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
