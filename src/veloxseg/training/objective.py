"""The learning objective: segmentation, reconstruction and Gram-matrix knowledge transfer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from veloxseg.errors import PlanError
from veloxseg.network import TrainingOutput


class ObjectiveTerms(NamedTuple):
    """The terms of the objective, unweighted scalars, and their weighted sum."""

    total: Tensor
    segmentation: Tensor
    reconstruction: Tensor
    sdkt: Tensor


class Objective(nn.Module):
    """L = L_seg + 0.5 · L_rec + 2.0 · L_sdkt.

    - L_seg = Σ_l w_l (CE + soft Dice) over the heads, w_l = 2^−l / Σ 2^−l, each with the target on
      its own grid; cross entropy (binary for regions) and Dice are nnU-Net's own, and so is what
      they make of an ignore label.
    - L_rec: mean over modalities of the mean squared error of its reconstruction.
    - L_sdkt: sum over modalities of ||Gram(teacher) − Gram(student)||² (Frobenius: a sum over the
      C × C entries), mean over the batch.

    All terms are computed in float32, whatever precision the outputs come in. Of an output without
    teachers L_rec and L_sdkt are 0.

    Args:
        in_channels: Input channels of each modality.
        num_heads: Number of segmentation heads (the output and the deep supervision).
        regions: Targets are binary maps, one channel a region (then the ignore mask, if any).
        ignore_label: The label to leave out of L_seg, or None. With regions, any value says that
            the target's last channel is the mask of ignored voxels.
        batch_dice: Dice over the batch as one volume; per sample when False, as published.
        ddp: Gather the batch Dice over processes.
        reconstruction_weight: Weight of L_rec.
        sdkt_weight: Weight of L_sdkt.
        head_weights: Weight of each head, normalised to a sum of 1; None: 2^−l.
        detach_teachers: Let L_sdkt move the student alone; off, as published.

    Raises:
        PlanError: there is not one weight for each head.

    Source: VeloxSeg (ICLR 2026).
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_heads: int,
        regions: bool = False,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        ddp: bool = False,
        reconstruction_weight: float = 0.5,
        sdkt_weight: float = 2.0,
        head_weights: Sequence[float] | None = None,
        detach_teachers: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.reconstruction_weight, self.sdkt_weight = reconstruction_weight, sdkt_weight
        self.detach_teachers = detach_teachers
        weights = head_weights or [2.0**-level for level in range(num_heads)]
        if len(weights) != num_heads or sum(weights) <= 0:
            raise PlanError(
                f"The plan's head_weights are {list(weights)}: expected {num_heads} numbers, one "
                "for each segmentation head from fine to coarse, of a positive sum."
            )
        self.head_weights = tuple(weight / sum(weights) for weight in weights)
        dice = {"batch_dice": batch_dice, "do_bg": regions, "smooth": 1e-5, "ddp": ddp}
        if regions:
            self.segmentation_loss = DC_and_BCE_loss(
                {},
                dice,
                use_ignore_label=ignore_label is not None,
                dice_class=MemoryEfficientSoftDiceLoss,
            )
        else:
            self.segmentation_loss = DC_and_CE_loss(
                dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss
            )

    def forward(
        self, output: TrainingOutput, targets: Sequence[Tensor], image: Tensor
    ) -> ObjectiveTerms:
        """Compute the objective.

        Args:
            output: The model's output for ``image``.
            targets: One target a head on its grid, (B, 1, Z, Y, X) labels or (B, regions [+ 1
                ignore mask], Z, Y, X).
            image: The input (B, sum(in_channels), Z, Y, X).
        """
        with torch.autocast(image.device.type, enabled=False):
            segmentation = self.segmentation(output.logits, targets)
            if output.reconstruction is None or output.student_gram is None:
                nothing = torch.zeros_like(segmentation)
                return ObjectiveTerms(segmentation, segmentation, nothing, nothing)
            reconstruction = self.reconstruction(output.reconstruction, image)
            sdkt = self.sdkt(output.student_gram, output.teacher_grams)
            total = (
                segmentation + self.reconstruction_weight * reconstruction + self.sdkt_weight * sdkt
            )
        return ObjectiveTerms(total, segmentation, reconstruction, sdkt)

    def segmentation(self, logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """L_seg, the weighted sum over the heads."""
        terms = [
            weight * self.segmentation_loss(head.float(), target)
            for weight, head, target in zip(self.head_weights, logits, targets, strict=True)
        ]
        return torch.stack(terms).sum()

    def reconstruction(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """L_rec, with both tensors (B, sum(in_channels), Z, Y, X)."""
        pairs = zip(
            reconstruction.float().split(self.in_channels, dim=1),
            image.float().split(self.in_channels, dim=1),
            strict=True,
        )
        return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).mean()

    def sdkt(self, student: Tensor, teachers: Sequence[Tensor]) -> Tensor:
        """L_sdkt of Gram matrices (B, C, C)."""
        if self.detach_teachers:
            teachers = [teacher.detach() for teacher in teachers]
        # A sum over the entries: a mean would make the term 256 times weaker at C = 16.
        distances = [(teacher - student).square().sum((1, 2)) for teacher in teachers]
        return torch.stack(distances).sum(0).mean()
