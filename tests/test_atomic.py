import json

import pytest

from veloxseg.atomic import atomic_path, write_json


def test_a_finished_file_has_its_name_and_nothing_else_is_left(tmp_path):
    with atomic_path(tmp_path / "deep" / "mask.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["mask.nii.gz"]


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    target = tmp_path / "summary.json"
    write_json(target, {"dice": 0.5})

    def write_until_the_disk_is_full():
        with atomic_path(target) as temporary:
            temporary.write_text('{"dice": 0.')
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_until_the_disk_is_full()
    assert json.loads(target.read_text()) == {"dice": 0.5}
    assert list(tmp_path.iterdir()) == [target]


def test_content_that_is_no_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "summary.json", {"dice": object()})
    assert list(tmp_path.iterdir()) == []
