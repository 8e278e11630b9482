"""Problems, plans and installations as tables to print."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from veloxseg.installation import INSTALL_TRAINING, Installation
from veloxseg.planning.files import CONFIGURATION

if TYPE_CHECKING:
    from veloxseg.datasets.fix import FixReport
    from veloxseg.datasets.fixing.choosing import FileToWrite
    from veloxseg.datasets.problems import Problem

_SHOWN_OF_A_KIND = 5
_SHOWN_LEFT_OUT = 10


def problems_table(problems: Sequence["Problem"]) -> Table:
    """One row a problem; of many of one kind the first ones, and how many more there are."""
    table = Table(show_lines=True)
    table.add_column("Case", overflow="fold")
    table.add_column("Severity")
    table.add_column("Kind", overflow="fold")
    table.add_column("What is wrong", overflow="fold")
    counts = Counter((problem.severity, problem.kind) for problem in problems)
    shown: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        sort = (problem.severity, problem.kind)
        shown[sort] += 1
        left = counts[sort] - _SHOWN_OF_A_KIND
        if shown[sort] <= _SHOWN_OF_A_KIND or left == 1:
            words = (problem.case or "all", problem.message)
        elif shown[sort] == _SHOWN_OF_A_KIND + 1:
            words = ("...", f"{left} more of this kind; all of them are in the JSON (--output)")
        else:
            continue
        style = "red" if problem.severity == "error" else "yellow"
        case, message = map(Text, words)
        table.add_row(case, Text(problem.severity, style=style), Text(problem.kind), message)
    return table


def fix_table(fix: "FixReport") -> Table:
    """What was mended, with an example of each, and the cases that were left out."""
    table = Table(show_lines=True)
    table.add_column("Files", justify="right")
    table.add_column("What was done", overflow="fold")
    mended: dict[tuple[str, ...], list[FileToWrite]] = defaultdict(list)
    for file in fix.mended:
        mended[file.mends].append(file)
    for files in mended.values():
        example = f"{files[0].name}: {'; '.join(files[0].done)}"
        table.add_row(str(len(files)), Text(example + (", ..." if len(files) > 1 else "")))
    for left in fix.left_out[:_SHOWN_LEFT_OUT]:
        table.add_row(Text("left out", style="red"), Text("\n".join(left.reasons)))
    if len(fix.left_out) > _SHOWN_LEFT_OUT:
        more = len(fix.left_out) - _SHOWN_LEFT_OUT
        table.add_row(Text("left out", style="red"), Text(f"{more} more cases"))
    return table


def decisions_table(decisions: Sequence[Mapping[str, str]]) -> Table:
    """One row a decision of a plan: what, its value, numbers and reason."""
    table = Table(title="Why", show_lines=True)
    table.add_column("What", overflow="fold")
    table.add_column("Value", overflow="fold")
    table.add_column("Because", overflow="fold")
    for decision in decisions:
        table.add_row(Text(decision["what"]), Text(decision["value"]), Text(decision["why"]))
    return table


def plan_table(plans: Mapping[str, Any], num_parameters: int) -> Table:
    """What was planned; ``plans`` are nnU-Net's, whose axes may be another order of the images'."""
    configuration = plans["configurations"][CONFIGURATION]
    axes = ", ".join("zyx"[axis] for axis in plans["transpose_forward"])
    network = configuration["architecture"]["arch_kwargs"]
    spacing = " x ".join(f"{step:.4g}" for step in configuration["spacing"])
    table = Table(title=f"Plan ({axes})", show_header=False)
    for name, value in {
        "Spacing": f"{spacing} mm",
        "Median shape": _times(
            round(size) for size in configuration["median_image_size_in_voxels"]
        ),
        "Patch": f"{_times(configuration['patch_size'])}, batch of {configuration['batch_size']}",
        "Modalities": " + ".join(map(str, network["in_channels"])) + " channels",
        "Stem stride": _times(network["stem_stride"]),
        "Stages": f"{len(network['conv_channels'])}, widths "
        + ", ".join(map(str, network["conv_channels"])),
        "Windows": ", ".join(_times(window) for window in network["big_windows"]),
        "Parameters": f"{num_parameters / 1e6:.2f} M",
    }.items():
        table.add_row(name, value)
    return table


def installation_table(installation: Installation, choices: Mapping[str, str]) -> Table:
    """Versions, threads, devices, engines measured and folders, and how to get what is missing."""
    table = Table(show_header=False)
    table.add_row("Python", f"{installation.python}, {installation.system}")
    for name, version in installation.versions.items():
        absent = f"not installed: {INSTALL_TRAINING}"
        table.add_row(name, Text(version or absent, style="" if version else "yellow"))
    threads = installation.num_threads
    table.add_row(
        "Cores", str(installation.num_cores) + (f", {threads} threads" if threads else "")
    )
    for device, description in installation.devices.items():
        table.add_row(f"--device {device}", Text(description))
    for model, choice in choices.items():
        table.add_row(f"--backend auto\n{model}", Text(choice))
    if not choices:
        table.add_row("--backend auto", Text("nothing measured yet: veloxseg benchmark -m BUNDLE"))
    for variable, folder in installation.folders.items():
        table.add_row(variable, Text(folder or "not set"))
    return table


def _times(numbers: Any) -> str:
    return " x ".join(map(str, numbers))
