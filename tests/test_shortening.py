import pytest

from veloxseg.shortening import name_cases, shorten


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("a", "a"),
        ("abcde", "a, b, c, d, e"),
        ("abcdef", "a, b, c, d, e and 1 more"),
        ("", ""),
    ],
)
def test_five_names_are_said_and_the_others_counted(names, said):
    assert shorten(list(names)) == said


def test_fewer_are_said_where_that_is_asked_for():
    assert shorten(("a", "b", "c"), shown=1) == "a and 2 more"


def test_one_case_is_a_case_and_several_are_cases():
    assert name_cases(["a"]) == "case a"
    assert name_cases(["a", "b"]) == "cases a, b"
    assert name_cases(["a", "b"], capital=True) == "Cases a, b"
