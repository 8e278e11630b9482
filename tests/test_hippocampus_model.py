"""The command that makes and judges the model that is shipped."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.bundle.verification import open_engine
from veloxseg.errors import BundleError
from veloxseg.models.finding import shipped_folder

FOLDER = Path(__file__).resolve().parents[1] / "models" / "hippocampus"


@pytest.fixture(scope="module")
def one_network() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_network", FOLDER / "one_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _logits(bundle: Bundle, patch: np.ndarray) -> np.ndarray:
    engine = open_engine("onnxruntime", bundle.read("model.onnx"), has_regions=False)
    return engine.run(patch)


def test_the_shipped_model_is_the_mean_of_its_networks(
    one_network: ModuleType, tmp_path: Path
) -> None:
    model = shipped_folder() / "hippocampus.zip"
    shipped = open_bundle(model)
    patch = np.random.default_rng(0).normal(size=(1, 1, *shipped.pipeline.patch_size))
    patch = patch.astype(np.float32)
    folds = []
    for fold in range(5):
        target = tmp_path / f"fold_{fold}.zip"
        one_network.write_network(model, fold, target)
        folds.append(_logits(open_bundle(target), patch))
    expected = _logits(shipped, patch)
    np.testing.assert_allclose(np.mean(folds, axis=0), expected, atol=1e-3)
    assert np.abs(folds[0] - folds[1]).max() > 0.1


def test_a_model_that_is_not_there_is_refused(one_network: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found nothing"):
        one_network.write_network(tmp_path / "hippocampi.zip", 0, tmp_path / "fold.zip")
