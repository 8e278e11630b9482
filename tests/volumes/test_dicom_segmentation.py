import numpy as np
import pydicom
import pytest

from dicom_files import AXIAL, SAGITTAL, oblique, positions, uid, write_segmentation, write_series
from veloxseg.errors import ImageReadError
from veloxseg.volumes.dicom.reading import read_series
from veloxseg.volumes.dicom.segmentation import read_segmentation, segment_mask
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume

ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "oblique": oblique(seed=6)}


@pytest.fixture
def masks():
    """Two segments (Z, Y, X, 2) without symmetry; the first and last slices are empty."""
    rng = np.random.default_rng(3)
    drawn = rng.random((8, 12, 10, 2)) > 0.6
    drawn[[0, 4, 7]] = False
    drawn[..., 1] &= ~drawn[..., 0]
    return drawn.astype(np.uint8)


def written(tmp_path, masks, *, places=None, orientation=AXIAL, **how):
    stored = np.arange(8 * 12 * 10, dtype=np.int16).reshape(8, 12, 10)
    paths = write_series(tmp_path / "ct", stored, orientation=orientation, places=places)
    image = read_series([(path, None) for path in paths], where="CT").volume
    segmentation = write_segmentation(tmp_path / "seg", paths, masks, ["Tumour", "Node"], **how)
    return image, read_segmentation(segmentation)


def on_image(segmentation, numbers, image):
    """The segments on the grid of their image, as a converter puts them there."""
    own = segment_mask(segmentation, numbers).astype(np.uint8)
    moved = resample(
        Volume.on_grid(own, segmentation.grid), image.grid, interpolation="nearest", fill=0
    )
    return moved.data


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
@pytest.mark.parametrize("omit_empty", [True, False])
def test_what_highdicom_writes_is_read_voxel_by_voxel(tmp_path, masks, orientation, omit_empty):
    image, segmentation = written(tmp_path, masks, orientation=orientation, omit_empty=omit_empty)
    assert [(one.number, one.name) for one in segmentation.segments] == [(1, "Tumour"), (2, "Node")]
    assert segmentation.segments[0].meaning == "Neoplasm"
    assert segmentation.series_uids == (uid("series", "CT"),)
    assert segmentation.frame_of_reference_uid == uid("frame")
    for index in (0, 1):
        np.testing.assert_array_equal(on_image(segmentation, [index + 1], image), masks[..., index])
    np.testing.assert_array_equal(on_image(segmentation, [1, 2], image), masks.max(axis=-1))


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_kinds_of_segmentations_give_the_same_voxels(tmp_path, masks, kind):
    drawn = masks.astype(float) * 0.7 if kind == "FRACTIONAL" else masks
    image, segmentation = written(tmp_path, drawn, kind=kind)
    np.testing.assert_array_equal(on_image(segmentation, [2], image), masks[..., 1])


def test_less_than_half_of_a_voxel_is_outside(tmp_path, masks):
    image, segmentation = written(tmp_path, masks.astype(float) * 0.4, kind="FRACTIONAL")
    assert not on_image(segmentation, [1, 2], image).any()


def test_frames_of_irregular_slices_go_to_their_own(tmp_path, masks):
    along = np.cumsum([0, 3.0, 3.0, 3.1, 2.9, 3.0, 3.1, 3.0])
    image, segmentation = written(tmp_path, masks, places=positions(8, along_normal=along))
    np.testing.assert_array_equal(on_image(segmentation, [1], image), masks[..., 0])


def test_what_is_no_segmentation_is_refused(tmp_path, masks):
    _, segmentation = written(tmp_path, masks)
    dataset = pydicom.dcmread(segmentation.path)
    del dataset.SegmentSequence
    dataset.save_as(segmentation.path)
    with pytest.raises(ImageReadError, match=r"no readable segmentation \(SegmentSequence missing"):
        read_segmentation(segmentation.path)
