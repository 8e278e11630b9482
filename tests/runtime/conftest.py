"""One pipeline said in our words and in nnU-Net's."""

from typing import Any

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from veloxseg.bundle.format import Normalisation, Pipeline, Resampling

SCHEMES = {
    "z_score": "ZScoreNormalization",
    "ct": "CTNormalization",
    "none": "NoNormalization",
    "rescale_0_1": "RescaleTo01Normalization",
    "rgb_0_1": "RGBTo01Normalization",
}


def _build_pipeline(**changes: Any) -> Pipeline:
    normalisation = changes.pop("normalisation", (Normalisation(scheme="z_score"),))
    fields = {
        "channels": tuple(f"channel{index}" for index in range(len(normalisation))),
        "labels": {"background": 0, "a": 1, "b": 2},
        "spacing": (1.0, 1.0, 1.0),
        "normalisation": normalisation,
        "patch_size": (8, 8, 8),
    }
    return Pipeline(**(fields | changes))


def _nnunet_plans(pipeline: Pipeline) -> PlansManager:
    def kwargs(resampling: Resampling) -> dict[str, Any]:
        return {
            "is_seg": False,
            "order": resampling.order,
            "order_z": resampling.order_z,
            "force_separate_z": resampling.force_separate_z,
        }

    function = "resample_data_or_seg_to_shape"
    configuration = {
        "spacing": list(pipeline.spacing),
        "patch_size": list(pipeline.patch_size),
        "normalization_schemes": [SCHEMES[n.scheme] for n in pipeline.normalisation],
        "use_mask_for_norm": [n.within_mask for n in pipeline.normalisation],
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_probabilities": function,
        "resampling_fn_data_kwargs": kwargs(pipeline.image_resampling),
        "resampling_fn_seg_kwargs": kwargs(pipeline.image_resampling) | {"is_seg": True},
        "resampling_fn_probabilities_kwargs": kwargs(pipeline.logits_resampling),
        "architecture": {},
    }
    return PlansManager(
        {
            "configurations": {"3d_fullres": configuration},
            "transpose_forward": list(pipeline.transpose),
            "transpose_backward": np.argsort(pipeline.transpose).tolist(),
            "foreground_intensity_properties_per_channel": {
                str(index): {
                    "mean": n.mean,
                    "std": n.std,
                    "percentile_00_5": n.lower,
                    "percentile_99_5": n.upper,
                }
                for index, n in enumerate(pipeline.normalisation)
            },
        }
    )


@pytest.fixture
def build_pipeline():
    """Makes a pipeline; what is not told has small defaults."""
    return _build_pipeline


@pytest.fixture
def nnunet_plans():
    """Makes nnU-Net's plans of a pipeline."""
    return _nnunet_plans
