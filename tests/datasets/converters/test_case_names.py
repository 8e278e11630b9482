import pytest

from veloxseg.datasets.converters.case_names import safe_case_names
from veloxseg.errors import DatasetError


def test_blanks_and_umlauts_become_underscores():
    assert safe_case_names(["a b", "Müller-1"]) == {"a b": "a_b", "Müller-1": "M_ller-1"}


@pytest.mark.parametrize("names", [("a b", "a?b"), ("Case1", "case1")])
def test_names_that_would_become_one_are_refused(names):
    with pytest.raises(DatasetError, match="would both be named"):
        safe_case_names(names)


def test_a_name_without_a_letter_or_digit_is_refused():
    with pytest.raises(DatasetError, match="no letter or digit"):
        safe_case_names(["___"])
