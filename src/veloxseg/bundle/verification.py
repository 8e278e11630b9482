"""Whether an engine computes from a model file what the trained network computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Precision, Verification
from veloxseg.errors import BundleError
from veloxseg.installation import module_version, num_cores
from veloxseg.runtime.backends.backend import Backend, BackendName

Array = npt.NDArray[np.float32]
Run = Callable[[Array], Array]
"""Patches (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""

TOLERANCE = 1e-3
"""Largest error of a float32 logit, of the largest logit.

Rounding in another order gives 1e-6 to 1e-5 and, where instance norms magnify it, a little more; a
wrong weight, window or order gives 0.1 and more.
"""

ENGINES: tuple[BackendName, ...] = ("onnxruntime", "openvino")
"""Those that the runtime computes model files with."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far an engine's logits are from the trained network's.

    Attributes:
        max_error: Largest absolute difference.
        max_logit: Largest absolute logit of the trained network.
        agreement: Share of voxels with the same label.
    """

    max_error: float
    max_logit: float
    agreement: float


def open_engine(
    name: BackendName, model: bytes, *, precision: Precision = "float32", has_regions: bool
) -> Backend:
    """Put a model file that is in no bundle yet into an engine, on the processor."""
    threads = num_cores()
    if name == "onnxruntime":
        from veloxseg.runtime.backends.onnxruntime_backend import ONNXRuntimeBackend

        return ONNXRuntimeBackend(model, threads=threads, device="cpu")
    from veloxseg.runtime.backends.openvino_backend import OpenVINOBackend

    return OpenVINOBackend(
        model, precision=precision, threads=threads, batch=1, relative=not has_regions
    )


def verify_float32(
    model: bytes, reference: Run, patches: Sequence[Array], *, has_regions: bool
) -> Verification:
    """Compare the float32 model in every engine with the trained network.

    Args:
        model: The ONNX file.
        reference: The trained network.
        patches: (C, Z, Y, X) each.
        has_regions: Outputs are regions, not labels.

    Raises:
        BundleError: an engine is off by more than ``TOLERANCE``.
    """
    expected = [reference(patch[None]) for patch in patches]
    deviations = {}
    for name in ENGINES:
        engine = open_engine(name, model, has_regions=has_regions)
        deviations[name] = measure_deviation(engine, expected, patches, has_regions=has_regions)
    worst = max(deviations.values(), key=lambda found: found.max_error / found.max_logit)
    if not worst.max_error <= TOLERANCE * worst.max_logit:  # so that NaN fails too
        figures = "; ".join(f"{n}: {d.max_error:.3g}" for n, d in deviations.items())
        raise BundleError(
            f"The exported model's logits differ from the trained network's by up to {figures}, at "
            f"logits up to {worst.max_logit:.3g}. Expected {TOLERANCE:g} of that or less. Nothing "
            "was written. Upgrade onnxruntime and openvino, and report it if that does not help."
        )
    return Verification(
        backend=", ".join(describe_engine(name) for name in deviations),
        num_patches=len(patches),
        max_error=worst.max_error,
        max_logit=worst.max_logit,
        tolerance=TOLERANCE,
        agreement=min(found.agreement for found in deviations.values()),
    )


def measure_deviation(
    engine: Backend, expected: Sequence[Array], patches: Sequence[Array], *, has_regions: bool
) -> Deviation:
    """Run patches through an engine and compare.

    Args:
        engine: With logits, or with those less the background's (``relative``).
        expected: The trained network's logits of each patch, (1, K, Z, Y, X).
        patches: (C, Z, Y, X) each.
        has_regions: Outputs are regions, not labels.
    """
    errors, sizes, same = [], [], []
    for patch, logits in zip(patches, expected, strict=True):
        wanted = logits[:, 1:] - logits[:, :1] if engine.relative else logits
        found = engine.run(np.ascontiguousarray(patch[None]))
        errors.append(np.abs(found - wanted).max())
        sizes.append(np.abs(wanted).max())
        ours = _decide(found, relative=engine.relative, has_regions=has_regions)
        theirs = _decide(wanted, relative=engine.relative, has_regions=has_regions)
        same.append(np.mean(ours == theirs))
    return Deviation(
        max_error=float(np.max(errors)),
        max_logit=float(np.max(sizes)),
        agreement=float(np.mean(same)),
    )


def describe_engine(name: BackendName) -> str:
    """The engine with its version."""
    return f"{name} {module_version(name)}"


def describe_openvino(precision: Precision) -> str:
    """OpenVINO with the arithmetic that this processor has for a precision: not all have all."""
    import openvino

    from veloxseg.runtime.backends.openvino_backend import HINTS

    value = openvino.opset13.parameter([1], np.float32)
    network = openvino.Model([openvino.opset13.relu(value)], [value], "arithmetic")
    compiled = openvino.Core().compile_model(
        network, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    )
    name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    beside = "int8 and " if precision == "int8" else ""
    return f"{describe_engine('openvino')}, computing in {beside}{names.get(name, name)}"


def random_patches(shape: Sequence[int], *, number: int = 2) -> list[Array]:
    """Noise of normalised images' size, (C, Z, Y, X) each; the same each time."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, dtype=np.float32) for _ in range(number)]


def _decide(logits: Array, *, relative: bool, has_regions: bool) -> npt.NDArray[np.int64]:
    """Labels (B, Z, Y, X), or whether each region holds, (B, K, Z, Y, X)."""
    if has_regions:
        return (logits > 0).astype(np.int64)
    if relative:
        logits = np.concatenate([np.zeros_like(logits[:, :1]), logits], axis=1)
    labels: npt.NDArray[np.int64] = logits.argmax(axis=1)
    return labels
