"""Small evaluated scenes: images, references and predictions on disk, and their summary.json."""

import json
from pathlib import Path

import numpy as np

from veloxseg.evaluation.summary import evaluate_folder
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SPACING = (4.0, 2.0, 1.0)
SHAPE = (8, 30, 60)
LABELS = {"background": 0, "organ": 1, "tumour": 2}


def write(path: Path, data: np.ndarray, spacing=SPACING) -> None:
    write_volume(path, Volume(data=data, spacing_zyx=spacing))


def reference() -> np.ndarray:
    """An organ of 4 x 10 x 20 voxels (z, y, x), with a tumour of 2 x 4 x 8 in it."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:6, 10:20, 20:40] = 1
    mask[3:5, 12:16, 24:32] = 2
    return mask


def prediction(shift: int) -> np.ndarray:
    return np.roll(reference(), shift, axis=2)


def image() -> np.ndarray:
    return np.where(reference() > 0, 50, -100).astype(np.float32)


def write_scene(folder: Path, shifts: dict[str, int], *, tumours: bool = True) -> None:
    """Folders ``imagesTr``, ``labelsTr`` and ``masks``; each prediction lies ``shift`` mm off."""
    for case, shift in shifts.items():
        masks = {"labelsTr": reference(), "masks": prediction(shift)}
        for name, mask in masks.items():
            write(folder / name / f"{case}.nii.gz", mask if tumours else np.minimum(mask, 1))
        for number, scale in enumerate((1, 2)):
            write(folder / "imagesTr" / f"{case}_{number:04d}.nii.gz", image() * scale)
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": LABELS if tumours else {"background": 0, "organ": 1},
        "numTraining": len(shifts),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def evaluate_scene(folder: Path, shifts: dict[str, int], **options) -> Path:
    """Write a scene and its ``summary.json``."""
    write_scene(folder, shifts, tumours=options.pop("tumours", True))
    summary = folder / "summary.json"
    evaluate_folder(folder / "masks", folder / "labelsTr", output=summary, **options)
    return summary


def evaluate_scene_with_subsets(folder: Path, shifts: dict[str, int], *, lacking_ct: str) -> Path:
    """A scene whose case ``lacking_ct`` has a PET image only, evaluated by channels."""
    write_scene(folder, shifts)
    (folder / "imagesTr" / f"{lacking_ct}_0000.nii.gz").unlink()
    change(folder / "dataset.json", lambda content: content.update(optional=["CT"]))
    summary, images = folder / "summary.json", folder / "imagesTr"
    evaluate_folder(folder / "masks", folder / "labelsTr", images=images, output=summary)
    return summary


def change(path: Path, edit) -> Path:
    """Change a JSON file by a function."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path
