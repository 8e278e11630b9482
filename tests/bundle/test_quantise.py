"""8-bit convolutions."""

from collections import Counter

import numpy as np
import onnx
import pytest

from bundles import small_network
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.quantise import convolutions_to_quantise, quantise
from veloxseg.bundle.verification import ENGINES, open_engine, random_patches


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    network = small_network()
    weights = {name: value.contiguous().numpy() for name, value in network.state_dict().items()}
    return network_graph(network.config, [weights], relative=True)


@pytest.fixture(scope="module")
def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantise(model, random_patches((2, 16, 16, 16), number=4))


def test_wide_kernels_after_the_stems_are_quantised_and_nothing_else(
    model: onnx.ModelProto, quantised: onnx.ModelProto
) -> None:
    chosen = convolutions_to_quantise(model)
    # 3^3 and 5^3 of two encoder and one decoder block, one down, the head
    assert len(chosen) == 3 * 2 + 1 + 1
    assert any(name.endswith("head_conv") for name in chosen)
    quantised_inputs = {
        node.name: node.input[0] for node in quantised.graph.node if node.op_type == "Conv"
    }
    outputs = {name: node for node in quantised.graph.node for name in node.output}
    assert {
        name
        for name, source in quantised_inputs.items()
        if source in outputs and outputs[source].op_type == "DequantizeLinear"
    } == set(chosen)


def test_each_output_channel_of_a_weight_has_its_own_scale(quantised: onnx.ModelProto) -> None:
    kinds = Counter(tensor.data_type for tensor in quantised.graph.initializer)
    assert kinds[onnx.TensorProto.INT8] >= 8
    scales = [list(t.dims) for t in quantised.graph.initializer if t.name.endswith("_scale")]
    assert [16] in scales or [8] in scales


@pytest.mark.parametrize("name", ENGINES)
def test_quantised_logits_are_near_the_float32_ones(
    model: onnx.ModelProto, quantised: onnx.ModelProto, name
) -> None:
    patch = random_patches((2, 16, 16, 16), number=5)[-1][None]
    expected = open_engine(name, model.SerializeToString(), has_regions=False).run(patch).copy()
    engine = open_engine(name, quantised.SerializeToString(), precision="int8", has_regions=False)
    found = engine.run(patch)
    assert engine.relative
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() > 0  # 8 bits are not 24
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()


def test_the_float32_graph_stays_as_it_was(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    quantise(model, random_patches((2, 16, 16, 16), number=1))
    assert model.SerializeToString() == before


def test_quantisation_without_patches_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="needs patches"):
        quantise(model, [])
