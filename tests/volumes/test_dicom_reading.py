import numpy as np
import pydicom
import pytest
import SimpleITK

from dicom_files import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    oblique,
    positions,
    write_enhanced,
    write_series,
)
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.dicom.index import index_dicom
from veloxseg.volumes.dicom.reading import check_slices, read_series
from veloxseg.volumes.itk import from_itk
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid

ORIENTATIONS = {
    "axial": AXIAL,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "oblique": oblique(seed=1),
    "oblique, turned": oblique(seed=2),
}
INJECTION = {
    "RadionuclideTotalDose": 350e6,
    "RadionuclideHalfLife": 3600.0,
    "RadiopharmaceuticalStartTime": "100000",
}


def numbers(depth=6, height=5, width=4, *, seed=0):
    """Integers without any symmetry, as a scanner stores them."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 3000, size=(depth, height, width)).astype(np.int16)


def read(paths, **how):
    return read_series([(path, None) for path in paths], where="CT", **how)


def by_itk(folder):
    """What SimpleITK's own reader of series makes of a folder."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return from_itk(reader.Execute())


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_a_series_of_any_orientation_lies_where_itk_puts_it(tmp_path, orientation):
    stored = numbers()
    paths = write_series(tmp_path, stored, orientation=orientation, intercept=-24.0)
    image = read(paths)
    expected = by_itk(tmp_path)
    assert same_grid(image.volume, expected)
    np.testing.assert_array_equal(image.volume.data, expected.data)
    np.testing.assert_array_equal(image.volume.data, stored - 24.0)
    assert image.volume.data.dtype == np.float32
    assert image.notes == ()


@pytest.mark.parametrize("seed", range(4))
def test_each_voxel_lies_where_its_own_header_says(tmp_path, seed):
    orientation = oblique(seed=10 + seed)
    places = positions(6, orientation=orientation, step=2.5)
    image = read(write_series(tmp_path, numbers(), orientation=orientation, places=places))
    row, column = np.reshape(orientation, (2, 3))
    for z, y, x in ((0, 0, 0), (5, 4, 3), (2, 1, 3)):
        # PS3.3 C.7.6.2.1.1: position + column index x row direction + row index x column direction.
        expected = places[z] + x * 2.0 * row + y * 1.5 * column
        np.testing.assert_allclose(image.volume.grid.positions_xyz((z, y, x)), expected, atol=1e-6)


def test_every_slice_has_its_own_slope(tmp_path):
    stored = numbers()
    slopes = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    image = read(write_series(tmp_path, stored, slopes=slopes, intercept=-10.0))
    np.testing.assert_allclose(
        image.volume.data, stored * np.array(slopes)[:, None, None] - 10, rtol=1e-6
    )


def test_mr_images_are_rescaled_too(tmp_path):
    stored = numbers()
    image = read(write_series(tmp_path, stored, kind="MR", slopes=[2.0] * 6))
    np.testing.assert_array_equal(image.volume.data, 2.0 * stored)


def test_unsigned_and_big_endian_files_are_read(tmp_path):
    stored = numbers().view(np.uint16)
    paths = write_series(tmp_path / "little", stored)
    np.testing.assert_array_equal(read(paths).volume.data, stored)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(read(paths).volume.data, stored)


@pytest.mark.parametrize("codec", ["JPEG", "JPEG2000", "JPEGLS", "RLE"])
def test_lossless_compression_changes_no_voxel_and_no_slope(tmp_path, codec):
    stored = np.abs(numbers(height=16, width=24)).astype(np.int16)
    slopes = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    paths = write_series(tmp_path, stored, kind="PT", slopes=slopes)
    for path, plane in zip(paths, stored, strict=True):
        compress(path, plane, codec, tmp_path / "compressed.dcm")
    syntax = pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID
    assert syntax.is_compressed
    np.testing.assert_allclose(
        read(paths).volume.data, stored * np.array(slopes)[:, None, None], rtol=1e-6
    )


