import os
from pathlib import Path

import pytest

from veloxseg.datasets.converters.workers import work_on_cases
from veloxseg.errors import DatasetError


def made(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_case_is_worked_on_once_and_counted(tmp_path, num_workers):
    steps = []
    names = [str(tmp_path / name) for name in "abc"]
    work_on_cases(names, os.mkdir, num_workers=num_workers, progress=steps.append)
    assert made(tmp_path) == ["a", "b", "c"]
    assert steps == [1, 2, 3]


def test_several_workers_are_other_processes(tmp_path):
    name = f"ps -o ppid= -p $PPID > {tmp_path}/"
    work_on_cases([name + "a", name + "b"], os.system, num_workers=2, progress=lambda _: None)
    parents = {int((tmp_path / file).read_text()) for file in made(tmp_path)}
    assert parents == {os.getpid()}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_raised_as_it_was_and_what_is_done_stays(tmp_path, num_workers):
    (tmp_path / "b").touch()
    names = [str(tmp_path / name) for name in "ab"]
    with pytest.raises(FileExistsError):
        work_on_cases(names, os.mkdir, num_workers=num_workers, progress=lambda _: None)
    assert Path(names[0]).is_dir()


def test_of_several_errors_the_first_names_is_raised(tmp_path):
    names = [str(tmp_path / "absent" / name) for name in "ab"]
    with pytest.raises(FileNotFoundError, match=r"absent/a"):
        work_on_cases(names, os.mkdir, num_workers=2, progress=lambda _: None)


def test_no_case_is_begun_after_an_error(tmp_path):
    names = [str(tmp_path / "absent" / "x")] + [str(tmp_path / f"{n:03d}") for n in range(300)]
    with pytest.raises(FileNotFoundError):
        work_on_cases(names, os.mkdir, num_workers=2, progress=lambda _: None)
    assert len(made(tmp_path)) < 300


def test_a_process_that_the_system_kills_is_said_so(tmp_path):
    with pytest.raises(DatasetError, match=r"2 processes was killed.*--num-workers 1"):
        work_on_cases(
            ["kill -9 $PPID", "sleep 0.1"], os.system, num_workers=2, progress=lambda _: None
        )


def test_ctrl_c_ends_the_workers_at_once(tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_on_cases(
            ["true", f"sleep 30; touch {tmp_path}/late"],
            os.system,
            num_workers=2,
            progress=interrupt,
        )
    assert made(tmp_path) == []


def test_no_case_is_no_work():
    work_on_cases([], os.mkdir, num_workers=4, progress=lambda _: pytest.fail("nothing to count"))
