"""Work on many items, in this process or in several."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from veloxseg.errors import DatasetError
from veloxseg.workers import results_of


def square(number):
    return number * number


@dataclass(frozen=True)
class Add:
    summand: int

    def __call__(self, number):
        return number + self.summand


def made(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_case_is_worked_on_once_and_counted(tmp_path, num_workers):
    steps = []
    names = [str(tmp_path / name) for name in "abc"]
    results_of(os.mkdir, names, num_workers=num_workers, progress=lambda *step: steps.append(step))
    assert made(tmp_path) == ["a", "b", "c"]
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_the_items(num_workers):
    steps = []
    results = results_of(
        square,
        range(7),
        num_workers=num_workers,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert results == [number * number for number in range(7)]
    assert steps == [(done, 7) for done in range(1, 8)]


def test_a_callable_object_reaches_the_processes():
    assert results_of(Add(10), [1, 2], num_workers=2) == [11, 12]


def test_several_workers_are_other_processes(tmp_path):
    name = f"ps -o ppid= -p $PPID > {tmp_path}/"
    results_of(os.system, [name + "a", name + "b"], num_workers=2)
    parents = {int((tmp_path / file).read_text()) for file in made(tmp_path)}
    assert parents == {os.getpid()}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_raised_as_it_was_and_what_is_done_stays(tmp_path, num_workers):
    (tmp_path / "b").touch()
    names = [str(tmp_path / name) for name in "ab"]
    with pytest.raises(FileExistsError):
        results_of(os.mkdir, names, num_workers=num_workers)
    assert Path(names[0]).is_dir()


def test_of_several_errors_the_first_names_is_raised(tmp_path):
    names = [str(tmp_path / "absent" / name) for name in "ab"]
    with pytest.raises(FileNotFoundError, match=r"absent/a"):
        results_of(os.mkdir, names, num_workers=2)


def test_no_case_is_begun_after_an_error(tmp_path):
    names = [str(tmp_path / "absent" / "x")] + [str(tmp_path / f"{n:03d}") for n in range(300)]
    with pytest.raises(FileNotFoundError):
        results_of(os.mkdir, names, num_workers=2)
    assert len(made(tmp_path)) < 300


def test_a_process_that_the_system_kills_is_said_so(tmp_path):
    with pytest.raises(DatasetError, match=r"2 processes was killed.*--num-workers 1"):
        results_of(os.system, ["kill -9 $PPID", "sleep 0.1"], num_workers=2)


def test_ctrl_c_ends_the_workers_at_once(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results_of(
            os.system,
            ["true", f"sleep 30; touch {tmp_path}/late"],
            num_workers=2,
            progress=interrupt,
        )
    assert made(tmp_path) == []


def test_no_case_is_no_work():
    results_of(os.mkdir, [], num_workers=4, progress=lambda *_: pytest.fail("nothing to count"))
