"""Whole cases in cold processes, files in and masks out: veloxseg predict against nnU-Net's own.

    python benchmarks/whole_case.py -m BUNDLE -i CT.nii.gz -i PET.nii.gz [--run RUN] [--threads 1]
    python benchmarks/whole_case.py -m BUNDLE -i FOLDER --run RUN --repeats 1
    python benchmarks/whole_case.py -m BUNDLE --phantom

Both get the same weights (RUN is the results folder that the bundle was exported from), the same
pinned cores and no mirroring. nnU-Net gets its defaults otherwise. A process's time is from its
start to its end. Memory is measured in a run of its own, which comes first and so warms the disk's
cache for both: the largest sum, over a command and its children, of proportional set sizes as
/proc has them every 20 ms (pages that several processes share count once), or the largest resident
set of one of them if that is more. With ``--backend auto`` that run may measure engines first, and
remember the figures: name one to leave that out. Masks are compared voxel by voxel.

``--phantom`` makes a body of 400x400x326 voxels of 2.04x2.04x3 mm for models of CT and PET.

Nothing is asserted; figures are printed beside the bars. Linux only.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np

from veloxseg.installation import extension_folder
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

SPEED_BAR, MEMORY_BAR = 5.0, 1 / 3
PHANTOM_SECONDS_BAR, PHANTOM_GB_BAR = 90.0, 3.0
PHANTOM_SIZE_ZYX, PHANTOM_SPACING_ZYX = (326, 400, 400), (3.0, 2.04, 2.04)
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: Wall-clock time of each timed run.
        peak_memory_gb: Of the command and its children together.
    """

    seconds: list[float]
    peak_memory_gb: float

    @property
    def median_seconds(self) -> float:
        """Median over the timed runs."""
        return median(self.seconds)


