import subprocess
import sys

import numpy as np
import pytest

from veloxseg.volumes.registration import Registration
from veloxseg.volumes.registration_limits import Motion
from veloxseg.volumes.registration_picture import draw_registration
from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Volume

matplotlib_image = pytest.importorskip("matplotlib.image")


def found(shift_x):
    return Registration(
        transform=AffineMap.of(np.eye(3), (shift_x, 0.0, 0.0)),
        initial=AffineMap.identity(),
        start="headers",
        model="rigid",
        improved=True,
        metric_before=0.1,
        metric_after=0.2,
        num_voxels=1,
        overlap_before=1.0,
        overlap_after=1.0,
        motion=Motion(translation_mm=0.0, rotation_degrees=0.0, stretches=(1.0, 1.0, 1.0)),
        levels_mm=(1.0,),
    )


def volume():
    data = np.random.default_rng(0).normal(size=(12, 16, 20)).astype(np.float32)
    return Volume(data=data, spacing_zyx=(3.0, 1.5, 1.0))


def test_a_picture_shows_both_rows_and_the_same_one_is_the_same_file(tmp_path):
    files = [tmp_path / name / "a.png" for name in ("one", "two")]
    for file in files:
        draw_registration(
            file, moving=volume(), fixed=volume(), registration=found(5.0), title="case"
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    picture = matplotlib_image.imread(files[0])[..., :3]
    before, after = np.array_split(picture[75:], 2)
    assert picture.std() > 0.1
    assert np.abs(before[: len(after)] - after[: len(before)]).max() > 0.2
    assert [path.name for path in files[0].parent.iterdir()] == ["a.png"]


def test_drawing_touches_no_window_and_no_global_figure(tmp_path):
    code = (
        "import sys, veloxseg.volumes.registration_picture as picture; "
        "assert 'matplotlib' not in sys.modules; "
        "picture._canvas(picture.np.ones(3), 'a', ['b', 'c']); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
