import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from veloxseg.datasets.cases import find_cases
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.folder import convert_folder
from veloxseg.datasets.converters.manifest import read_records, record_path
from veloxseg.datasets.converters.writing import (
    Alignment,
    SourceCase,
    begin_dataset,
    describe_dataset,
    finish_dataset,
    is_written,
    write_cases,
)
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Grid, Volume

CT_GRID = Grid(size_zyx=(6, 10, 12), spacing_zyx=(3.0, 1.0, 1.0), origin_xyz=(-5.0, 7.0, 40.0))
PET_GRID = Grid(size_zyx=(6, 4, 4), spacing_zyx=(3.0, 2.0, 2.0), origin_xyz=(-3.0, 8.0, 40.0))


def noise(grid, seed=0):
    data = np.random.default_rng(seed).normal(size=grid.size_zyx)
    return Volume.on_grid(data.astype(np.float32), grid)


def mask(grid):
    data = np.zeros(grid.size_zyx, np.uint8)
    data[2:5, 2:4, 1:3] = 1
    return Volume.on_grid(data, grid)


@dataclass
class Loader:
    """Cases of CT and PET that count how often they are read."""

    lacking: dict = field(default_factory=dict)
    read: list = field(default_factory=list)

    def __call__(self, name):
        self.read.append(name)
        lacks = self.lacking.get(name, ())
        return SourceCase(
            images=[
                None if "CT" in lacks else noise(CT_GRID),
                None if "PET" in lacks else noise(PET_GRID),
            ],
            label=mask(CT_GRID),
            patient=name[0],
            sources={"CT": f"{name}/ct.nii", "PET": [f"{name}/1", f"{name}/2"]},
            notes={"suv": {"factor": 0.5}},
        )


def write(folder, names, load, *, optional=(), reference="CT", spacing=None, **change):
    description = describe_dataset(["CT", "PET"], {"tumour": 1}, optional=optional)
    begin_dataset(folder, description, part="Tr", settings={"labels": description.labels})
    write_cases(
        folder,
        names,
        load,
        description=description,
        part="Tr",
        progress=change.pop("progress", lambda _: None),
        alignment=Alignment(reference=reference, spacing_zyx=spacing, **change.pop("align", {})),
        **change,
    )
    finish_dataset(folder, description, part="Tr")
    return description


