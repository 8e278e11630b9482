"""A bundle's masks beside those of nnU-Net's own prediction, on the same weights and images.

    python benchmarks/agreement.py BUNDLE FOLD_FOLDER IMAGES WORK [--oracle float32]

FOLD_FOLDER is nnU-Net's: RESULTS/DATASET/TRAINER__PLANS__CONFIGURATION/fold_F; IMAGES has nnU-Net's
names. ``nnUNetv2_predict`` runs on the processor without mirroring, tiles half a patch apart, as
the bundle does; its masks stay in WORK, so that a second run goes on from there.

``--oracle float32`` lets nnU-Net average its tiles in float32 instead of float16: what then remains
is ours. After both, a line says how far nnU-Net's two masks differ from each other.

Prints a Markdown table, and the cases below a bar; exits with 1 if there are any.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from veloxseg import __version__
from veloxseg.evaluation.metrics import dice
from veloxseg.runtime.case import read_case
from veloxseg.runtime.inputs import find_prediction_cases
from veloxseg.runtime.model import Model, load
from veloxseg.runtime.preprocessing import preprocess_volumes
from veloxseg.volumes.reading import read_volume

MIN_AGREEMENT = 0.999
MIN_DICE = 0.999

RTOL = 1e-3
ATOL = 1e-4
"""Normalised intensities have a standard deviation of about 1, so that those near 0 are differences
of numbers near 1 that both sides round to 1e-7, over sums of many of them."""

_ORACLES = {
    "float16": "",
    # Where sums, weights and their ratio lie; the network computes in float32 as it is.
    "float32": """
import torch
torch.half = torch.float32
from nnunetv2.inference import predict_from_raw_data as prediction
gaussian = prediction.compute_gaussian.__wrapped__
gaussian.__defaults__ = tuple(
    torch.float32 if value is torch.float16 else value for value in gaussian.__defaults__
)
""",
}
_PREDICT = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point as predict\n"


@dataclass(frozen=True, kw_only=True)
class LabelAgreement:
    """How one label of a case agrees.

    Attributes:
        name: Of the label or region.
        voxels: That have it in nnU-Net's mask.
        different: Voxels that have it in one mask only.
        dice: Of both masks; None where neither has the label.
    """

    name: str
    voxels: int
    different: int
    dice: float | None


@dataclass(frozen=True, kw_only=True)
class CaseAgreement:
    """How a case agrees.

    Attributes:
        name: The case's.
        agreement: Share of voxels with the same label.
        different: Voxels with another label.
        labels: Each label by itself.
        input_error: Largest absolute difference of the networks' inputs.
        input_outside: Values of the input beyond rtol and atol.
    """

    name: str
    agreement: float
    different: int
    labels: tuple[LabelAgreement, ...]
    input_error: float
    input_outside: int

    @property
    def lowest_dice(self) -> float:
        """Of all labels that either mask has; 1 if there are none."""
        return min((label.dice for label in self.labels if label.dice is not None), default=1.0)

    @property
    def passes(self) -> bool:
        """Whether it is above every bar."""
        masks = self.agreement >= MIN_AGREEMENT and self.lowest_dice >= MIN_DICE
        return masks and not self.input_outside


def run_nnunet(fold: Path, images: Path, output: Path, oracle: str) -> None:
    """Let nnU-Net predict a folder, except for what is there already."""
    results, (trainer, plans, configuration) = fold.parents[2], fold.parent.name.split("__")
    extension = Path(sys.executable).with_name("veloxseg")
    where = subprocess.run(
        [extension, "info", "--nnunet-path"], check=True, capture_output=True, text=True
    )
    words = [
        "-i", images, "-o", output, "-d", fold.parent.parent.name, "-tr", trainer, "-p", plans,
        "-c", configuration, "-f", fold.name.removeprefix("fold_"), "-device", "cpu",
        "-npp", 1, "-nps", 1, "-step_size", 0.5, "--disable_tta", "--continue_prediction",
    ]  # fmt: skip
    program = [Path(sys.executable).with_name("nnUNetv2_predict")]
    if _ORACLES[oracle]:
        program = [sys.executable, "-c", f"{_ORACLES[oracle]}{_PREDICT}predict()"]
    subprocess.run(
        list(map(str, [*program, *words])),
        check=True,
        env={
            **os.environ,
            "nnUNet_raw": str(results),
            "nnUNet_preprocessed": str(results),
            "nnUNet_results": str(results),
            "nnUNet_extTrainer": where.stdout.strip(),
            "nnUNet_def_n_proc": "1",
        },
    )


def compare_labels(
    ours: npt.NDArray[np.integer], theirs: npt.NDArray[np.integer], model: Model
) -> tuple[LabelAgreement, ...]:
    """Compare every label or region of two masks."""
    labels = []
    for name, value in model.pipeline.foreground.items():
        our, their = np.isin(ours, value), np.isin(theirs, value)
        labels.append(
            LabelAgreement(
                name=name,
                voxels=int(np.count_nonzero(their)),
                different=int(np.count_nonzero(our != their)),
                dice=dice(our, their) if our.any() or their.any() else None,
            )
        )
    return tuple(labels)


def compare_inputs(images: tuple[Path, ...], model: Model, fold: Path) -> tuple[float, int]:
    """Largest difference of the network's input from nnU-Net's, and how many values are beyond."""
    plans = PlansManager(str(fold.parent / "plans.json"))
    theirs, _, _ = DefaultPreprocessor(verbose=False).run_case(
        list(map(str, images)),
        None,
        plans,
        plans.get_configuration(fold.parent.name.split("__")[-1]),
        json.loads((fold.parent / "dataset.json").read_text()),
    )
    ours = preprocess_volumes(read_case(images, model.pipeline).channels, model.pipeline).data
    beyond = ~np.isclose(ours, theirs, rtol=RTOL, atol=ATOL)
    return float(np.abs(ours - theirs).max()), int(np.count_nonzero(beyond))


def compare_case(
    name: str, images: tuple[Path, ...], mask: Path, model: Model, fold: Path
) -> CaseAgreement:
    """Predict a case and compare with nnU-Net's mask of it."""
    ours, theirs = model.predict(images).mask, read_volume(mask).data
    input_error, input_outside = compare_inputs(images, model, fold)
    return CaseAgreement(
        name=name,
        agreement=float(np.mean(ours == theirs)),
        different=int(np.count_nonzero(ours != theirs)),
        labels=compare_labels(ours, theirs, model),
        input_error=input_error,
        input_outside=input_outside,
    )


