"""The ONNX graph against the modules it was trained with, run by ONNX Runtime."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from veloxseg.bundle import attention_graph
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.weights import Weights
from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig
from veloxseg.network.veloxseg import VeloxSeg

SMALL: dict[str, Any] = {
    "patch_size": (16, 24, 32),
    "in_channels": (1, 1),
    "num_classes": 2,
    "stem_stride": (2, 2, 4),
    "strides": ((2, 2, 2), (2, 2, 2)),
    "conv_channels": (8, 12, 16),
    "attention_channels": (6, 8, 10),
    "conv_depths": (1, 1, 1),
    "attention_depths": (1, 1, 1),
    "group_widths": (4, 4, 8),
    "conv_expansion": (2, 2, 2),
    "attention_expansion": (3, 2, 2),
    "big_windows": ((2, 3, 2), (2, 3, 2), (2, 3, 2)),
    "small_windows": ((1, 1, 1),) * 3,
    "num_heads": (1, 2, 3),
    "head_channels": (4, 4, 8),
}
CASES = {
    "two modalities": {},
    "one modality of four channels": {"in_channels": (4,), "num_classes": 4},
    "modalities of unlike channels": {"in_channels": (2, 1, 3), "num_classes": 3},
    "a stem of stride one on an axis": {
        "stem_stride": (1, 4, 2),
        "patch_size": (8, 48, 16),
    },
    "pooled tokens at every scale": {
        "big_windows": ((4, 6, 4), (2, 3, 2), (2, 3, 2)),
        "small_windows": ((2, 2, 2), (1, 1, 1), (1, 1, 1)),
    },
    "an axis that stays while others grow": {"patch_size": (16, 24, 64)},
    "anisotropic strides": {
        "patch_size": (4, 24, 32),
        "strides": ((1, 2, 2), (1, 2, 2)),
        "stem_stride": (1, 2, 2),
        "big_windows": ((4, 3, 4), (4, 3, 4), (4, 3, 4)),
    },
    "one kernel": {"kernel_sizes": (3,)},
    "several blocks a stage": {"conv_depths": (2, 1, 2), "attention_depths": (1, 2, 2)},
}


@pytest.mark.parametrize("case", CASES)
def test_graph_gives_the_logits_of_the_network(case: str) -> None:
    network = make_network(NetworkConfig(**SMALL | CASES[case]))
    image = random_image(network.config, batch=2)

    logits = run(network_graph(network.config, [weights_of(network)]), image)

    expected = reference(network, image)
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_graph_of_several_folds_gives_the_mean_of_their_logits() -> None:
    config = NetworkConfig(**SMALL)
    networks = [make_network(config, seed=seed) for seed in (1, 2, 3)]
    image = random_image(config)

    logits = run(network_graph(config, [weights_of(n) for n in networks]), image)

    mean = np.mean([reference(n, image) for n in networks], axis=0)
    np.testing.assert_allclose(logits, mean, rtol=1e-4, atol=1e-4)


def test_relative_logits_are_the_logits_less_the_background() -> None:
    network = make_network(NetworkConfig(**SMALL | {"num_classes": 3}))
    image = random_image(network.config)

    relative = run(network_graph(network.config, [weights_of(network)], relative=True), image)

    logits = reference(network, image)
    np.testing.assert_allclose(relative, logits[:, 1:] - logits[:, :1], rtol=1e-4, atol=1e-4)


def test_graph_of_a_larger_patch_keeps_the_trained_windows() -> None:
    network = make_network(NetworkConfig(**SMALL))
    patch: Axes = (32, 48, 32)
    image = random_image(network.config, patch=patch)

    graph = network_graph(network.config, [weights_of(network)], patch_size=patch)

    np.testing.assert_allclose(run(graph, image), reference(network, image), rtol=1e-4, atol=1e-4)


def test_a_patch_that_windows_do_not_divide_is_refused() -> None:
    network = make_network(NetworkConfig(**SMALL))
    with pytest.raises(PlanError, match=r"\(16, 36, 32\).*multiples of the largest windows"):
        network_graph(network.config, [weights_of(network)], patch_size=(16, 36, 32))


def test_interpolation_axis_by_axis_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(NetworkConfig(**SMALL))
    image = random_image(network.config)
    monkeypatch.setattr(attention_graph, "_MAX_MATRIX", 0)

    logits = run(network_graph(network.config, [weights_of(network)]), image)

    np.testing.assert_allclose(logits, reference(network, image), rtol=1e-4, atol=1e-4)


def test_graph_holds_only_the_nodes_it_needs() -> None:
    config = NetworkConfig(patch_size=(96, 96, 96), in_channels=(1, 1), num_classes=2)
    graph = network_graph(config, [weights_of(make_network(config))]).graph
    kinds = Counter(node.op_type for node in graph.node)

    assert set(kinds) == {
        "Add", "Concat", "Conv", "ConvTranspose", "Gather", "Gelu", "InstanceNormalization",
        "LayerNormalization", "MatMul", "ReduceMax", "Reshape", "Softmax", "Split", "Transpose",
    }  # fmt: skip
    # 4 encoder and 3 decoder JLC blocks of 3 + 2, stems, 3 downs, head, attention MLPs, mergings
    assert kinds["Conv"] == 7 * 5 + 4 + 3 + 1 + 4 * 2 + 3
    assert kinds["InstanceNormalization"] == 7 * 4 + 1 + 3 + 4 + 3
    assert kinds["LayerNormalization"] == 4 * 2 + 3
    assert kinds["Softmax"] == 4
    assert kinds["ConvTranspose"] == 3
    assert sum(kinds.values()) <= 420


def test_no_node_could_be_folded_into_a_constant() -> None:
    config = NetworkConfig(**SMALL)
    graph = network_graph(config, [weights_of(make_network(config))]).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert not [node.name for node in graph.node if set(node.input) <= constants]
    used = {name for node in graph.node for name in node.input}
    assert constants <= used


def make_network(config: NetworkConfig, seed: int = 0) -> VeloxSeg:
    torch.manual_seed(seed)
    network = VeloxSeg(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # biases and norms away from 0 and 1
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def weights_of(network: VeloxSeg) -> Weights:
    return {name: value.contiguous().numpy() for name, value in network.state_dict().items()}


def random_image(
    config: NetworkConfig, *, batch: int = 1, patch: Axes | None = None
) -> npt.NDArray[np.float32]:
    shape = (batch, sum(config.in_channels), *(patch or config.patch_size))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def reference(network: VeloxSeg, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
    return logits


def run(graph: onnx.ModelProto, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"image": image})
    return np.asarray(logits, np.float32)
