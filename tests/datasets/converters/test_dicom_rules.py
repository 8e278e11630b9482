import json
from types import SimpleNamespace

import pytest

from dicom_files import uid
from veloxseg.datasets.converters.dicom_names import Naming, name_cases
from veloxseg.datasets.converters.dicom_rules import DicomRules, read_rules, rules_in_words
from veloxseg.errors import DatasetError
from veloxseg.volumes.dicom.index import SERIES_TAGS, DicomStudy


def tags(**changes):
    return dict.fromkeys(SERIES_TAGS, "") | {"Modality": "MR"} | changes


def written(tmp_path, content):
    path = tmp_path / "rules.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_rules_are_read_from_json(tmp_path):
    path = written(
        tmp_path,
        {
            "channels": {
                "CT": {"modality": "CT", "exclude": {"description": "scout"}, "min_slices": 20},
                "PET": {"modality": "PT", "suv": False, "optional": True},
            },
            "labels": {"tumour": "^GTV", "node": {"name": "node", "optional": True}},
            "label_files": {"modality": "RTSTRUCT"},
        },
    )
    rules = read_rules(path)
    assert list(rules.channels) == ["CT", "PET"]
    assert rules.optional == ("PET",)
    assert rules.label_values == {"tumour": 1, "node": 2}
    assert rules.labels["tumour"].matches("gtv_mass")
    assert not rules.labels["tumour"].matches("old gtv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"channels": {"CT": {"modalty": "CT"}}}, r"CT.modalty: unknown key. Known .* modality"),
        ({"channels": {"CT": {}}, "extra": 1}, "extra: unknown key"),
        ({"channels": {}}, "channels"),
        ({"channels": {"CT": {"description": "("}}}, r"description: '\(' is no regular expr"),
        ({"channels": {"CT": {"prefer": "best"}}}, "prefer"),
        ("{", "JSON"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(tmp_path, content, message):
    with pytest.raises(DatasetError, match=rf"rules.json: .*{message}"):
        read_rules(written(tmp_path, content))


def test_a_missing_file_of_rules_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere\.json: no such file"):
        read_rules(tmp_path / "nowhere.json")


def test_words_are_rules_too():
    words = rules_in_words(
        ["T1=modality:MR,description:t1,!description:post,!image_type:mip", "CT=modality:CT"],
        ["tumour=^GTV", "node=node"],
    )
    written_out = DicomRules.model_validate(
        {
            "channels": {
                "T1": {
                    "modality": "MR",
                    "description": "t1",
                    "exclude": {"description": "post", "image_type": "mip"},
                },
                "CT": {"modality": "CT"},
            },
            "labels": {"tumour": "^GTV", "node": "node"},
        }
    )
    assert words == written_out


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (["CT"], "--channel CT: expected NAME="),
        (["CT=modality:CT", "CT=modality:PT"], "each name once"),
        (["CT=modality"], "'modality' has no form KEY:PATTERN"),
        (["CT=modality:"], "no form KEY:PATTERN"),
        (["CT=modalty:CT"], "unknown key"),
    ],
)
def test_words_that_are_no_rules_are_refused(channels, message):
    with pytest.raises(DatasetError, match=message):
        rules_in_words(channels)


def test_patterns_are_found_in_any_case_and_place_but_a_modality_is_whole():
    rule = rules_in_words(["T1=modality:mr,description:T1.*post"]).channels["T1"]
    assert rule.matches(tags(SeriesDescription="ax t1 SE POST gd"))
    assert not rule.matches(tags(SeriesDescription="ax t1 SE"))
    assert not rule.matches(tags(SeriesDescription="t1 post", Modality="MRX"))


def test_an_exclusion_needs_all_of_its_patterns():
    rule = rules_in_words(["T1=description:t1,!description:post,!contrast:gd"]).channels["T1"]
    assert rule.matches(tags(SeriesDescription="t1 post"))
    assert not rule.matches(tags(SeriesDescription="t1 post", ContrastBolusAgent="Gd"))


def study(patient="P1", *, date="20240229", study_uid="study"):
    path = SimpleNamespace()
    return DicomStudy(
        uid=uid(study_uid),
        patients={patient: path},
        date=date,
        description="",
        series=(),
        label_files=(),
    )


def test_a_case_is_called_by_patient_and_date():
    assert Naming().case_of(study()) == "P1_20240229"
    assert Naming().case_of(study(date="")) == "P1"


@pytest.mark.parametrize(
    ("patient", "name"),
    [
        ("Müller/Jörg^1", "M_ller_J_rg_1"),
        ("../../etc/passwd", "etc_passwd"),
        ("A B\tC", "A_B_C"),
        ("\udcff\udcfe7", "7"),
    ],
)
def test_names_are_safe_in_any_file_system(patient, name):
    assert Naming(pattern="{patient}").case_of(study(patient)) == name
    assert Naming(pattern="{patient}", key="k").case_of(study(patient)).isalnum()


def test_a_patient_without_id_is_unknown_and_its_case_called_by_the_study():
    assert Naming().patient_of(study("")) is None
    assert Naming().case_of(study("")).startswith("study-")
    assert Naming().case_of(study("", study_uid="a")) != Naming().case_of(study("", study_uid="b"))


def test_hashed_patients_depend_on_the_key_alone():
    first, second = Naming(key="one"), Naming(key="two")
    assert first.patient_of(study()) == first.patient_of(study(date="20250101"))
    assert first.patient_of(study()) != second.patient_of(study())
    assert "P1" not in first.case_of(study("P1"))
    assert first.fingerprint != second.fingerprint
    assert Naming().fingerprint is None


def test_an_empty_key_hides_no_one():
    with pytest.raises(DatasetError, match="key that hashes patient IDs is empty"):
        Naming(key="")


def test_studies_of_one_name_are_an_error_that_gives_a_pattern():
    both = [study(study_uid="a"), study(study_uid="b")]
    with pytest.raises(DatasetError, match=r"both called P1_20240229.*\{study\}"):
        name_cases(both, Naming())
    assert len(name_cases(both, Naming(pattern="{patient}_{study}"))) == 2


def test_names_that_differ_in_case_alone_collide_on_some_disks():
    with pytest.raises(DatasetError, match="both called"):
        name_cases([study("p1", study_uid="a"), study("P1", study_uid="b")], Naming())


@pytest.mark.parametrize("pattern", ["{name}", "{patient", "{}", "{patient.x}"])
def test_a_pattern_with_unknown_fields_is_refused(pattern):
    with pytest.raises(DatasetError, match=r"Expected a text with \{patient\}, \{date\}"):
        Naming(pattern=pattern).case_of(study())
