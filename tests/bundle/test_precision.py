"""Constants in 16 bits."""

import numpy as np
import onnx
import pytest
import torch

from bundles import small_network
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.precision import round_to_bf16, store_in_16_bits
from veloxseg.bundle.verification import ENGINES, open_engine
from veloxseg.errors import BundleError


def graph() -> onnx.ModelProto:
    network = small_network()
    weights = {name: value.contiguous().numpy() for name, value in network.state_dict().items()}
    return network_graph(network.config, [weights])


def test_rounding_to_bf16_is_pytorchs() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    halves = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)  # ties, to even
    values = np.concatenate([values, halves, np.float32([0, -0.0, 1e-40, 3e38])])

    theirs = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)

    np.testing.assert_array_equal(round_to_bf16(values), theirs)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_halved_file_is_smaller_and_gives_nearly_the_same_logits(precision) -> None:
    model = graph()
    halved = store_in_16_bits(model, precision)
    patch = np.random.default_rng(0).standard_normal((1, 2, 16, 16, 16)).astype(np.float32)
    reference = open_engine("onnxruntime", model.SerializeToString(), has_regions=True).run(patch)
    assert reference.std() > 0.1

    assert halved.ByteSize() < 0.75 * model.ByteSize()
    for name in ENGINES:
        engine = open_engine(
            name, halved.SerializeToString(), precision=precision, has_regions=False
        )
        expected = reference[:, 1:] - reference[:, :1] if engine.relative else reference
        # bf16 has 8 bits, and some twenty roundings follow each other
        assert np.abs(engine.run(patch) - expected).max() < 0.05 * np.abs(reference).max()


def test_the_float32_graph_stays_as_it_was() -> None:
    model = graph()
    before = model.SerializeToString()
    store_in_16_bits(model, "bf16")
    assert model.SerializeToString() == before


def test_a_weight_too_large_for_fp16_is_refused() -> None:
    model = graph()
    large = next(t for t in model.graph.initializer if t.data_type == 1 and np.prod(t.dims) > 1000)
    values = onnx.numpy_helper.to_array(large) + np.float32(7e4)
    large.CopyFrom(onnx.numpy_helper.from_array(values, large.name))

    with pytest.raises(BundleError, match=r"7e\+04.*65504"):
        store_in_16_bits(model, "fp16")
    store_in_16_bits(model, "bf16")
