"""Convert all real data beside the repository, kill a run midway, resume it, and run it once more.

    python benchmarks/convert_shared.py SHARED ROOT [--only NAME] [--num-workers N] [--json FILE]

``SHARED`` is the folder of the data's README.md, ``ROOT`` a new or empty folder. For each dataset,
by its one command:

1. whole: converted without interruption, timed, and looked through by ``veloxseg check``;
2. killed: begun elsewhere and killed (SIGKILL) when the first case was finished, or the first image
   where there is but one case. Every file that has its name must be whole;
3. resumed: the same command again. Cases that were finished keep their files' time of change, and
   all files hold the same bytes as those of the whole run;
4. again: the same command once more. No file may change a byte or its time of change.

Prints a line for each dataset. The exit code is 1 if one of these does not hold. Linux only.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import VeloxSegError
from veloxseg.volumes.reading import read_volume

COMMANDS = {
    "sts": [
        *("folder", "{shared}/sts", "Dataset110_Sarcoma"),
        *("--channel", "CT={{case}}/CT_image.nii.gz"),
        *("--channel", "PET={{case}}/PET_image.nii.gz"),
        *("--channel", "T1={{case}}/MR_T1_image.nii.gz"),
        *("--label", "{{case}}/CT_mask.nii.gz", "--reference", "CT", "--labels", "tumour=1"),
    ],
    "brats2013": ["brats", "{shared}/brats2013", "Dataset113_BRATS2013"],
    "hippocampus": [
        *("folder", "{shared}/hippocampus/Dataset004_Hippocampus", "Dataset104_Hippocampus"),
        *("--channel", "MRI=imagesTr/{{case}}_0000.nii.gz", "--label", "labelsTr/{{case}}.nii.gz"),
        *("--labels", "anterior=1,posterior=2"),
    ],
    "hippocampus as the Decathlon has it": ["msd", "{root}/Task04_Hippocampus"],
    "dicom/pet": [
        *("dicom", "{shared}/dicom/pet", "Dataset120_PET", "--channel", "PET=modality:PT"),
        *("--label", "tumour=GTV_Mass"),
    ],
    "dicom/brain_mr": [
        *("dicom", "{shared}/dicom/brain_mr", "Dataset121_BrainMR"),
        *("--channel", "T1post=modality:MR,description:^T1post"),
        *("--channel", "T1pre=modality:MR,description:^T1pre"),
        *("--channel", "FLAIR=modality:MR,description:FLAIR"),
        *("--channel", "T2=modality:MR,description:^T2"),
    ],
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was seen of one dataset."""

    name: str
    num_cases: int
    num_files: int
    num_errors: int
    num_warnings: int
    whole_seconds: float
    finished_before_kill: int
    broken_after_kill: list[str]
    resumed_seconds: float
    touched_by_resuming: list[str]
    other_than_whole: list[str]
    again_seconds: float
    changed_by_again: list[str]

    @property
    def is_good(self) -> bool:
        """Whether all that is claimed holds."""
        wrong = (self.broken_after_kill, self.touched_by_resuming, self.other_than_whole)
        return self.num_errors == 0 and not any(wrong) and not self.changed_by_again


def main() -> int:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", choices=list(COMMANDS))
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    make_decathlon_task(options.shared, options.root)
    outcomes = []
    for name in [options.only] if options.only else COMMANDS:
        words = [word.format(shared=options.shared, root=options.root) for word in COMMANDS[name]]
        words += ["--num-workers", str(options.num_workers)]
        outcome = convert(name, words, options.root)
        print(describe(outcome), flush=True)
        outcomes.append(outcome)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=2) + "\n")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def make_decathlon_task(shared: Path, root: Path) -> None:
    """Hippocampus MR in the form of the Decathlon, whose download it is of: links and a list."""
    source = shared / "hippocampus/Dataset004_Hippocampus"
    task = root / "Task04_Hippocampus"
    names = sorted(path.name for path in (source / "labelsTr").glob("[!.]*.nii.gz"))
    for name in names:
        for part, file in (("imagesTr", name.replace(".nii", "_0000.nii")), ("labelsTr", name)):
            (task / part).mkdir(parents=True, exist_ok=True)
            if not (task / part / name).exists():
                (task / part / name).symlink_to((source / part / file).resolve())
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in names],
    }
    (task / "dataset.json").write_text(json.dumps(content))