def main() -> None:
    """Parse the command line, measure, print."""
    options = parse_options()
    pin(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = folder / "cases"
        cases.mkdir()
        files = make_phantom(folder / "phantom") if options.phantom else options.input
        link_cases(files, cases)
        num_cases = len(list(cases.glob("*_0000.*")))
        ours, theirs = folder / "veloxseg", folder / "nnunet"
        result = {
            "cases": num_cases,
            "threads": options.threads,
            "overlap": options.overlap,
            "veloxseg": measure(veloxseg_words(options, cases, ours), options),
        }
        if options.run:
            words = nnunet_words(options, cases, theirs)
            result["nnunet"] = measure(words, options, environment=nnunet_environment(options))
            result["agreement"] = agreement(ours, theirs)
    bars = compare(result, is_phantom=options.phantom)
    print_table(result, bars)
    if options.json:
        plain = {k: asdict(v) if isinstance(v, Measured) else v for k, v in result.items()}
        options.json.write_text(json.dumps({**plain, "bars": bars}, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-i", "--input", type=Path, action="append", default=[])
    parser.add_argument("--phantom", action="store_true")
    parser.add_argument("--run", type=Path, help="TRAINER__PLANS__CONFIGURATION, for nnU-Net")
    parser.add_argument("--folds", nargs="+", default=["0"], help="of the run")
    parser.add_argument("--nnunet-processes", type=int, help="to prepare and write; else its 3, 3")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if bool(options.input) == options.phantom:
        parser.error("give either -i or --phantom")
    return options


def pin(threads: int) -> None:
    """Keep this process and all it starts to the last cores it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def link_cases(files: list[Path], folder: Path) -> None:
    """Lay links in nnU-Net's naming: of a folder's files, or of the channels of one case."""
    if len(files) == 1 and files[0].is_dir():
        for file in sorted(files[0].iterdir()):
            (folder / file.name).symlink_to(file.resolve())
        return
    for channel, file in enumerate(files):
        ending = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
        (folder / f"case_{channel:04d}{ending}").symlink_to(file.resolve())


def veloxseg_words(options: argparse.Namespace, cases: Path, output: Path) -> list[str]:
    """Our command."""
    return [
        str(Path(sys.executable).with_name("veloxseg")), "predict", "-m", str(options.model),
        "-i", str(cases), "-o", str(output), "--threads", str(options.threads),
        "--backend", options.backend, "--precision", options.precision,
        "--overlap", str(options.overlap),
    ]  # fmt: skip


def nnunet_words(options: argparse.Namespace, cases: Path, output: Path) -> list[str]:
    """nnU-Net's command."""
    trainer, plans, configuration = options.run.name.split("__")
    number = str(options.nnunet_processes)
    processes = ["-npp", number, "-nps", number] if options.nnunet_processes else []
    return [
        str(Path(sys.executable).with_name("nnUNetv2_predict")), "-i", str(cases),
        "-o", str(output), "-d", options.run.parent.name, "-tr", trainer, "-p", plans,
        "-c", configuration, "-f", *options.folds, "-device", "cpu", "--disable_tta",
        "-step_size", str(1 - options.overlap), *processes,
    ]  # fmt: skip


def nnunet_environment(options: argparse.Namespace) -> dict[str, str]:
    """Where nnU-Net finds the run and our trainer."""
    results = options.run.resolve().parents[1]
    return {
        "nnUNet_results": str(results),
        "nnUNet_raw": str(results.with_name("nnUNet_raw")),
        "nnUNet_preprocessed": str(results.with_name("nnUNet_preprocessed")),
        "nnUNet_extTrainer": str(extension_folder()),
    }


def measure(
    words: list[str], options: argparse.Namespace, *, environment: dict[str, str] | None = None
) -> Measured:
    """Run a command once for its memory and some times for its time."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    environment = {**os.environ, **threads, **(environment or {})}
    _, peak = run(words, environment, with_memory=True)
    print(f"{Path(words[0]).name}: {peak:.2f} GB", file=sys.stderr)
    times = []
    for _ in range(options.repeats):
        times.append(run(words, environment, with_memory=False)[0])
        print(f"{Path(words[0]).name}: {times[-1]:.1f} s", file=sys.stderr)
    return Measured(seconds=times, peak_memory_gb=peak)


def run(words: list[str], environment: dict[str, str], *, with_memory: bool) -> tuple[float, float]:
    """Seconds of a command, and GB of it and its children if they are asked for."""
    with tempfile.TemporaryFile("w+") as said:
        started = perf_counter()
        # A session of its own finds children whose parents are gone, too.
        process = subprocess.Popen(
            words, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        peak = 0.0
        while with_memory and process.poll() is None:
            peak = max(peak, session_memory_gb(process.pid))
            sleep(SAMPLE_SECONDS)
        code = process.wait()
        seconds = perf_counter() - started
        if code:
            said.seek(0)
            sys.exit(f"{' '.join(words)} ended with {code}:\n{said.read()[-3000:]}")
    return seconds, peak


def session_memory_gb(session: int) -> float:
    """Memory of all processes of a session: see the head of this file."""
    together, largest = 0, 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):  # it may end meanwhile
            if not folder.name.isdigit() or session_of(folder) != session:
                continue
            together += kibibytes(folder / "smaps_rollup", "Pss:")
            largest = max(largest, kibibytes(folder / "status", "VmHWM:"))
    return max(together, largest) * 1024 / 1e9


def session_of(process: Path) -> int:
    """The session of a process: the fourth word of its ``stat`` after the name in brackets."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[3])


def kibibytes(file: Path, name: str) -> int:
    """A line such as ``Pss: 1234 kB``; 0 if there is none."""
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(words[1]) for words in lines if words and words[0] == name), 0)


def agreement(ours: Path, theirs: Path) -> float:
    """Share of voxels with the same label, the smallest over all cases."""
    shares = []
    for mask in sorted(theirs.glob("*.nii.gz")):
        same = read_volume(mask).data == read_volume(ours / mask.name).data
        shares.append(float(same.mean()))
    return min(shares)


def make_phantom(folder: Path) -> list[Path]:
    """Write a body in air: an ellipse in each plane, with organs, noise and hot spots.

    The CT is int16 in Hounsfield units, the PET float32 in SUV and exactly 0 nowhere, so that no
    tile can be left out.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    depth, height, width = PHANTOM_SIZE_ZYX
    ct = np.empty(PHANTOM_SIZE_ZYX, np.int16)
    pet = np.empty(PHANTOM_SIZE_ZYX, np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    for plane in range(depth):
        z = 2 * plane / (depth - 1) - 1
        girth = 0.35 + 0.1 * np.cos(5 * z)
        body = (x / (1.4 * girth)) ** 2 + (y / girth) ** 2 < 1
        bone = x**2 + (y - 0.6 * girth) ** 2 < 0.003
        lung = (np.abs(x) - 0.2) ** 2 / 0.02 + y**2 / 0.05 + (z - 0.35) ** 2 / 0.06 < 1
        liver = (x + 0.2) ** 2 / 0.04 + y**2 / 0.05 + (z + 0.05) ** 2 / 0.02 < 1
        spots = (x - 0.1) ** 2 + (y + 0.1) ** 2 + (np.mod(z + 1, 0.4) - 0.2) ** 2 < 0.001
        hu = np.select([~body, bone, lung, liver], [-1000, 700, -800, 110], 40)
        suv = np.select([~body, spots, lung, liver], [0.02, 9.0, 0.5, 2.5], 1.0)
        noise = rng.standard_normal((2, height, width), dtype=np.float32)
        ct[plane] = np.clip(hu + 15 * noise[0], -1024, 3071)
        pet[plane] = np.maximum(suv * (1 + 0.2 * noise[1]), 0.001)
    files = [folder / "CT.nii.gz", folder / "PET.nii.gz"]
    for file, data in zip(files, (ct, pet), strict=True):
        write_volume(file, Volume(data=data, spacing_zyx=PHANTOM_SPACING_ZYX))
    return files


def compare(result: dict, *, is_phantom: bool) -> dict[str, bool]:
    """Which bars are met, in words."""
    ours, bars = result["veloxseg"], {}
    if "nnunet" in result:
        speedup = result["nnunet"].median_seconds / ours.median_seconds
        share = ours.peak_memory_gb / result["nnunet"].peak_memory_gb
        bars[f"{speedup:.1f} times faster, expected {SPEED_BAR:g}"] = speedup >= SPEED_BAR
        bars[f"{share:.2f} of the memory, expected {MEMORY_BAR:.2f}"] = share <= MEMORY_BAR
    if is_phantom:
        seconds, memory = ours.median_seconds, ours.peak_memory_gb
        bars[f"{seconds:.0f} s, expected {PHANTOM_SECONDS_BAR:g}"] = seconds <= PHANTOM_SECONDS_BAR
        bars[f"{memory:.2f} GB, expected {PHANTOM_GB_BAR:g}"] = memory <= PHANTOM_GB_BAR
    return bars


def print_table(result: dict, bars: dict[str, bool]) -> None:
    """Print Markdown."""
    print(f"{result['cases']} case(s), {result['threads']} thread(s), overlap {result['overlap']}")
    if "agreement" in result:
        print(f"Voxels with the same label: {100 * result['agreement']:.3f} % (the worst case)")
    print("\n| | s, median (each run) | peak memory, GB |\n| --- | --- | --- |")
    for name in ("veloxseg", "nnunet"):
        if name in result:
            one = result[name]
            each = ", ".join(f"{seconds:.2f}" for seconds in one.seconds)
            print(f"| {name} | {one.median_seconds:.2f} ({each}) | {one.peak_memory_gb:.2f} |")
    print()
    for said, is_met in bars.items():
        print(f"{'met' if is_met else 'MISSED'}: {said}")


if __name__ == "__main__":
    main()
