import math
import re
import xml.etree.ElementTree as ET

import pytest

from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.report.agreement import Agreement, draw_agreement
from veloxseg.evaluation.report.axes import fit_axis, write_number
from veloxseg.evaluation.report.distribution import DistributionRow, draw_distribution

NAMESPACE = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)


@pytest.mark.parametrize(
    ("values", "limits", "ticks"),
    [
        ([0.79, 0.95], (None, 1.0), [0.75, 0.8, 0.85, 0.9, 0.95, 1.0]),
        ([1.0, 3.0], (0.0, None), [0, 1, 2, 3]),
        ([0, 100], (None, None), [0, 20, 40, 60, 80, 100]),
        ([1.0, 1.0], (None, 1.0), [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        ([0.0], (0.0, None), [0, 0.0001]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values, limits, ticks):
    axis = fit_axis(values, start=0, end=100, limits=limits)
    assert axis.ticks[0] <= min(values)
    assert axis.ticks[-1] >= max(values)
    if len(ticks) > 2:
        assert axis.ticks == pytest.approx(ticks)
    texts = [write_number(tick, axis.places) for tick in axis.ticks]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("value", [-3.2, 0.0, 1e-9, 7.0, 12345.678])
def test_a_single_value_has_an_axis_too(value):
    axis = fit_axis([value], start=10, end=90)
    assert 10 <= axis.at(value) <= 90


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert write_number(-1.26, 1) == "\N{MINUS SIGN}1.3"
    assert write_number(-0.001, 2) == "0.00"
    assert write_number(math.nan, 2) == "\N{EN DASH}"


def test_every_case_is_a_dot_and_the_box_and_line_are_the_quartiles():
    values = {f"case {number}": 0.5 + number / 10 for number in range(5)}  # 0.5 ... 0.9
    rows = [
        DistributionRow(label="organ", values=values, num_undefined=0),
        DistributionRow(label="tumour", values={}, num_undefined=5),
    ]
    root = parse(draw_distribution(METRICS["Dice"], rows))
    dots = [float(dot.get("cx")) for dot in root.iter("circle")]
    assert len(dots) == 5
    assert next(root.iter("circle")).find("title").text == "case 0: 0.500"
    box = next(rect for rect in root.iter("rect") if rect.get("class") == "box")
    assert float(box.get("x")) == pytest.approx(dots[1], abs=0.11)
    assert float(box.get("x")) + float(box.get("width")) == pytest.approx(dots[3], abs=0.11)
    median = next(path for path in root.iter("path") if path.get("class") == "median")
    assert float(re.match(r"M([\d.]+)", median.get("d"))[1]) == pytest.approx(dots[2], abs=0.11)
    assert "organ: median 0.700, quartiles 0.600 and 0.800" in root.get("aria-label")
    assert "5 undefined" in "".join(root.itertext())


def test_equal_values_do_not_hide_one_another():
    values = {f"case {number}": 1.0 for number in range(5)}
    row = DistributionRow(label="organ", values=values, num_undefined=0)
    root = parse(draw_distribution(METRICS["HD95_mm"], [row]))
    assert len({(dot.get("cx"), dot.get("cy")) for dot in root.iter("circle")}) == 5


def test_bias_and_limits_of_agreement_are_those_of_a_hand_computed_case():
    # Differences 1, 3 and 5: mean 3, standard deviation 2.
    agreement = Agreement(label="organ", volumes_ml={"a": (11, 10), "b": (23, 20), "c": (35, 30)})
    assert agreement.bias_ml == pytest.approx(3)
    assert agreement.limits_ml == (pytest.approx(3 - 3.92), pytest.approx(3 + 3.92))
    root = parse(draw_agreement(agreement))
    lines = {path.get("class"): path.get("d") for path in root.iter("path")}
    heights = [float(dot.get("cy")) for dot in root.iter("circle")]
    assert float(lines["bias"].split()[1].split("H")[0]) == pytest.approx(heights[1], abs=0.11)
    places = [float(dot.get("cx")) for dot in root.iter("circle")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)  # 11, 21.5, 32
    assert "bias 3.0 ml" in root.get("aria-label")


def test_one_case_has_a_bias_and_no_limits():
    agreement = Agreement(label="organ", volumes_ml={"a": (2.0, 1.5)})
    root = parse(draw_agreement(agreement))
    assert all(math.isnan(limit) for limit in agreement.limits_ml)
    assert not [path for path in root.iter("path") if path.get("class") == "limit"]


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_the_ticks_of_an_agreement_begin_within_the_plot(scale):
    volumes = {"a": (1.0 * scale, 1.0 * scale), "b": (3.0 * scale, 1.0 * scale)}
    for chosen in (volumes, {"a": volumes["a"]}):
        root = parse(draw_agreement(Agreement(label="organ", volumes_ml=chosen)))
        ticks = [one for one in root.iter("text") if one.get("text-anchor") == "end"]
        widths = [7 * len(one.text) for one in ticks if one.get("class") == "tick"]
        ends = [float(one.get("x")) for one in ticks if one.get("class") == "tick"]
        assert all(end >= width for end, width in zip(ends, widths, strict=True))


def test_a_bias_is_legible_where_all_differences_are_equal():
    agreement = Agreement(label="organ", volumes_ml={"a": (2.0, 1.5), "b": (3.0, 2.5)})
    root = parse(draw_agreement(agreement))
    values = [one for one in root.iter("text") if one.get("class") == "value"]
    assert len({(one.get("x"), one.get("y")) for one in values}) == len(values) == 3


@pytest.mark.parametrize(("number", "said"), [(1, "1 case"), (2, "2 cases")])
def test_an_agreement_says_over_how_many_cases_it_is(number, said):
    volumes = {f"case {place}": (1.0, 2.0) for place in range(number)}
    root = parse(draw_agreement(Agreement(label="organ", volumes_ml=volumes)))
    assert root.get("aria-label").endswith(f", {said}")


def test_a_long_label_does_not_run_into_what_stands_beside_it():
    label = "everything that belongs to the tumour and the oedema around it"
    rows = [DistributionRow(label=label, values={"a": 0.5}, num_undefined=1000)]
    root = parse(draw_distribution(METRICS["Dice"], rows))
    texts = {
        one.get("text-anchor"): one.text for one in root.iter("text") if one.get("y") == "14.0"
    }
    name, beside = texts["start"], texts["end"]
    assert beside == "1000 undefined"
    assert name.startswith("everything that belongs")
    assert 7 * (len(name) + len(beside)) < 400
    assert label in root.get("aria-label")


def test_names_are_escaped():
    name = '<script>alert("1")</script>'
    row = DistributionRow(label=name, values={name: 0.5}, num_undefined=0)
    for svg in (
        draw_distribution(METRICS["Dice"], [row]),
        draw_agreement(Agreement(label=name, volumes_ml={name: (1.0, 2.0)})),
    ):
        assert "<script" not in svg
        assert name in parse(svg).get("aria-label")
