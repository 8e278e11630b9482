"""The command line: parse, one call, report."""

import sys
import threading
import warnings
from io import TextIOWrapper
from typing import Annotated

import typer

from veloxseg import __version__
from veloxseg.commands.benchmarking import benchmark
from veloxseg.commands.bundles import export
from veloxseg.commands.checking import check
from veloxseg.commands.converting import convert_app
from veloxseg.commands.evaluating import evaluate
from veloxseg.commands.model import plan, preprocess, train
from veloxseg.commands.models import models_app
from veloxseg.commands.postprocessing import postprocess
from veloxseg.commands.prediction import predict
from veloxseg.commands.reporting import INTERRUPTED
from veloxseg.commands.reporting_pages import report
from veloxseg.commands.whole import demo, info, run

app = typer.Typer(
    name="veloxseg",
    help="Light 3D medical segmentation with nnU-Net's conventions. Start with: "
    "veloxseg demo hippocampus",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None: ...


app.command()(demo)
app.add_typer(convert_app)
app.add_typer(models_app)
for command in (
    check,
    plan,
    preprocess,
    train,
    postprocess,
    export,
    predict,
    evaluate,
    report,
    benchmark,
    run,
    info,
):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # its own affairs
    if isinstance(sys.stdout, TextIOWrapper):  # file names may hold bytes that no terminal takes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # workers that went first would leave tracebacks of threads
            threading.excepthook = lambda _: None
        raise
