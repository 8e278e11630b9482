import os
from dataclasses import dataclass

import pytest

from veloxseg.datasets.checking.workers import results_of
from veloxseg.errors import DatasetError


def square(number):
    return number * number


def process_and_square(number):
    return os.getpid(), number * number


def refuse_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def die(number):
    os._exit(1)


@dataclass(frozen=True)
class Add:
    summand: int

    def __call__(self, number):
        return number + self.summand


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


def test_one_process_is_this_one_and_several_are_others():
    assert {pid for pid, _ in results_of(process_and_square, [1, 2], num_workers=1)} == {
        os.getpid()
    }
    assert os.getpid() not in {
        pid for pid, _ in results_of(process_and_square, [1, 2], num_workers=2)
    }


def test_a_callable_object_reaches_the_processes():
    assert results_of(Add(10), [1, 2], num_workers=2) == [11, 12]


def test_nothing_to_do_starts_nothing():
    assert results_of(die, [], num_workers=4) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_raised_as_it_is(num_workers):
    with pytest.raises(ValueError, match="three"):
        results_of(refuse_three, range(5), num_workers=num_workers)


def test_a_process_that_was_killed_is_said_in_words():
    with pytest.raises(DatasetError, match="--num-workers 1"):
        results_of(die, [1, 2], num_workers=2)


def test_ctrl_c_while_processes_work_ends_them():
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results_of(square, range(50), num_workers=2, progress=interrupt)
