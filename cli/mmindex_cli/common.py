"""What every command shares: the store option, logging, and the one error boundary."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import typer

from mmindex.core.errors import InternalError, MmindexError, Terminated, exit_code_of, from_os_error
from mmindex.core.progress import new_run_id, show_bars
from mmindex.core.system import calm_openmp
from mmindex_cli.flags import as_flags
from mmindex_cli.interrupts import catch_signals
from mmindex_cli.logs import LogFormat, configure_logging
from mmindex_cli.streams import say, settle_stdout

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        readable=False,  # the store itself says so, with an exit code that scripts know
        help="The store's folder. Default: $MMINDEX_STORE, else data/store in a checkout, "
        "else the user's data folder.",
        show_default=False,
    ),
]
_LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="How log events look on stderr.")
]
_DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show debug events, and a traceback when a command fails.")
]


def store_path(option: Path | None) -> Path:
    """The store that a command works on."""
    from mmindex.core.resources import checkout_dir

    if option is not None:
        return option
    if env := os.environ.get("MMINDEX_STORE"):
        return Path(env)
    if checkout := checkout_dir():
        return checkout / "data" / "store"
    import platformdirs

    return Path(platformdirs.user_data_dir("mmindex")) / "store"


@functools.cache
def run_id() -> str:
    """This process's run."""
    return new_run_id()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--log-format`` and ``--debug``, and turn its errors into exit codes.

    Expected failures print one ``error:`` and one ``hint:`` line on stderr and exit with their
    class's code; anything else is a bug: exit 70. Tracebacks appear with ``--debug`` only. With
    ``--log-format json`` the failure is a last event instead of the two lines.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, log_format: LogFormat, debug: bool, **kwargs: Any) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forks warn otherwise
        calm_openmp()
        catch_signals()
        try:
            configure_logging(log_format, run_id(), verbose=debug)
            show_bars(True)
            function(*args, **kwargs)
            sys.stdout.flush()
        except MmindexError as error:
            _fail(error, debug, log_format)
        except BrokenPipeError:
            settle_stdout()  # the reader of our output went away (``| head``): no failure
        except OSError as error:
            _fail(_as_expected(error), debug, log_format)
        except KeyboardInterrupt as error:
            _end("interrupted", error, log_format)
        except Terminated as error:
            _end("terminated", error, log_format)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: what gets here is a bug
            _fail(_as_bug(error), debug, log_format)

    # Evaluated: typer takes a __signature__ as it is and would not see Annotated in strings.
    signature = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(
            "log_format",
            inspect.Parameter.KEYWORD_ONLY,
            default="text",
            annotation=_LogFormatOption,
        ),
        inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_DebugOption
        ),
    ]
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions allow it
        parameters=[*signature.parameters.values(), *extra]
    )
    wrapper.__annotations__ = {
        **get_type_hints(function, include_extras=True),
        "log_format": _LogFormatOption,
        "debug": _DebugOption,
    }
    return wrapper


def fail_on(error: OSError) -> NoReturn:
    """End with the exit code of an operating system's error, most often about stdout."""
    _fail(_as_expected(error))


def _as_expected(error: OSError) -> MmindexError:
    return from_os_error(error, error.filename or "output")


def _as_bug(error: Exception) -> MmindexError:
    bug = InternalError(
        f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]}",
        "this is a bug in mmindex: run again with --debug and report the traceback",
    )
    bug.__cause__ = error
    return bug


def _fail(error: MmindexError, debug: bool = False, log_format: LogFormat = "text") -> NoReturn:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    settle_stdout()
    code, message, hint = error.exit_code, as_flags(error.message), as_flags(error.hint)
    if log_format == "json":
        say(_event("failed", error=message, hint=hint, exit_code=code))
    else:
        say(f"error: {_one_line(message)}")
        if hint:
            say(f"hint: {_one_line(hint)}")
    raise typer.Exit(code)


def _end(word: str, error: BaseException, log_format: LogFormat) -> NoReturn:
    settle_stdout()
    code = exit_code_of(error)
    say(_event(word, exit_code=code) if log_format == "json" else f"error: {word}")
    raise typer.Exit(code)


def _event(what: str, **values: object) -> str:
    """The last event of a run that failed, in the form of those that were logged."""
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    common = {"stage": "run", "event": what, "level": "error", "timestamp": stamp}
    return json.dumps({"run_id": run_id(), **common, **values})


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
