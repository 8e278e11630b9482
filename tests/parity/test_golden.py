"""The published network's tensors, reproduced."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from veloxseg.network.published import load_published

NAMES = ("petct_64", "mri4_64x64x32", "mixed_32x48x64")


@pytest.fixture(params=NAMES)
def golden(request, shared: Path):
    folder = shared / "golden"
    config = json.loads((folder / f"{request.param}.json").read_text())
    tensors = load_file(folder / f"{request.param}.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights")}
    return config, weights, tensors


def close(ours, theirs):
    assert theirs.std() > 1e-3 or theirs.numel() == 1  # the golden output is not trivial
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_logits_in_evaluation_match(golden):
    config, weights, tensors = golden
    model = load_published(config, weights).eval()
    with torch.no_grad():
        close(model.network(tensors["input"]), tensors["eval.logits"])


def test_every_training_output_matches(golden):
    config, weights, tensors = golden
    model = load_published(config, {"model": {f"module.{k}": v for k, v in weights.items()}})
    with torch.no_grad():
        output = model.train()(tensors["input"])
    assert len(output.logits) == 4
    for i, logits in enumerate(output.logits):
        close(logits, tensors[f"train.logits.{i}"])
    close(output.reconstruction, tensors["train.reconstruction"])
    close(output.student_gram, tensors["train.gram.student"])
    for m, gram in enumerate(output.teacher_grams):
        close(gram, tensors[f"train.gram.teacher.{m}"])
