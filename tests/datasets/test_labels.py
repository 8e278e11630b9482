import numpy as np
import pytest

from veloxseg.datasets.labels import integer_labels
from veloxseg.errors import DatasetError


def test_floats_next_to_integers_are_those_integers():
    stored = np.array([0.0, 0.99999997, 3.0, 1.0009, -0.0])
    assert integer_labels(stored, where="x").tolist() == [0, 1, 3, 1, 0]


@pytest.mark.parametrize("value", [0.5, 1.002, 1e30, np.nan, np.inf])
def test_other_values_are_refused_and_counted(value):
    with pytest.raises(DatasetError, match="Case a: 2 voxels"):
        integer_labels(np.array([0.0, value, value]), where="Case a")


def test_integers_keep_their_values():
    assert integer_labels(np.array([0, 255], np.uint8), where="x").tolist() == [0, 255]
