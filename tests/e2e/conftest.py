import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from veloxseg.datasets.phantoms import phantom
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

NUM_CASES = 5

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five phantoms of every other voxel, as a user's folder: CASE/CT, PET and lesions.nii.gz."""
    folder = tmp_path_factory.mktemp("patients")
    for index in range(NUM_CASES):
        case = phantom(0, index)
        for name, volume in (("CT", case.ct), ("PET", case.pet), ("lesions", case.lesions)):
            write_volume(folder / f"patient_{index}" / f"{name}.nii.gz", _halved(volume))
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of nnU-Net's three."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def environment(root: Path) -> dict[str, str]:
    """nnU-Net's variables, and one process and thread for everything."""
    folders = {
        name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    workers = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    return {**os.environ, **folders, **workers, "COLUMNS": "200"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Runs a command of the environment that the tests run in, and checks its exit code."""

    def run(*words: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = map(str, words)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    return run


@pytest.fixture(scope="session")
def trained(patients: Path, root: Path, command: Command) -> Path:
    """The fold's folder after ``convert`` and ``run``, in a few seconds of training."""
    command(
        "veloxseg", "convert", "folder", patients, "Dataset100_Tiny",
        "--channel", "CT={case}/CT.nii.gz", "--channel", "PET={case}/PET.nii.gz",
        "--label", "{case}/lesions.nii.gz", "--reference", "CT", "--labels", "lesion=1",
    )  # fmt: skip
    command("veloxseg", "run", "100", "--minutes", "0.4")
    return root.joinpath(
        "nnUNet_results", "Dataset100_Tiny", "VeloxSegTrainer__VeloxSegPlans__3d_fullres", "fold_0"
    )


def _halved(volume: Volume) -> Volume:
    z, y, x = volume.spacing_zyx
    return Volume(
        data=np.ascontiguousarray(volume.data[::2, ::2, ::2]),
        spacing_zyx=(2 * z, 2 * y, 2 * x),
        origin_xyz=volume.origin_xyz,
        direction=volume.direction,
    )
