"""Commands on models that are known by name: veloxseg models ..."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from veloxseg.commands.reporting import case_bar, progress_console, reported, results_console
from veloxseg.errors import BundleError

if TYPE_CHECKING:
    from rich.table import Table

    from veloxseg.models.describing import ReportedDice
    from veloxseg.models.finding import KnownModel

models_app = typer.Typer(
    name="models",
    help="Models to use by name: -m NAME. Without a word more, they are listed.",
    invoke_without_command=True,
)

_Name = Annotated[str, typer.Argument(help="Of the model, as veloxseg models lists it.")]


@models_app.callback()
def _list_unless_told_more(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models_app.command("list")
@reported()
def list_models() -> None:
    """List the models that come with veloxseg and those that were added."""
    from veloxseg.models.finding import installed_folder, known_models

    console = results_console()
    models = known_models()
    if models:
        console.print(_table(list(models.values())))
    else:
        console.print("No models yet. Add one: veloxseg models add FILE_OR_URL")
    console.print(f"Models that are added lie in {installed_folder()}")


@models_app.command("show")
@reported()
def show_model(name: _Name) -> None:
    """Print a model's card: data, licence, use, figures, what it takes and gives."""
    from veloxseg.bundle.reading import open_bundle
    from veloxseg.models.describing import model_card
    from veloxseg.models.finding import find_model

    results_console().print(model_card(open_bundle(find_model(name).path)))


@models_app.command("add")
@reported()
def add_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_URL", help="A bundle's folder or zip, or the address of a zip."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="To call it by.", show_default="the file's name")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="What the zip must hash to; of a folder, its manifest.json."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Instead of another model of that name.")
    ] = False,
) -> None:
    """Keep a bundle in the user's folder, verified, to be used by name."""
    from veloxseg.models.finding import known_models
    from veloxseg.models.installing import install_model

    with _download_bar() as progress:
        model = install_model(source, name=name, sha256=sha256, replace=replace, progress=progress)
    console = results_console()
    console.print(_table([known_models()[model.name]]))
    console.print(f"It lies in {model.path}")
    console.print(f"To predict: veloxseg predict -m {model.name} -i IMAGES -o MASKS")


@models_app.command("remove")
@reported()
def remove_model(name: _Name) -> None:
    """Delete a model that was added."""
    from veloxseg.models.installing import remove_model as remove

    results_console().print(f"Removed: {remove(name)}")


def _table(models: list["KnownModel"]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from veloxseg.models.describing import summary_of_model

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Model")
    table.add_column("Channels, labels", ratio=1)
    table.add_column("Dice", no_wrap=True)
    table.add_column("Size", no_wrap=True)
    table.add_column("Licence")
    table.add_column("SHA-256", no_wrap=True)
    for model in models:
        try:
            found = summary_of_model(model)
        except (BundleError, OSError) as error:
            progress_console().print(f"{model.name}: {error}", style="yellow", markup=False)
            state = "damaged" if isinstance(error, BundleError) else "cannot be read"
            table.add_row(f"{model.name}\n{model.origin}", state)
            continue
        table.add_row(
            f"{found.name}\n{found.origin}",
            Text(f"{found.channels}\n{found.labels}"),
            _dice(found.dice),
            f"{found.size_mb:.1f} MB",
            Text(found.licence),
            found.sha256[:12],
        )
    return table


def _dice(found: "ReportedDice | None") -> str:
    if found is None:
        return ""
    if not found.num_cases:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f}\n{found.num_cases} case{'' if found.num_cases == 1 else 's'}"


@contextmanager
def _download_bar() -> Iterator[Callable[[int, int], None]]:
    with case_bar("Downloading, MB") as progress:

        def report(done: int, total: int) -> None:
            progress(done / 1e6, max(1, round(total / 1e6)))

        yield report
