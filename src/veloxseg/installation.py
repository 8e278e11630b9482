"""What is installed on this machine, and what is missing."""

import os
import platform
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from veloxseg.errors import VeloxSegError

INSTALL_TRAINING = 'pip install "veloxseg[train]"'
INSTALL_IMAGES = 'pip install "veloxseg[images]"'
INSTALL_EVALUATION = 'pip install "veloxseg[evaluation]"'
INSTALL_DEMO = 'pip install "veloxseg[demo]"'
_BASE = ("veloxseg", "numpy", "nibabel", "openvino", "onnxruntime")
_TRAINING = ("torch", "nnunetv2", "SimpleITK", "scipy", "safetensors", "onnx", "matplotlib")
_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What `veloxseg info` shows.

    Attributes:
        versions: Version of each package; None where it is not installed.
        python: Version of Python.
        system: Operating system and processor.
        num_cores: Cores that this process may use.
        num_threads: Threads that PyTorch computes with; None without PyTorch.
        devices: What networks can be trained on, as ``--device`` names it and in words.
        folders: nnU-Net's environment variables; None where one is not set.
    """

    versions: dict[str, str | None]
    python: str
    system: str
    num_cores: int
    num_threads: int | None
    devices: dict[str, str]
    folders: dict[str, str | None]

    @property
    def missing(self) -> list[str]:
        """Packages that training needs and that are not installed."""
        return [name for name in _TRAINING if self.versions[name] is None]


def inspect_installation() -> Installation:
    """Look at this machine; imports PyTorch if it is there."""
    num_threads, devices = _torch_devices()
    return Installation(
        versions={name: _version(name) for name in (*_BASE, *_TRAINING)},
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        num_cores=num_cores(),
        num_threads=num_threads,
        devices=devices,
        folders={name: os.environ.get(name) for name in _VARIABLES},
    )


def extension_folder() -> Path:
    """The folder to put into ``nnUNet_extTrainer``, so that nnU-Net finds ``VeloxSegTrainer``."""
    return Path(__file__).resolve().parent / "training" / "extension"


def require_training() -> None:
    """Make sure that what planning and training need is installed.

    Raises:
        VeloxSegError: it is not.
    """
    require_packages(*_TRAINING, install=INSTALL_TRAINING)


def require_packages(*names: str, install: str) -> None:
    """Make sure that packages are there that a plain install is without.

    Args:
        names: Of the packages, as they are imported.
        install: The command that installs them.

    Raises:
        VeloxSegError: one is missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise VeloxSegError(
            f"This needs {', '.join(missing)}, not installed here. Install: {install}"
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def module_version(name: str) -> str:
    """Version of an installed module; its package may have another name, as onnxruntime-gpu."""
    try:
        return version(name)
    except PackageNotFoundError:
        return str(getattr(import_module(name), "__version__", "unknown"))


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _torch_devices() -> tuple[int | None, dict[str, str]]:
    if find_spec("torch") is None:
        return None, {}
    import torch

    devices = {"cpu": platform.processor() or platform.machine()}
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        devices["cuda"] = ", ".join(names)
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return torch.get_num_threads(), devices
