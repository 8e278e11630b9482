import os

import pytest

from veloxseg.errors import PlanError
from veloxseg.planning.optional import absent_channels, map_cases


def test_what_is_absent_is_read_from_our_properties_and_from_nnunets_own():
    assert absent_channels({"absent_channels": [0, 2]}) == (0, 2)
    assert absent_channels({"spacing": [1, 1, 1]}) == ()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_the_cases(num_workers):
    assert map_cases(abs, [-3, 2, -1], num_workers=num_workers) == [3, 2, 1]


def test_a_killed_worker_is_an_error_that_says_what_to_do():
    with pytest.raises(PlanError, match="--num-workers 1"):
        map_cases(os._exit, [9, 9], num_workers=2)
