"""Weights rounded to what 16 bits hold."""

import numpy as np
import pytest

from bundles import small_network
from veloxseg.bundle.weights import round_to_fp16
from veloxseg.errors import BundleError


def test_rounded_weights_differ_by_at_most_half_of_their_last_bit() -> None:
    weights = {k: v.numpy() for k, v in small_network().state_dict().items()}
    rounded = round_to_fp16(weights)
    for name, weight in weights.items():
        assert rounded[name].dtype == np.float32
        np.testing.assert_allclose(rounded[name], weight, rtol=2.0**-11, atol=2.0**-25)
        assert np.array_equal(rounded[name].astype(np.float16), rounded[name])


@pytest.mark.parametrize("value", [70000.0, np.inf, np.nan])
def test_a_weight_that_16_bits_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(BundleError, match=r"head\.bias reaches"):
        round_to_fp16({"head.bias": np.array([1.0, value], np.float32)})
