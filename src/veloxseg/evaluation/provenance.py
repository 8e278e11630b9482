"""How an evaluation was made: by which versions, from which files, when."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The bundle that made the masks.

    Attributes:
        name: The model's name, as its manifest has it.
        sha256: Of ``model.onnx``, the float32 model, as its manifest has it.
        path: The bundle that was read.
    """

    name: str
    sha256: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How an evaluation was made.

    Attributes:
        created: Date and time, ISO 8601, UTC.
        command: What was typed; None from Python.
        versions: Of VeloxSeg, Python and the packages that computed the figures.
        methods: Each method's name to the folder of its masks, the evaluated one first.
        reference: Folder of the references.
        tolerance_mm: Of the normalised surface Dice.
        resample: Whether predictions on other grids were brought onto their references'.
        model: That made the masks; None where nobody said.
    """

    created: str
    command: str | None
    versions: Mapping[str, str]
    methods: Mapping[str, str]
    reference: str
    tolerance_mm: float
    resample: bool
    model: ModelRecord | None

    def to_json(self) -> dict[str, Any]:
        """As JSON; ``prediction`` is the folder of the method evaluated."""
        return {**asdict(self), "prediction": next(iter(self.methods.values()))}