def print_table(dataset: str, oracle: str, cases: list[CaseAgreement]) -> None:
    """Print what came out, and the cases below a bar."""
    agreements = [case.agreement for case in cases]
    dices = [label.dice for case in cases for label in case.labels if label.dice is not None]
    worst = min(cases, key=lambda case: (case.lowest_dice, case.agreement))
    identical = sum(case.different == 0 for case in cases)
    error = max(case.input_error for case in cases)
    outside = sum(case.input_outside for case in cases)
    print(
        "| dataset, nnU-Net's sums in | cases | identical | lowest, mean agreement | lowest, mean "
        "Dice of a label | worst case | input: largest difference, values beyond |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        f"| {dataset}, {oracle} | {len(cases)} | {identical} | "
        f"{min(agreements):.6f}, {np.mean(agreements):.6f} | "
        f"{min(dices, default=1):.5f}, {np.mean(dices or [1]):.5f} | "
        f"{worst.name} | {error:.1e}, {outside} |"
    )
    for case in cases:
        if not case.passes:
            labels = "; ".join(
                f"{x.name}: {x.different} of {x.voxels} voxels differ, Dice {x.dice or 0:.5f}"
                for x in case.labels
            )
            print(f"below: {case.name}, agreement {case.agreement:.6f}; {labels}")


def print_rounding(work: Path, file_ending: str) -> None:
    """Print how far nnU-Net's masks depend on the precision of its sums, if both are there."""
    folders = [work / f"nnunet_{oracle}" for oracle in sorted(_ORACLES)]
    if not all(folder.is_dir() for folder in folders):
        return
    pairs = {
        path.name: [read_volume(folder / path.name).data for folder in folders]
        for path in sorted(folders[0].glob(f"*{file_ending}"))
    }
    dices = {
        (name, int(label)): dice(first == label, second == label)
        for name, (first, second) in pairs.items()
        for label in np.union1d(first, second)
        if label
    }
    same = sum(np.array_equal(*pair) for pair in pairs.values())
    lowest = sorted(dices.items(), key=lambda item: item[1])[:3]
    print(
        f"nnU-Net in float16 beside nnU-Net in float32: {same} of {len(pairs)} masks identical; "
        "lowest Dice: " + ", ".join(f"{name} label {x}: {d:.5f}" for (name, x), d in lowest)
    )


def main() -> None:
    """Parse the command line, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "fold", "images", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--oracle", choices=sorted(_ORACLES), default="float16")
    parser.add_argument("--backend", choices=("openvino", "onnxruntime", "torch"))
    options = parser.parse_args()

    fold = options.fold.resolve()
    masks = options.work / f"nnunet_{options.oracle}"
    run_nnunet(fold, options.images, masks, options.oracle)
    model = load(options.bundle, backend=options.backend)
    cases = [
        compare_case(case.name, case.images, case.output, model, fold)
        for case in find_prediction_cases(
            [options.images],
            masks,
            channels=model.pipeline.channels,
            file_ending=model.pipeline.file_ending,
        )
    ]
    (options.work / f"agreement_{options.oracle}.json").write_text(
        json.dumps([asdict(case) for case in cases], indent=2) + "\n"
    )
    packages = ("nnunetv2", "torch", "numpy", "openvino", "onnxruntime")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(f"veloxseg {__version__}: {model.choice.execution}")
    print_table(fold.parent.parent.name, options.oracle, cases)
    print_rounding(options.work, model.pipeline.file_ending)
    sys.exit(not all(case.passes for case in cases))


if __name__ == "__main__":
    main()
