"""Parts of all commands: the store, the run id and the logging options."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmindex.core.progress import new_run_id, show_bars
from mmindex.core.system import calm_openmp
from mmindex_cli import boundary
from mmindex_cli.logs import LogFormat, configure_logging

_LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="Format of log events on stderr.")
]
_DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show debug events, and a traceback on failure.")
]


def store_path(option: Path | None) -> Path:
    """Return the store that a command uses."""
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
    """Return the id of the run of this process."""
    return new_run_id()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--log-format`` and ``--debug`` to a command, and apply them before it runs."""

    @functools.wraps(function)
    def wrapper(*args: Any, log_format: LogFormat, debug: bool, **kwargs: Any) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forks warn otherwise
        calm_openmp()
        boundary.reporting = boundary.Reporting(function.__name__, log_format, debug, run_id())
        configure_logging(log_format, run_id(), verbose=debug)
        show_bars(True)
        function(*args, **kwargs)

    # Evaluated, because typer does not find Annotated in the strings of a __signature__.
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = (
        inspect.Parameter("log_format", keyword, default="text", annotation=_LogFormatOption),
        inspect.Parameter("debug", keyword, default=False, annotation=_DebugOption),
    )
    return signed(wrapper, [*parameters, *extra])


def signed(
    wrapper: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Set the signature of a wrapper, from which typer creates the options."""
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions allow it
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper
