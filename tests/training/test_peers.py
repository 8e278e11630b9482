"""Other networks trained on the plan of a small dataset: their plans, checkpoints and results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from planned_dataset import NAME, planned_workspace
from veloxseg.atomic import read_json, write_json
from veloxseg.bundle.export import export
from veloxseg.cli import app
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import BundleError, DatasetError, PlanError
from veloxseg.installation import extension_folder
from veloxseg.network.config import NetworkConfig
from veloxseg.network.peers.registry import PEERS
from veloxseg.planning.files import CONFIGURATION, plans_file
from veloxseg.planning.peer_plans import NETWORKS, network_plans
from veloxseg.planning.recipe import recipe_of
from veloxseg.training import launch
from veloxseg.training.launch import fold_folder, train
from veloxseg.training.settings import TrainingSettings
from veloxseg.volumes.reading import read_volume

# nnU-Net's simple storage maps its files read-only, which PyTorch mentions once
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")

MONAI = tuple(name for name, row in PEERS.items() if row.library == "monai")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """Five cases, for nnU-Net's commands as well."""
    monkeypatch.setenv("nnUNet_extTrainer", str(extension_folder()))
    return planned_workspace(tmp_path, monkeypatch)


def _settings(network, **changes):
    options = {"epochs": 1, "num_workers": 0, "device": "cpu", **changes}
    return TrainingSettings(dataset=NAME, fold=0, network=network, **options)


@pytest.fixture
def short(monkeypatch):
    """Epochs of two steps."""
    make = launch._make_trainer

    def make_short(*arguments):
        trainer = make(*arguments)
        trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
        return trainer

    monkeypatch.setattr(launch, "_make_trainer", make_short)


@pytest.mark.parametrize("network", NETWORKS[1:])
def test_only_the_network_of_a_derived_plan_is_another(workspace, network):
    plans = read_json(plans_file(workspace, NAME))
    derived = network_plans(workspace, NAME, network)
    assert derived["plans_name"] == f"VeloxSegPlans_{network}"
    assert read_json(plans_file(workspace, NAME, derived["plans_name"])) == derived
    ours, theirs = (p["configurations"][CONFIGURATION] for p in (plans, derived))
    own = {"architecture", "decisions", "training"}
    if network == "nnunet_own":
        own |= {"batch_size", "patch_size"}
        assert theirs["patch_size"] == [12, 20, 16]  # nnU-Net's, of whole multiples of 2
    assert {k for k in ours if ours[k] != theirs[k]} <= own
    assert theirs["data_identifier"] == "VeloxSegPlans_3d_fullres"
    if network != "nnunet_own":
        ours, theirs = (recipe_of(c).model_dump() for c in (ours, theirs))
        different = {"head_weights", "teachers"} | set(_overrides(network))
        assert {k for k in ours if ours[k] != theirs[k]} <= different


def _overrides(network):
    from veloxseg.network.peers.registry import PEERS

    return PEERS[network].recipe if network in PEERS else ()


def test_nnunets_own_plan_has_its_own_recipe(workspace):
    configuration = network_plans(workspace, NAME, "nnunet_own")["configurations"][CONFIGURATION]
    recipe = recipe_of(configuration)
    assert (recipe.optimizer, recipe.schedule) == ("sgd", "poly")
    assert (recipe.learning_rate, recipe.weight_decay) == (1e-2, 3e-5)
    assert (recipe.epochs, recipe.steps_per_epoch) == (1000, 250)
    assert recipe.head_weights is not None
    assert recipe.head_weights[-1] == 0


def test_sizes_differ_in_their_widths_alone(workspace):
    def config(network):
        plans = network_plans(workspace, NAME, network)
        arguments = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
        return NetworkConfig(num_classes=2, **arguments)

    sizes = [config(f"veloxseg_{size}") for size in "sbl"]
    assert sizes[1] == config("veloxseg")
    assert [one.conv_channels[0] for one in sizes] == [8, 16, 24]
    assert len({(one.patch_size, one.stem_stride, one.strides) for one in sizes}) == 1


def test_a_network_of_given_sizes_has_no_others(workspace):
    file = plans_file(workspace, NAME)
    plans = read_json(file)
    arguments = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    arguments["conv_dropout"] = 0.1
    write_json(file, plans)
    with pytest.raises(PlanError, match="given, not planned"):
        network_plans(workspace, NAME, "veloxseg_l")
    network_plans(workspace, NAME, "segresnet")  # which has nothing to do with it


def test_a_wrong_name_is_answered_with_all_names(workspace):
    words = ["train", NAME, "0", "--network", "nope", "--root", str(workspace.raw.parent)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "there is no 'nope'" in said
    assert all(name in said for name in NETWORKS)
    assert not list(workspace.preprocessed.rglob("*nope*"))


def test_without_a_plan_there_is_nothing_to_derive_from(workspace):
    plans_file(workspace, NAME).unlink()
    with pytest.raises(PlanError, match="veloxseg plan"):
        network_plans(workspace, NAME, "nnunet")


def test_nnunets_own_plan_of_another_spacing_asks_for_cases_of_its_own(workspace):
    file = plans_file(workspace, NAME)
    plans = read_json(file)
    plans["configurations"][CONFIGURATION]["spacing"] = [2.0, 2.0, 2.0]
    write_json(file, plans)
    own = network_plans(workspace, NAME, "nnunet_own")
    identifier = own["configurations"][CONFIGURATION]["data_identifier"]
    assert identifier == "VeloxSegPlans_nnunet_own_3d_fullres"
    with pytest.raises(DatasetError, match=f"preprocess {NAME} --network nnunet_own"):
        train(_settings("nnunet_own"), workspace=workspace, console=Console(quiet=True))


@pytest.mark.usefixtures("short")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # nnU-Net imports all its trainers
@pytest.mark.parametrize(
    "network", ["segresnet", pytest.param("nnunet_own", marks=pytest.mark.slow)]
)
def test_a_network_is_trained_validated_resumed_and_predicts_by_nnunet(workspace, network):
    if network in MONAI:
        pytest.importorskip("monai")
    console = Console(quiet=True)
    folder = train(_settings(network), workspace=workspace, console=console)
    assert folder == fold_folder(workspace, NAME, 0, network=network)
    assert folder.parent.name == f"VeloxSegTrainer__VeloxSegPlans_{network}__3d_fullres"
    assert json.loads((folder / "run.json").read_text())["network"] == network
    scores = read_json(folder / "validation" / "summary.json")
    assert len(scores["metric_per_case"]) == 1
    first = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert first["distillation_weights"] == {}

    (folder / "checkpoint_final.pth").rename(folder / "checkpoint_latest.pth")
    train(_settings(network, epochs=2, resume=True), workspace=workspace, console=console)
    second = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert second["current_epoch"] == 2
    assert len(second["logging"]["train_losses"]) == 2

    predicted = _predict_by_nnunet(folder.parent, workspace.raw / NAME)
    validated = read_volume(next((folder / "validation").glob("*.nii.gz")))
    assert predicted.shape == validated.data.shape
    with pytest.raises(BundleError, match="only VeloxSeg networks are exported"):
        export(folder.parent, workspace.results / "peer.veloxseg", workspace=workspace)


def _predict_by_nnunet(run: Path, raw: Path):
    """The mask of the first case by what nnUNetv2_predict calls, the trainer found by its name."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(run), (0,))
    image = read_volume(raw / "imagesTr" / "case_0_0000.nii.gz").data[None]
    return predictor.predict_single_npy_array(
        np.array(image, dtype=np.float32), {"spacing": [1.0, 1.0, 1.0]}
    )
