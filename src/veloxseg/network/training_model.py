"""What a trainer trains: a bare network, with whatever only its training has."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class TrainingOutput(NamedTuple):
    """Everything the objective needs.

    Attributes:
        logits: One tensor a head, from the full patch to the coarsest grid, each on its own grid:
            (B, num_classes, *patch_size), then (B, num_classes, Z_i, Y_i, X_i) for i = 1, 2, ...
        reconstruction: (B, sum(in_channels), *patch_size), the modalities in input order.
        student_gram: (B, C_0, C_0) float32, of the segmentation decoder's finest features.
        teacher_grams: The same of every modality's reconstruction decoder.

    Without teachers there is no reconstruction and no teacher's Gram matrix; a network of another
    kind has no student's either.
    """

    logits: tuple[Tensor, ...]
    reconstruction: Tensor | None
    student_gram: Tensor | None
    teacher_grams: tuple[Tensor, ...]


class TrainingModel(nn.Module):
    """A bare network and the parts that only its training has.

    The forward returns a ``TrainingOutput`` in training and in evaluation alike.

    Attributes:
        network: The bare network: a patch in, its logits out. Its weights are all that inference
            needs.
    """

    network: nn.Module

    @abstractmethod
    def segment(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of all heads, from the full patch to the coarsest grid."""

    @property
    @abstractmethod
    def in_channels(self) -> tuple[int, ...]:
        """Input channels of each modality that a reconstruction is compared by."""

    @property
    @abstractmethod
    def head_scales(self) -> tuple[tuple[float, ...], ...]:
        """Extent of each head's grid over that of the patch, (z, y, x)."""