def state(folder):
    """Every file's content and time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder):
    return {name: content for name, (content, _) in state(folder).items()}


def test_the_record_of_a_case_says_what_went_where_and_what_was_done(tmp_path):
    write(tmp_path, ["a1"], Loader())
    record = json.loads((tmp_path / "conversion_Tr/a1.json").read_text())
    assert record["patient"] == "a"
    assert record["sources"] == {"CT": "a1/ct.nii", "PET": ["a1/1", "a1/2"]}
    assert record["written"] == {
        "CT": "imagesTr/a1_0000.nii.gz",
        "PET": "imagesTr/a1_0001.nii.gz",
        "label": "labelsTr/a1.nii.gz",
    }
    assert record["grid"]["size_zyx"] == [6, 10, 12]
    assert list(record["resampled"]) == ["PET"]
    assert record["resampled"]["PET"]["spacing_zyx"] == [3.0, 2.0, 2.0]
    assert record["notes"] == {"suv": {"factor": 0.5}}
    assert read_records(tmp_path)["a1"].patient == "a"
    assert read_records(tmp_path, part="Ts") == {}


def test_a_second_run_reads_no_case_and_changes_no_file(tmp_path):
    load, steps = Loader(), []
    write(tmp_path, ["a", "b"], load)
    before = state(tmp_path)
    write(tmp_path, ["a", "b"], load, progress=steps.append)
    assert state(tmp_path) == before
    assert load.read == ["a", "b"]
    assert steps == [2]


def test_a_case_without_its_record_or_a_file_is_written_again(tmp_path):
    load = Loader()
    write(tmp_path, ["a", "b", "c"], load)
    before = contents(tmp_path)
    record_path(tmp_path, "a", part="Tr").unlink()
    (tmp_path / "imagesTr/b_0001.nii.gz").unlink()
    steps = []
    write(tmp_path, ["a", "b", "c"], load, progress=steps.append)
    assert contents(tmp_path) == before
    assert load.read == ["a", "b", "c", "a", "b"]
    assert steps == [1, 2, 3]


def test_a_damaged_record_is_an_error_that_names_it(tmp_path):
    write(tmp_path, ["a"], Loader())
    record_path(tmp_path, "a", part="Tr").write_text('{"case": "a", "colour": "red"}')
    with pytest.raises(DatasetError, match=r"conversion_Tr/a\.json: no record"):
        write(tmp_path, ["a"], Loader())


def test_a_case_may_lack_an_optional_channel_but_no_other(tmp_path):
    load = Loader({"b": ["PET"]})
    description = write(tmp_path, ["a", "b"], load, optional=["PET"])
    assert json.loads((tmp_path / "dataset.json").read_text())["optional"] == ["PET"]
    assert not (tmp_path / "imagesTr/b_0001.nii.gz").exists()
    assert list(read_records(tmp_path)["b"].written) == ["CT", "label"]
    assert [case.absent for case in find_cases(tmp_path, description)] == [(), (1,)]
    assert is_written(tmp_path, "b", description, part="Tr")
    before = state(tmp_path)
    write(tmp_path, ["a", "b"], load, optional=["PET"])
    assert state(tmp_path) == before
    with pytest.raises(DatasetError, match=r"Case b: has no PET.*optional ones \(none\)"):
        write(tmp_path / "other", ["b"], load)


def test_the_channels_that_are_there_share_the_grid_of_the_first_of_them(tmp_path):
    load = Loader({"a": ["CT"]})
    with pytest.raises(DatasetError, match="Case a: has PET, but not CT, whose grid"):
        write(tmp_path, ["a"], load, optional=["CT", "PET"])
    with pytest.raises(GeometryError, match=r"Case a: PET has size .* label has"):
        write(tmp_path, ["a"], load, optional=["CT", "PET"], reference=None)
    with pytest.raises(DatasetError, match="Case a: has no channel"):
        write(tmp_path, ["a"], Loader({"a": ["CT", "PET"]}), optional=["CT", "PET"])


def test_a_file_that_the_source_no_longer_has_does_not_stay(tmp_path):
    write(tmp_path, ["a"], Loader(), optional=["PET"])
    record_path(tmp_path, "a", part="Tr").unlink()
    write(tmp_path, ["a"], Loader({"a": ["PET"]}), optional=["PET"])
    assert not (tmp_path / "imagesTr/a_0001.nii.gz").exists()


def test_what_prepares_a_case_comes_before_its_images_are_aligned(tmp_path):
    def shift(name, case):
        ct, pet = case.images
        moved = Volume.on_grid(np.full(CT_GRID.size_zyx, 7.0, np.float32), CT_GRID)
        assert (name, pet.grid) == ("a", PET_GRID)
        return replace(case, images=[ct, moved], notes={**case.notes, "moved": ["PET"]})

    write(tmp_path, ["a"], Loader(), prepare=shift)
    assert (read_volume(tmp_path / "imagesTr/a_0001.nii.gz").data == 7).all()
    record = read_records(tmp_path)["a"]
    assert record.notes == {"suv": {"factor": 0.5}, "moved": ["PET"]}
    assert record.resampled == {}


def test_a_spacing_and_the_common_view_are_applied_to_images_and_label(tmp_path):
    write(tmp_path, ["a"], Loader(), spacing=(1.0, 1.0, 1.0), align={"common_view": True})
    ct = read_volume(tmp_path / "imagesTr/a_0000.nii.gz")
    label = read_volume(tmp_path / "labelsTr/a.nii.gz")
    # PET reaches from -4 to 4 mm in x, 7 to 15 in y: CT voxels 1 to 9 and 0 to 8.
    assert ct.grid == label.grid
    assert ct.grid.size_zyx == (18, 9, 9)
    assert ct.grid.spacing_zyx == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(ct.grid.origin_xyz, (-4.0, 7.0, 39.0), atol=1e-5)
    # The middle of each three new slices is an old one.
    np.testing.assert_allclose(ct.data[1::3], noise(CT_GRID).data[:, :9, 1:10], atol=1e-5)
    np.testing.assert_array_equal(label.data, np.repeat(mask(CT_GRID).data[:, :9, 1:10], 3, axis=0))
    record = read_records(tmp_path)["a"]
    assert record.label_volume_ml == {"1": (0.036, 0.036)}
    assert set(record.resampled) == {"CT", "PET", "label"}


def test_a_label_that_the_common_view_cuts_is_told_by_its_volumes(tmp_path):
    def move_label(name, case):
        data = np.zeros(CT_GRID.size_zyx, np.uint8)
        data[2, 3, 8:12] = 1  # PET ends after voxel 9
        return replace(case, label=Volume.on_grid(data, CT_GRID))

    write(tmp_path, ["a"], Loader(), prepare=move_label, align={"common_view": True})
    assert read_records(tmp_path)["a"].label_volume_ml == {"1": (0.012, 0.006)}


def test_images_of_different_places_have_no_common_view(tmp_path):
    def move_pet(name, case):
        far = Volume.on_grid(case.images[1].data, replace(PET_GRID, origin_xyz=(900.0, 0.0, 0.0)))
        return replace(case, images=[case.images[0], far])

    with pytest.raises(GeometryError, match="Case a: the fields of view have no voxel in common"):
        write(tmp_path, ["a"], Loader(), prepare=move_pet, align={"common_view": True})


def test_an_error_names_the_case_and_leaves_those_before(tmp_path):
    def load(name):
        if name == "b":
            raise ImageReadError("x.nii: no image.")
        return Loader()(name)

    with pytest.raises(ImageReadError, match=r"^Case b: x\.nii: no image\.$"):
        write(tmp_path, ["a", "b"], load)
    assert list(read_records(tmp_path)) == ["a"]
    assert not (tmp_path / "dataset.json").exists()


def test_files_that_no_conversion_has_written_are_never_replaced(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    by_hand = tmp_path / "imagesTr/a_0000.nii.gz"
    by_hand.write_text("precious")
    with pytest.raises(DatasetError, match=r"imagesTr or labelsTr hold files that no conversion"):
        write(tmp_path, ["a"], Loader())
    assert contents(tmp_path) == {"imagesTr/a_0000.nii.gz": b"precious"}
    by_hand.rename(tmp_path / "elsewhere.nii.gz")
    write(tmp_path, ["a"], Loader())


@pytest.mark.parametrize("dropped", ["register", "optional"])
def test_a_setting_that_is_left_out_when_resuming_is_another_setting(tmp_path, dropped):
    description = describe_dataset(["CT", "PET"], {"tumour": 1})
    settings = {"labels": description.labels}
    begin = partial(begin_dataset, tmp_path, description, part="Tr")
    begin(settings=settings | {dropped: ["PET"]})
    begin(settings=settings)  # no case is written yet
    begin(settings=settings | {dropped: ["PET"]})
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/a_0000.nii.gz").touch()
    with pytest.raises(DatasetError, match=rf"{dropped} was \['PET'\], is None"):
        begin(settings=settings)
    begin(settings=settings | {dropped: ["PET"]})


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    for place in (".", "imagesTr", "labelsTr", "conversion_Tr"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / ".0a1b2c3d.partial.a_0000.nii.gz").touch()
    (tmp_path / "imagesTr/.hidden").touch()
    write(tmp_path, ["a"], Loader())
    assert [name for name in contents(tmp_path) if "partial" in name] == []
    assert (tmp_path / "imagesTr/.hidden").exists()


@pytest.mark.parametrize(
    ("channels", "change"),
    [
        (["CT", "CT"], {}),
        (["CT", "label"], {}),
        ([], {}),
        (["CT"], {"optional": ["PET"]}),
        (["CT"], {"label_names": {"all": [1, 2], "core": [1]}, "regions_class_order": [2]}),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(channels, change):
    with pytest.raises(DatasetError):
        describe_dataset(channels, **({"label_names": {"a": 1}} | change))


def test_regions_are_described_in_the_order_given():
    regions = {"whole": [1, 2, 3], "core": [1, 3]}
    description = describe_dataset(["MR"], regions, regions_class_order=[2, 1])
    assert description.labels == {"background": 0, "whole": (1, 2, 3), "core": (1, 3)}
    assert list(description.labels) == ["background", "whole", "core"]
    assert description.regions_class_order == (2, 1)
    assert description.label_values == (0, 1, 2, 3)


# A whole conversion, by the command, in several processes.

CHANNELS = {"CT": "{patient}_{case}/CT.nii.gz", "PET": "{patient}_{case}/PET.nii.gz"}
LABEL = "{patient}_{case}/label.nii.gz"


def make_source(folder, num_cases, side=12):
    grid = Grid(size_zyx=(side,) * 3, spacing_zyx=(3.0, 1.0, 1.0), origin_xyz=(0.0, 0.0, 0.0))
    for number in range(num_cases):
        case = folder / f"p{number // 2}_{number % 2}"
        write_volume(case / "CT.nii.gz", noise(grid, number))
        write_volume(case / "PET.nii.gz", noise(replace(grid, origin_xyz=(1.0, 0.0, 0.0)), number))
        write_volume(case / "label.nii.gz", mask(grid))
    return folder


def convert(source, root, **change):
    return convert_folder(
        source,
        "Dataset100_Test",
        workspace=Workspace.resolve(root),
        channels=CHANNELS,
        label=LABEL,
        reference="CT",
        label_names={"tumour": 1},
        **change,
    )


def test_two_processes_write_what_one_writes(tmp_path):
    source = make_source(tmp_path / "source", 5)
    steps = []
    one = convert(source, tmp_path / "one")
    two = convert(
        source, tmp_path / "two", num_workers=2, progress=lambda *step: steps.append(step)
    )
    assert contents(one) == contents(two)
    assert steps == [(number, 5) for number in range(1, 6)]
    assert check_dataset(two).errors == []
    assert [record.patient for record in read_records(two).values()] == ["p0"] * 2 + ["p1"] * 2 + [
        "p2"
    ]


def test_an_error_in_another_process_names_the_case_and_the_rest_is_resumed(tmp_path):
    source = make_source(tmp_path / "source", 4)
    broken = source / "p1_1/PET.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-50])
    with pytest.raises(ImageReadError, match=r"^Case p1_1: .*PET\.nii\.gz"):
        convert(source, tmp_path / "work", num_workers=2)
    broken.write_bytes(whole)
    folder = convert(source, tmp_path / "work", num_workers=2)
    assert contents(folder) == contents(convert(source, tmp_path / "other"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_conversion_that_was_killed_leaves_whole_files_and_goes_on(tmp_path):
    source = make_source(tmp_path / "source", 12, side=64)
    root = tmp_path / "work"
    folder = root / "nnUNet_raw/Dataset100_Test"
    words = [f"--channel={name}={pattern}" for name, pattern in CHANNELS.items()]
    words += [f"--label={LABEL}", "--reference=CT", "--labels=tumour=1", "--num-workers=2"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from veloxseg.cli import main; main()", "convert", "folder"),
            *(str(source), "Dataset100_Test", *words, f"--root={root}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    while not list(folder.glob("conversion_Tr/*.json")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    workers = children_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    wait_for_end(workers)

    written = sorted(folder.glob("*/[!.]*.nii.gz"))
    for path in written:
        read_volume(path)
    records = read_records(folder)
    assert 0 < len(records) < 12
    before = {path: path.stat().st_mtime_ns for path in written}
    convert(source, root, num_workers=2)
    assert contents(folder) == contents(convert(source, tmp_path / "other"))
    for record in records.values():
        for file in record.written.values():
            assert (folder / file).stat().st_mtime_ns == before[folder / file]
    finished = state(folder)
    convert(source, root, num_workers=2)
    assert state(folder) == finished


def children_of(pid):
    """Processes whose parent, in their status' fourth field, is a process."""
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            children.append(int(entry.parent.name))
    return children


def wait_for_end(pids):
    end = time.monotonic() + 20
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < end, f"{alive} outlive the process that started them"
        time.sleep(0.05)


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status != "Z"