def convert(name: str, words: list[str], root: Path) -> Outcome:
    """Go through the four steps."""
    folders = {}
    for run in ("whole", "killed"):
        raw = Workspace.resolve(root / run).raw
        folders[run] = raw / next(
            (word for word in words if re.fullmatch(r"Dataset\d+_\w+", word)),
            "Dataset004_Hippocampus",
        )
    whole, killed = folders["whole"], folders["killed"]

    whole_seconds = finish(words, root / "whole")
    report = check_dataset(whole)
    num_cases = len(records(whole))
    kill_midway(words, root / "killed", killed, wait_for_case=num_cases > 1)
    broken = broken_files(killed)
    finished = records(killed)
    before = state(killed)
    resumed_seconds = finish(words, root / "killed")
    after = state(killed)
    of_finished = {file for files in finished.values() for file in files}
    again_seconds = finish(words, root / "killed")
    return Outcome(
        name=name,
        num_cases=num_cases,
        num_files=len(after),
        num_errors=len(report.errors),
        num_warnings=len(report.warnings),
        whole_seconds=whole_seconds,
        finished_before_kill=len(finished),
        broken_after_kill=broken,
        resumed_seconds=resumed_seconds,
        touched_by_resuming=sorted(f for f in of_finished if before[f] != after[f]),
        other_than_whole=differing(state(whole), after, with_time=False),
        again_seconds=again_seconds,
        changed_by_again=differing(after, state(killed), with_time=True),
    )


def command(words: list[str], root: Path) -> list[str]:
    """The command as a process."""
    program = [sys.executable, "-c", "from veloxseg.cli import main; main()"]
    return [*program, "convert", *words, "--root", str(root)]


def finish(words: list[str], root: Path) -> float:
    """Run the command to its end; its wall-clock time in seconds."""
    begin = time.perf_counter()
    subprocess.run(command(words, root), check=True, capture_output=True)
    return time.perf_counter() - begin


def kill_midway(words: list[str], root: Path, folder: Path, *, wait_for_case: bool) -> None:
    """Kill the command by SIGKILL when it has finished a case, or else an image."""
    pattern = "conversion_*/[!.]*.json" if wait_for_case else "images*/[!.]*.nii.gz"
    process = subprocess.Popen(command(words, root), stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers end when they see that it is gone


def records(folder: Path) -> dict[str, list[str]]:
    """Finished case to its files."""
    both = read_records(folder, part="Tr") | read_records(folder, part="Ts")
    return {case: list(record.written.values()) for case, record in both.items()}


def broken_files(folder: Path) -> list[str]:
    """Images and records that bear their names and cannot be read."""
    broken = []
    for path in sorted(folder.glob("*/[!.]*")):
        try:
            read_volume(path) if path.name.endswith(".nii.gz") else json.loads(path.read_text())
        except (VeloxSegError, ValueError) as error:
            broken.append(f"{path.name}: {error}")
    return broken


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file, hidden ones included, to the hash of its bytes and its time of change."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differing(
    a: dict[str, tuple[str, int]], b: dict[str, tuple[str, int]], *, with_time: bool
) -> list[str]:
    """Names of files that only one has, or whose content (or time of change) differs."""
    last = 2 if with_time else 1
    return sorted(
        name
        for name in a.keys() | b.keys()
        if name not in a or name not in b or a[name][:last] != b[name][:last]
    )


def describe(outcome: Outcome) -> str:
    """One line on a dataset."""
    return (
        f"{'good' if outcome.is_good else 'WRONG'}  {outcome.name}: {outcome.num_cases} cases, "
        f"{outcome.num_files} files in {outcome.whole_seconds:.1f} s; check: {outcome.num_errors} "
        f"errors, {outcome.num_warnings} warnings; killed after {outcome.finished_before_kill} "
        f"cases with {len(outcome.broken_after_kill)} broken files; resumed in "
        f"{outcome.resumed_seconds:.1f} s, {len(outcome.touched_by_resuming)} finished files "
        f"touched, {len(outcome.other_than_whole)} unlike the whole run's; again in "
        f"{outcome.again_seconds:.1f} s, {len(outcome.changed_by_again)} files changed"
    )


if __name__ == "__main__":
    sys.exit(main())