def compress(path, plane, codec, scratch):
    """Put ITK's compressed pixels in the place of a file's own."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(scratch))
    writer.UseCompressionOn()
    writer.SetCompressor(codec)
    writer.Execute(SimpleITK.GetImageFromArray(plane))
    small = pydicom.dcmread(scratch)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = small.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(dataset, keyword, getattr(small, keyword))
    dataset.file_meta.TransferSyntaxUID = small.file_meta.TransferSyntaxUID
    dataset.save_as(path, enforce_file_format=True)


def test_a_syntax_that_nothing_decodes_is_named(tmp_path):
    paths = write_series(tmp_path, numbers())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(ImageReadError, match=r"IM\d+: .*MPEG2.*uncompressed"):
        read(paths)


def test_an_enhanced_image_is_read_frame_by_frame(tmp_path):
    stored = numbers()
    order = [3, 0, 5, 1, 4, 2]
    orientation = oblique(seed=3)
    places = positions(6, orientation=orientation)
    slopes = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    path = write_enhanced(
        tmp_path / "enhanced",
        stored[order],
        places=places[order],
        orientation=orientation,
        slopes=slopes[order],
    )
    image = read_series([(path, frame) for frame in range(6)], where="MR")
    np.testing.assert_array_equal(image.volume.data, stored * slopes[:, None, None])
    np.testing.assert_allclose(image.volume.grid.positions_xyz((5, 0, 0)), places[5], atol=1e-6)
    part = read_series([(path, order.index(z)) for z in (1, 2, 3)], where="MR")
    np.testing.assert_array_equal(part.volume.data, (stored * slopes[:, None, None])[1:4])


def test_slices_a_little_irregular_are_interpolated_from_their_true_positions(tmp_path):
    # A volume that grows linearly along the normal must stay linear on the regular grid.
    along = np.array([0.0, 3.0, 5.5, 9.3, 12.0, 15.0])
    stored = np.broadcast_to((along * 100).astype(np.int16)[:, None, None], (6, 5, 4))
    paths = write_series(tmp_path, stored, places=positions(6, along_normal=along))
    image = read(paths)
    assert image.volume.grid.spacing_zyx == pytest.approx((3.0, 1.5, 2.0))
    np.testing.assert_allclose(image.volume.data[:, 2, 2], 300.0 * np.arange(6), rtol=1e-6)
    assert "gaps of 2.5 to 3.8 mm resampled to 3 mm" in image.notes[0]


def test_slices_at_their_places_keep_their_values_beside_irregular_ones(tmp_path):
    stored = numbers()
    along = [0.0, 3.0, 6.0, 9.5, 12.0, 15.0]
    image = read(write_series(tmp_path, stored, places=positions(6, along_normal=along)))
    for z in (0, 1, 2, 4, 5):
        np.testing.assert_array_equal(image.volume.data[z], stored[z])
    weight = 0.5 / 3.5
    expected = weight * stored[2].astype(float) + (1 - weight) * stored[3]
    np.testing.assert_allclose(image.volume.data[3], expected, rtol=1e-5)


def test_micrometres_are_no_irregularity(tmp_path):
    stored = numbers()
    along = np.arange(6) * 3.0 + np.array([0, 4e-3, -4e-3, 4e-3, -4e-3, 0])
    image = read(write_series(tmp_path, stored, places=positions(6, along_normal=along)))
    np.testing.assert_array_equal(image.volume.data, stored)
    assert image.notes == ()


def test_a_missing_slice_is_an_error_that_says_where(tmp_path):
    stored = numbers()
    paths = write_series(tmp_path, stored)
    with pytest.raises(
        GeometryError,
        match=r"1 gaps .*usual 3 mm \(6 mm after position 43.*about 1 slices are "
        r"missing.*--interpolate-gaps",
    ):
        read(paths[:2] + paths[3:])


def test_missing_slices_may_be_interpolated(tmp_path):
    stored = numbers()
    paths = write_series(tmp_path, stored)
    image = read(paths[:2] + paths[4:], interpolate_gaps=True)
    kept = [0, 1, 4, 5]
    np.testing.assert_array_equal(image.volume.data[kept], stored[kept])
    expected = (2 * stored[1].astype(float) + stored[4]) / 3
    np.testing.assert_allclose(image.volume.data[2], expected, rtol=1e-5)
    assert "about 2 missing slices interpolated" in image.notes[0]


def test_a_position_kilometres_away_does_not_fill_the_memory(tmp_path):
    places = positions(6, along_normal=[0, 3, 6, 9, 12, 1e6])
    paths = write_series(tmp_path, numbers(), places=places)
    with pytest.raises(GeometryError, match=r"would make 333334 slices\. Expected 10000 at most"):
        read(paths, interpolate_gaps=True)


def test_a_doubled_slice_is_left_out_and_told(tmp_path):
    stored = numbers()
    paths = write_series(tmp_path / "once", stored)
    again = write_series(tmp_path / "again", stored)
    image = read([*paths, again[2], again[4]])
    np.testing.assert_array_equal(image.volume.data, stored)
    assert image.notes == ("2 doubled slices, identical, left out",)


def test_different_images_at_one_position_are_an_error_that_says_how_they_differ(tmp_path):
    first = write_series(tmp_path / "a", numbers(), EchoTime=10.0)
    second = write_series(tmp_path / "b", numbers(seed=1), EchoTime=80.0)
    with pytest.raises(
        GeometryError, match=r"one position, but their voxels differ \(echo_time 10.0 and 80.0\)"
    ):
        read([*first, *second])


def test_a_tilted_gantry_is_put_on_a_perpendicular_grid(tmp_path):
    # A field that is linear in space is the same function on any grid.
    tilt = np.tan(np.radians(20.0))
    places = positions(8, step=3.0)
    places[:, 1] += tilt * 3.0 * np.arange(8)
    y = places[:, 1, None] + 1.5 * np.arange(20)
    field = 10 * y[:, :, None] + 5 * places[:, 2, None, None] + np.zeros((1, 1, 4))
    slopes = [0.01] * 8
    stored = np.round(field * 100).astype(np.int32)
    offset = int(stored.min()) - 1
    paths = write_series(
        tmp_path,
        (stored - offset).astype(np.uint16),
        places=places,
        slopes=slopes,
        intercept=offset * 0.01,
    )
    image = read(paths)
    grid = image.volume.grid
    np.testing.assert_allclose(grid.matrix(), np.eye(3), atol=1e-12)
    assert grid.size_zyx == (8, 20 + int(np.ceil(tilt * 21.0 / 1.5)), 4)
    assert "gantry tilt" in image.notes[0]
    index = np.stack(np.indices(grid.size_zyx), axis=-1)
    position = grid.positions_xyz(index)
    expected = 10 * position[..., 1] + 5 * position[..., 2]
    covered = image.volume.data > image.volume.data.min() + 1e-3
    np.testing.assert_allclose(image.volume.data[covered], expected[covered], atol=0.02)
    assert covered.sum() >= 8 * 19 * 4 - 1


def test_a_wrong_orientation_tag_is_named(tmp_path):
    broken = (1.0, 0.0, 0.0, 0.5, 0.5, 0.0)
    paths = write_series(tmp_path, numbers(), orientation=broken, places=positions(6))
    with pytest.raises(
        GeometryError, match=r"is 1, 0, 0, 0.5, 0.5, 0: .*lengths 1 and 0.7071.*right angle"
    ):
        read(paths)


def test_an_orientation_that_contradicts_the_positions_is_named(tmp_path):
    paths = write_series(tmp_path, numbers(), orientation=SAGITTAL, places=positions(6))
    with pytest.raises(GeometryError, match=r"contradicts the positions, which advance 15 mm with"):
        read(paths)


def test_an_orientation_that_changes_within_the_series_is_named(tmp_path):
    turned = {3: {"ImageOrientationPatient": [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]}}
    paths = write_series(tmp_path, numbers(), per_slice=turned)
    with pytest.raises(
        GeometryError, match=r"differs between slices: .* 1, 0, 0, 0, 1, 0, .* 0, 1"
    ):
        read(paths)


def test_headers_round_cosines_without_harm(tmp_path):
    rounded = np.round(oblique(seed=4), 4)
    exact = read(write_series(tmp_path / "a", numbers(), orientation=oblique(seed=4))).volume.grid
    grid = read(
        write_series(
            tmp_path / "b",
            numbers(),
            orientation=rounded,
            places=positions(6, orientation=oblique(seed=4)),
        )
    ).volume.grid
    np.testing.assert_allclose(grid.matrix().T @ grid.matrix(), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(grid.direction, exact.direction, atol=2e-4)


def test_one_slice_is_no_volume(tmp_path):
    with pytest.raises(GeometryError, match="1 slices at one position"):
        read(write_series(tmp_path, numbers(depth=1)))


def test_a_file_cut_short_is_named(tmp_path):
    paths = write_series(tmp_path, numbers())
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    with pytest.raises(ImageReadError, match=paths[2].name):
        read(paths)


def test_colour_and_lookup_tables_are_refused(tmp_path):
    paths = write_series(tmp_path, numbers())
    dataset = pydicom.dcmread(paths[0])
    dataset.SamplesPerPixel = 3
    dataset.save_as(paths[0])
    with pytest.raises(ImageReadError, match="colour"):
        read(paths)


def test_pet_becomes_suv_with_each_slices_own_slope(tmp_path):
    stored = np.abs(numbers())
    slopes = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    paths = write_series(tmp_path, stored, kind="PT", slopes=slopes, injection=INJECTION)
    image = read(paths, suv=True)
    # 70 kg; 350 MBq injected at 10:00, half of it left at the series' start at 11:00.
    expected = stored * np.array(slopes)[:, None, None] * 70_000 / 175e6
    np.testing.assert_allclose(image.volume.data, expected, rtol=1e-6)
    assert "half-life 3600 s, decayed 3600 s to Series Time" in image.notes[0]
    activity = read(paths)
    np.testing.assert_allclose(
        activity.volume.data, stored * np.array(slopes)[:, None, None], rtol=1e-6
    )


def test_a_series_derived_later_counts_from_its_earliest_slice(tmp_path):
    stored = np.abs(numbers())
    times = {z: {"AcquisitionTime": f"11{5 * (5 - z):02d}00"} for z in range(6)}
    paths = write_series(
        tmp_path, stored, kind="PT", injection=INJECTION, per_slice=times, SeriesTime="150000"
    )
    image = read(paths, suv=True)
    np.testing.assert_allclose(image.volume.data, stored * (70_000 / 175e6), rtol=1e-6)


def test_uncorrected_decay_is_corrected_slice_by_slice(tmp_path):
    stored = np.full((6, 5, 4), 1000, np.int16)
    times = {z: {"AcquisitionTime": f"1{1 + z}0000"} for z in range(6)}
    paths = write_series(
        tmp_path,
        stored,
        kind="PT",
        injection=INJECTION,
        per_slice=times,
        DecayCorrection="NONE",
        CorrectedImage=["ATTN"],
        ActualFrameDuration=2,
    )
    image = read(paths, suv=True)
    expected = 1000 * 70_000 / (350e6 * 0.5 ** np.arange(1, 7))
    np.testing.assert_allclose(image.volume.data[:, 0, 0], expected, rtol=1e-5)


def test_a_pet_header_without_weight_is_refused_before_any_pixel_is_read(tmp_path):
    paths = write_series(tmp_path, numbers(), kind="PT", injection=INJECTION, PatientWeight=None)
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.PixelData
        dataset.save_as(path)
    (series,) = index_dicom(tmp_path).studies[0].series
    with pytest.raises(DatasetError, match="Patient's Weight"):
        check_slices(series.slices, where="PET", suv=True)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"Units": "GML"}, "units"), ({"PatientWeight": 35.0}, "weight_kg")],
)
def test_slices_that_differ_in_what_a_series_has_but_once_give_no_suv(tmp_path, change, name):
    paths = write_series(tmp_path, numbers(), kind="PT", injection=INJECTION, per_slice={3: change})
    with pytest.raises(DatasetError, match=f"no SUV: {name} is .* in .* and .* in "):
        read(paths, suv=True)
    assert read(paths).volume.data.shape == (6, 5, 4)


def test_suv_of_a_sarcoma_is_the_known_one(shared):
    folder = shared / "data/dicom/pet/STS_001/FDG_PET/image"
    known = read_volume(shared / "data/sts/STS_001/PET_image.nii.gz")
    image = read_series([(path, None) for path in folder.iterdir()], where="PET", suv=True)
    grid = image.volume.grid
    first = (np.array(known.origin_xyz) - grid.origin_xyz) @ grid.matrix()
    z, y, x = np.rint(first[::-1] / grid.spacing_zyx).astype(int)
    depth, height, width = known.data.shape
    crop = image.volume.data[z : z + depth, y : y + height, x : x + width]
    # The first 44 slices lie 3.27 mm apart and are not interpolated; those above are, by 20 um.
    ours, theirs = crop.astype(np.float64), known.data.astype(np.float64)
    assert theirs.max() > 20
    assert np.abs(ours[:44] - theirs[:44]).max() < 1e-3
    assert np.corrcoef(ours[:44].ravel(), theirs[:44].ravel())[0, 1] > 1 - 1e-7
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 1 - 2e-6
    assert np.median(ours[theirs > 1] / theirs[theirs > 1]) == pytest.approx(1, abs=1e-4)
    assert ours.sum() / theirs.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["12-T1post-05670", "34909-T1prereg-84610", "13_HCropVolume"])
def test_real_mr_series_lie_where_itk_puts_them(shared, name):
    folder = shared / "data/dicom/brain_mr/Study1" / name
    image = read_series([(path, None) for path in folder.iterdir()], where=name)
    expected = by_itk(folder)
    assert same_grid(image.volume, expected)
    np.testing.assert_array_equal(image.volume.data, expected.data)
    assert image.volume.data.std() > 10
