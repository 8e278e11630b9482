"""What all commands share: their options, their errors, their bars."""

import errno
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from veloxseg.errors import VeloxSegError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of nnUNet_raw, nnUNet_preprocessed and nnUNet_results; else nnU-Net's "
        "environment variables say where they are.",
        show_default=False,
    ),
]
Dataset = Annotated[str, typer.Argument(help="Number or name: 4 or Dataset004_Hippocampus.")]
NumWorkers = Annotated[int, typer.Option(help="Processes that read and prepare cases.", min=1)]
_Debug = Annotated[bool, typer.Option("--debug", help="Show where an error arose.")]


def results_console() -> Console:
    """Where results go."""
    # Names may hold brackets, and colons around a word.
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def progress_console() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, markup=False)


def reported(*, resume_option: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command end as all do: what a user can mend is said without a traceback, exit 2.

    Args:
        resume_option: What to add to the command to go on after Ctrl-C (exit 130).
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(*args: Any, debug: bool = False, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except (VeloxSegError, OSError) as error:
                if debug:
                    progress_console().print_exception()
                _say("Error: ", "bold red", _describe(error))
                raise typer.Exit(2) from error
            except KeyboardInterrupt as interrupt:
                _say("Stopped. ", "bold yellow", f"Go on with: {_command_to_resume(resume_option)}")
                raise typer.Exit(INTERRUPTED) from interrupt

        signature = inspect.signature(function)
        debug = inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Debug
        )
        with_debug = signature.replace(parameters=[*signature.parameters.values(), debug])
        command.__signature__ = with_debug  # type: ignore[attr-defined]
        command.__annotations__ = {**function.__annotations__, "debug": _Debug}
        return command

    return decorate


@contextmanager
def case_bar(title: str) -> Iterator[Callable[[float, int], None]]:
    """Show a bar with the time left; yields what to call with the number done and that of all."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=progress_console(),
    )
    task = progress.add_task(title, total=None)

    def report(done: float, total: int) -> None:
        progress.start()  # not before there is something to show: an error may come first
        progress.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        progress.stop()


def _say(heading: str, style: str, message: str) -> None:
    progress_console().print(Text.assemble((heading, style), message), soft_wrap=True)


def _describe(error: VeloxSegError | OSError) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return (
            f"{where}the disk is full. No half-written file was left. "
            "Free some space and run the command again."
        )
    return f"{where}{error.strerror}."


def _command_to_resume(option: str) -> str:
    words = [word for word in sys.argv[1:] if word != "--overwrite"]
    if option and option not in words:
        words.append(option)
    return shlex.join(["veloxseg", *words])
