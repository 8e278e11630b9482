"""Studies of PET/CT with a drawn lesion, as DICOM files, and their conversion."""

import numpy as np
import pydicom

from dicom_files import uid, write_segmentation, write_series, write_structures
from veloxseg.datasets.converters.dicom import convert_dicom
from veloxseg.datasets.converters.dicom_rules import rules_in_words

INJECTION = {
    "RadionuclideTotalDose": 350e6,
    "RadionuclideHalfLife": 3600.0,
    "RadiopharmaceuticalStartTime": "100000",
}
SUV = 70_000 / 175e6
RULES = ["CT=modality:CT", "PET=modality:PT"]
CASES = ("P1_20240229", "P2_20240229")


def numbers(depth=6, height=8, width=10, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1000, size=(depth, height, width)).astype(np.int16)


def mask():
    drawn = np.zeros((6, 8, 10), np.uint8)
    drawn[1:4, 2:6, 3:5] = 1
    drawn[2, 3, 3] = 0
    return drawn


def write_study(folder, patient="P1", *, seed=0, label="RTSTRUCT"):
    """CT, and PET of half as many voxels in the plane, with a lesion drawn on CT."""
    who = {"PatientID": patient, "StudyInstanceUID": uid("study", patient)}
    ct = write_series(
        folder / "ct",
        numbers(seed=seed),
        intercept=-24.0,
        SeriesInstanceUID=uid("series", "CT", patient),
        **who,
    )
    write_series(
        folder / "pet",
        numbers(6, 4, 5, seed=50 + seed),
        kind="PT",
        spacing_yx=(3.0, 4.0),
        slopes=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        injection=INJECTION,
        SeriesInstanceUID=uid("series", "PT", patient),
        **who,
    )
    if label == "SEG":
        write_segmentation(folder / "seg.dcm", ct, mask(), ["Tumour"])
    if label == "RTSTRUCT":
        write_structures(
            folder / "rs.dcm",
            {"GTV": outline(mask()), "Body": [box(0, 9, 0, 7, 1)]},
            series_uid=uid("series", "CT", patient),
            **who,
        )
    return folder


def box(x0, x1, y0, y1, z):
    """Corners in mm, on the grid of CT: spacing 2, 1.5, 3 mm (x, y, z), first voxel at P."""
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return np.array([(-20 + 2 * x, 30 + 1.5 * y, 40 + 3 * z) for x, y in corners])


def outline(drawn):
    """One square contour for each voxel: their exclusive or is the mask."""
    return [box(x - 0.5, x + 0.5, y - 0.5, y + 0.5, z) for z, y, x in np.argwhere(drawn)]


def write_studies(folder):
    """Two patients' studies."""
    write_study(folder / "one")
    write_study(folder / "two", "P2", seed=1)
    return folder


def convert(source, workspace, *, channels=RULES, labels=("tumour=GTV",), **change):
    arguments = {"rules": rules_in_words(channels, labels), "reference": "CT"} | change
    return convert_dicom(source, "Dataset100_Tumour", workspace=workspace, **arguments)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(folder, pattern, **changes):
    """Change attributes of files; None removes one."""
    for path in folder.glob(pattern):
        dataset = pydicom.dcmread(path)
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path)
