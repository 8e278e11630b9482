"""A model as ONNX in each precision, judged before it is kept.

The float32 model's logits are compared with PyTorch's; a reduced precision must segment validation
cases as well as float32 does.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from veloxseg.bundle.acceptance import Progress, compare_masks, require_accepted
from veloxseg.bundle.format import Precision, Verification, model_file
from veloxseg.bundle.precision import store_in_16_bits
from veloxseg.bundle.quantise import quantise
from veloxseg.bundle.real_cases import RealCases, real_patches
from veloxseg.bundle.trained_model import TrainedModel
from veloxseg.bundle.verification import (
    Array,
    Run,
    describe_openvino,
    measure_deviation,
    open_engine,
    random_patches,
    verify_float32,
)
from veloxseg.datasets.cases import Case

ReducedPrecision = Literal["bf16", "fp16", "int8"]

_NUM_CALIBRATION_PATCHES = 24


def make_float32(
    model: TrainedModel, patches: Sequence[Array], *, reference: Run | None = None
) -> tuple[bytes, Verification]:
    """Make the float32 model and compare its logits with PyTorch's.

    Args:
        model: Whose networks.
        patches: (C, Z, Y, X) of real images, to compare on beside random ones.
        reference: The networks as trained, where the model's weights have been rounded.

    Raises:
        BundleError: the logits differ.
    """
    written = model.graph()
    if model.has_fp16_weights:
        written = store_in_16_bits(written, "fp16", only_exact=True)
    graph: bytes = written.SerializeToString()
    shape = (len(model.pipeline.channels), *model.pipeline.patch_size)
    every = [*random_patches(shape), *patches]
    has_regions = model.pipeline.has_regions
    reference = reference or model.reference()
    return graph, verify_float32(graph, reference, every, has_regions=has_regions)


def make_reduced(
    model: TrainedModel, precisions: Sequence[ReducedPrecision], *, cases: RealCases
) -> dict[Precision, bytes]:
    """Make models of reduced precision; int8 is calibrated on training cases, if there are any."""
    models: dict[Precision, bytes] = {}
    for precision in dict.fromkeys(precisions):
        if precision == "int8":
            training = cases.training or cases.validation
            patches = real_patches(training, model.pipeline, number=_NUM_CALIBRATION_PATCHES)
            reduced = quantise(model.graph(relative=not model.pipeline.has_regions), patches)
        else:
            reduced = store_in_16_bits(model.graph(), precision)
        models[precision] = reduced.SerializeToString()
    return models


def judge_reduced(
    model: TrainedModel,
    reduced: Mapping[Precision, bytes],
    *,
    float32: bytes,
    cases: Sequence[Case],
    patches: Sequence[Array],
    progress: Progress | None,
) -> dict[str, Verification]:
    """Compare reduced precisions with float32, in OpenVINO, which computes in all of them.

    Args:
        model: Whose networks.
        reduced: The models to judge.
        float32: The model that they must be as good as.
        cases: Validation cases to segment as a whole.
        patches: (C, Z, Y, X) of real images, on which logits are compared with PyTorch's.
        progress: Is told how many cases are segmented.

    Returns:
        What was found, by the models' file names.

    Raises:
        BundleError: a precision segments worse than float32.
    """
    has_regions = model.pipeline.has_regions
    engines = {
        precision: open_engine("openvino", graph, precision=precision, has_regions=has_regions)
        for precision, graph in reduced.items()
    }
    baseline = open_engine("openvino", float32, has_regions=has_regions)
    found = compare_masks(baseline, engines, cases, model.pipeline, progress=progress)
    require_accepted(found)
    reference = model.reference()
    expected = [reference(patch[None]) for patch in patches]
    verifications = {}
    for precision, engine in engines.items():
        deviation = measure_deviation(engine, expected, patches, has_regions=has_regions)
        verifications[model_file(precision)] = Verification(
            backend=describe_openvino(precision),
            num_patches=len(patches),
            max_error=deviation.max_error,
            max_logit=deviation.max_logit,
            agreement=found[precision].agreement,
            mean_dice=found[precision].mean_dice,
            mean_dice_float32=found[precision].mean_dice_float32,
        )
    return verifications
