"""What a training remembers of itself, and that a folder is one plan's."""

import copy
import json

import pytest
import torch

from tiny_training import make_trainer, tiny_plans
from veloxseg.errors import PlanError
from veloxseg.training.record import check_same_plan, plan_hash, write_record

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


def test_a_plans_hash_depends_on_its_content_and_not_on_the_order_of_its_keys_or_its_reasons():
    plans = tiny_plans()
    backwards = dict(reversed(list(copy.deepcopy(plans).items())))
    assert list(backwards) != list(plans)
    assert plan_hash(backwards) == plan_hash(plans)
    assert len(plan_hash(plans)) == 64
    told = [{"what": "batch", "value": "2", "why": "the smallest"}]
    backwards["configurations"]["3d_fullres"]["decisions"] = told  # words, which train nothing
    assert plan_hash(backwards) == plan_hash(plans)
    plans["configurations"]["3d_fullres"]["batch_size"] = 3
    assert plan_hash(plans) != plan_hash(backwards)


def test_a_results_folder_of_another_plan_is_refused(tmp_path):
    plans = tiny_plans()
    check_same_plan(tmp_path, plans)  # nothing there yet
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "fold_0").mkdir()
    other = {**plans, "transpose_forward": [2, 1, 0]}
    check_same_plan(tmp_path, other)  # nothing trained yet
    (tmp_path / "fold_0" / "checkpoint_best.pth").touch()
    check_same_plan(tmp_path, plans)
    with pytest.raises(PlanError, match="another plan") as error:
        check_same_plan(tmp_path, other)
    assert plan_hash(plans)[:12] in str(error.value)
    assert plan_hash(other)[:12] in str(error.value)


def test_training_in_the_folder_of_another_plan_is_refused(trained):
    plans = tiny_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    with pytest.raises(PlanError, match="another plan"):
        make_trainer(plans).run_training()


def test_a_record_holds_settings_versions_and_the_plans_hash(tmp_path):
    write_record(tmp_path, plans=tiny_plans(), seed=7, minutes=None)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["seed"] == 7
    assert record["plan_sha256"] == plan_hash(tiny_plans())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert isinstance(record["command"], list)
    write_record(tmp_path, plans=tiny_plans(), resume=True)
    resumed = json.loads((tmp_path / "run.json").read_text())
    assert resumed["earlier_commands"] == [record["command"]]
