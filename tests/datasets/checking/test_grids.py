import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from veloxseg.datasets.checking.grids import check_grids, corners_apart_voxels
from veloxseg.volumes.volume import Grid

REFERENCE = Grid(size_zyx=(10, 100, 80), spacing_zyx=(3.0, 1.0, 0.5), origin_xyz=(5.0, -7.0, 100.0))


def grid(**change):
    fields = {
        "size_zyx": REFERENCE.size_zyx,
        "spacing_zyx": REFERENCE.spacing_zyx,
        "origin_xyz": REFERENCE.origin_xyz,
    }
    return Grid(**(fields | change))


def kinds(*grids):
    names = ["CT", "PET", "label"]
    return [
        (problem.kind, problem.part)
        for problem in check_grids("case", list(zip(names, grids, strict=False)))
    ]


def turned(degrees):
    matrix = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return tuple(matrix.ravel())


def test_one_grid_is_sound_and_so_is_the_rounding_of_a_header():
    assert kinds(REFERENCE, REFERENCE, grid(origin_xyz=(5.000001, -7.0, 100.0001))) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"origin_xyz": (5.1, -7.0, 100.0)}, "grids_nearly_equal"),  # 0.2 voxels of 0.5 mm
        ({"origin_xyz": (5.2, -7.0, 100.0)}, "grids_differ"),  # 0.4
        ({"spacing_zyx": (3.0, 1.0005, 0.5)}, "grids_nearly_equal"),
        ({"spacing_zyx": (3.0, 1.01, 0.5)}, "grids_differ"),
        ({"direction": turned(0.01)}, "grids_nearly_equal"),
        ({"direction": turned(1)}, "grids_differ"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "grids_differ"),
        ({"size_zyx": (10, 100, 81)}, "grids_differ"),
    ],
)
def test_a_difference_is_told_from_rounding(change, kind):
    assert kinds(REFERENCE, grid(**change)) == [(kind, "PET")]


def test_every_image_is_compared_with_the_first():
    far = grid(origin_xyz=(50.0, 0.0, 0.0))
    assert kinds(REFERENCE, far, far) == [("grids_differ", "PET"), ("grids_differ", "label")]


def test_the_corner_offset_is_in_voxels_of_the_finest_axis():
    moved = grid(origin_xyz=(5.1, -7.0, 100.0))
    assert corners_apart_voxels(REFERENCE, moved) == pytest.approx(0.2)


def test_an_axis_of_one_voxel_counts_with_its_spacing():
    thin = grid(size_zyx=(1, 100, 80))
    thick = grid(size_zyx=(1, 100, 80), spacing_zyx=(6.0, 1.0, 0.5))
    assert kinds(thin, thick) == [("grids_differ", "PET")]


def test_the_message_of_a_near_miss_names_the_remedy():
    (problem,) = check_grids("c", [("CT", REFERENCE), ("label", grid(origin_xyz=(5.1, -7, 100)))])
    assert "0.2 voxels" in problem.message
    assert "veloxseg check --fix" in problem.message
    assert problem.severity == "error"
    assert np.isfinite(problem.numbers["corner_voxels"])
