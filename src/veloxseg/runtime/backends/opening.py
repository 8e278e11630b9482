"""A bundle's model in an engine."""

from importlib.util import find_spec

from veloxseg.bundle.format import Precision
from veloxseg.bundle.reading import Bundle
from veloxseg.errors import BundleError, VeloxSegError
from veloxseg.runtime.backends.backend import BACKENDS, Backend, BackendName, Execution

_INSTALL = {
    "openvino": "pip install openvino",
    "onnxruntime": "pip install onnxruntime",
    "torch": 'pip install "veloxseg[train]"',
}


def installed_backends() -> tuple[BackendName, ...]:
    """Engines that can be used here."""
    return tuple(name for name in BACKENDS if _is_installed(name))


def _is_installed(name: BackendName) -> bool:
    modules = ("torch", "safetensors") if name == "torch" else (name,)  # the weights' format
    return all(find_spec(module) is not None for module in modules)


def supported_precisions(bundle: Bundle, backend: BackendName) -> tuple[Precision, ...]:
    """Arithmetic that an engine can be asked for with the files that a bundle has.

    ``bf16`` and ``fp16`` are arithmetic for OpenVINO alone; the other engines compute such files in
    float32, and PyTorch computes from the weights, in float32.
    """
    if backend == "torch":
        return ("float32",)
    return tuple(p for p in bundle.precisions if backend == "openvino" or p in ("float32", "int8"))


def require_supported(bundle: Bundle, backend: BackendName, precision: Precision) -> None:
    """Make sure that an engine can be asked for a precision.

    Raises:
        VeloxSegError: the engine is not installed, or does not know the precision.
        BundleError: the bundle has no model of the precision.
    """
    if not _is_installed(backend):
        raise VeloxSegError(
            f"The backend {backend} is not installed. Install it: {_INSTALL[backend]}; or choose "
            f"another: --backend {' or '.join(installed_backends())}"
        )
    supported = supported_precisions(bundle, backend)
    if precision not in supported:
        raise BundleError(
            f"{bundle.path}: no {precision} with {backend}, only {', '.join(supported)}. "
            f"Choose one of them, or export it: veloxseg export ... --precision {precision}"
        )


def open_backend(
    bundle: Bundle, execution: Execution, *, device: str = "auto", relative: bool = True
) -> Backend:
    """Put a bundle's model into an engine.

    Args:
        bundle: The model.
        execution: Engine, precision, threads and batch.
        device: ``auto``, ``cpu`` or ``cuda``, for the engines that know GPUs.
        relative: The engine may leave out the background's logits and subtract them from the
            others, which changes no mask and saves a class of work.

    Raises:
        VeloxSegError: the engine is not installed, or does not know the precision.
        BundleError: the bundle has no model of the precision.
    """
    name = execution.backend
    require_supported(bundle, name, execution.precision)
    if device == "cuda" and name == "openvino":
        raise VeloxSegError(
            "--device cuda: OpenVINO computes on the processor. Choose an engine that knows GPUs: "
            "--backend onnxruntime or torch"
        )
    if name == "torch":
        from veloxseg.runtime.backends.torch_backend import TorchBackend

        return TorchBackend(bundle, threads=execution.threads, device=device)
    model = bundle.read_model(execution.precision)
    if name == "onnxruntime":
        from veloxseg.runtime.backends.onnxruntime_backend import ONNXRuntimeBackend

        return ONNXRuntimeBackend(model, threads=execution.threads, device=device)
    from veloxseg.runtime.backends.openvino_backend import OpenVINOBackend

    return OpenVINOBackend(
        model,
        precision=execution.precision,
        threads=execution.threads,
        batch=execution.batch,
        relative=relative and not bundle.pipeline.has_regions,
    )
