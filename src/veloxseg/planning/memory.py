"""How much memory a training step takes, predicted from the sizes of a network alone.

A step (forward, objective, backward, clipped AdamW; float32 on a CPU) holds at its peak

    process + counted + HOLES · kept        GB of 2³⁰ bytes

- *counted* is the sum of ``MemoryTerms``: the weights four times (values, gradients, AdamW's two
  moments), images, logits, targets and losses per voxel, and what autograd *keeps* of the features
  for the backward pass. It is arithmetic on the network's sizes, with nothing fitted.
- ``PROCESS_GB`` is the process itself: Python, PyTorch, nnU-Net, and what the first step loads.
- ``HOLES`` is what a process holds beyond that, of every byte kept: passing tensors of the forward
  and backward pass, and the holes that they leave in the C library's heap.

The two constants are a non-negative least squares fit of the relative error to the peaks of 38
training steps, another 18 held out, which ``benchmarks/memory_model.py`` measures and
``benchmarks/memory_model.json`` keeps: 16³ to 160³ voxels, stems 1 to 4, widths 8 to 64, batches
1 to 4, up to 6 GB. Not part of it: loading and augmenting data, whole-case validation, regions.
Nothing was measured on a GPU, where half precision and another allocator make it less.
"""

import math
from dataclasses import dataclass

from veloxseg.network.config import NetworkConfig

GIB = 2**30
"""One GB, here and in all of this module: 2³⁰ bytes."""

PROCESS_GB = 0.76
"""Fitted; of it 0.54 GB are there when everything is imported. x86-64 Linux, PyTorch 2.14."""

HOLES = 0.86
"""Fitted; near 0 where the C library maps every tensor (MALLOC_TOP_PAD_=0), which is slower."""

_FLOAT = 4
_LONG = 8


@dataclass(frozen=True, kw_only=True)
class MemoryTerms:
    """What a training step holds, in GB of 2³⁰ bytes, by how it grows.

    Attributes:
        parameters: Weights, gradients and AdamW's two moments.
        images: Images and reconstructions, per voxel.
        classes: Logits, targets and what the segmentation's losses keep, per voxel and class.
        features: Kept by both streams of the encoder and the segmentation decoder, per position.
        windows: Kept by the attention in windows: tokens, matrices, their spread over positions.
        teachers: Kept by the reconstruction decoders, per position.
    """

    parameters: float
    images: float
    classes: float
    features: float
    windows: float
    teachers: float

    @property
    def kept(self) -> float:
        """What autograd keeps of the features of all grids."""
        return self.features + self.windows + self.teachers

    @property
    def counted(self) -> float:
        """The sum of all terms."""
        return self.parameters + self.images + self.classes + self.kept


def training_memory_gb(network: NetworkConfig, *, batch_size: int, teachers: bool = True) -> float:
    """Peak memory of one training step on a CPU, predicted, in GB of 2³⁰ bytes.

    Args:
        network: Sizes of the network.
        batch_size: Patches in a batch.
        teachers: Whether the reconstruction decoders are trained too.

    Raises:
        ValueError: the batch is empty.
    """
    terms = memory_terms(network, batch_size=batch_size, teachers=teachers)
    return PROCESS_GB + terms.counted + HOLES * terms.kept


def memory_terms(network: NetworkConfig, *, batch_size: int, teachers: bool = True) -> MemoryTerms:
    """What a training step holds, by how it grows, before any fitted constant.

    Args:
        network: Sizes of the network.
        batch_size: Patches in a batch.
        teachers: Whether the reconstruction decoders are trained too.

    Raises:
        ValueError: the batch is empty.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size is {batch_size}: expected at least 1.")
    stages = range(network.num_stages)
    patch = batch_size / GIB
    taught = network.num_modalities if teachers else 0
    return MemoryTerms(
        parameters=4 * _FLOAT * count_training_parameters(network, teachers=teachers) / GIB,
        images=patch * _image_bytes(network, teachers=teachers),
        classes=patch * _class_bytes(network),
        features=patch * _FLOAT * (_encoder_values(network) + _decoder_values(network)),
        windows=patch * sum(_window_bytes(network, stage) for stage in stages),
        teachers=patch * _FLOAT * taught * _teacher_values(network),
    )


# Per voxel


def _image_bytes(network: NetworkConfig, *, teachers: bool) -> int:
    """The image, its slices by modality, the reconstruction."""
    copies = 1 + (network.num_modalities > 1) + teachers
    return _FLOAT * math.prod(network.patch_size) * sum(network.in_channels) * copies


def _class_bytes(network: NetworkConfig) -> int:
    """Logits, soft Dice's probabilities and one-hot target, log-probabilities; target twice."""
    voxels = math.prod(network.patch_size) + sum(math.prod(grid) for grid in network.grids[1:])
    return voxels * (_FLOAT * 4 * network.num_classes + _FLOAT + _LONG)


# Per position


def _jlc_values(network: NetworkConfig, stage: int) -> int:
    """Kept by the JLC blocks of a stage: input, norms of branches and MLP, the MLP's two sides.

    The first branch's norm, of a convolution without extent, keeps its input beside its output.
    """
    branches = len(network.kernel_sizes)
    norms = 1 + (branches + 1 if branches > 1 else 0)
    copies = 1 + norms + 2 * network.conv_expansion[stage] + (network.conv_dropout > 0)
    positions = math.prod(network.grids[stage])
    return network.conv_depths[stage] * copies * positions * network.conv_channels[stage]


def _encoder_values(network: NetworkConfig) -> int:
    """Per stage the attention, the norms of the way down and of the mixer, blocks and output."""
    return sum(
        3 * math.prod(grid) * network.conv_channels[stage]
        + _jlc_values(network, stage)
        + _attention_values(network, stage)
        for stage, grid in enumerate(network.grids)
    )


def _decoder_values(network: NetworkConfig) -> int:
    """Per stage but the coarsest the norm of the way up, the blocks, the output; a Gram factor."""
    stages = range(network.num_stages - 1)
    features = [math.prod(network.grids[i]) * network.conv_channels[i] for i in stages]
    return sum(2 * features[i] + _jlc_values(network, i) for i in stages) + features[0]


def _teacher_values(network: NetworkConfig) -> int:
    """One teacher's fusions (attention and fused features joined, the norm) and decoder."""
    fusions = sum(
        math.prod(grid) * (network.attention_channels[stage] + 2 * network.conv_channels[stage])
        for stage, grid in enumerate(network.grids)
    )
    return fusions + _decoder_values(network)


def _attention_values(network: NetworkConfig, stage: int) -> int:
    """Norms (input, normalised, affine), the MLP's two sides, the output, the merging's norm."""
    positions = network.num_modalities * math.prod(network.grids[stage])
    channels = network.attention_channels[stage]
    dropped = network.projection_dropout > 0
    block = 6 + 2 * network.attention_expansion[stage]
    block += (2 + network.attention_expansion[stage]) * dropped
    merging = 3 if stage < network.num_stages - 1 else 0
    stem = dropped if stage == 0 else 0
    return positions * channels * (network.attention_depths[stage] * block + 1 + merging + stem)


def _window_bytes(network: NetworkConfig, stage: int) -> int:
    """Tokens, queries, softmax matrices and results of all windows, and what pooling adds."""
    modalities, heads = network.num_modalities, network.num_heads[stage]
    keys, values = network.head_channels[stage], _value_channels(network, stage)
    width = 2 * keys + values
    grid = math.prod(network.grids[stage])
    scales = network.window_scales(stage)
    tokens_of_window = math.prod(scales[0][0]) // math.prod(scales[0][1])
    floats = longs = 0
    for big, small in scales:
        windows = grid // math.prod(big)
        tokens = windows * tokens_of_window * modalities * heads
        floats += tokens * (width + keys)
        matrix = tokens * tokens_of_window * modalities
        floats += matrix * (3 if network.attention_dropout > 0 else 1)
        floats += grid * modalities * heads * values  # spread over the positions
        if math.prod(small) > 1:
            floats += grid * modalities * heads * width  # before the maximum
            longs += tokens * width  # where it was
            floats += tokens * values
    return network.attention_depths[stage] * (_FLOAT * floats + _LONG * longs)


# Weights


def count_training_parameters(network: NetworkConfig, *, teachers: bool = True) -> int:
    """Parameters of the network with its training-only heads and teachers."""
    channels = network.conv_channels
    stages = range(network.num_stages)
    count = sum(_attention_parameters(network, stage) for stage in stages)
    count += _stem_parameters(network) + _decoder_parameters(network)
    for stage in stages:
        mixed = network.num_modalities * network.attention_channels[stage]
        count += (mixed + 1) * channels[stage] + _jlc_parameters(network, stage)
        if stage > 0:
            count += (27 * channels[stage - 1] + 1) * channels[stage]  # down
            count += (channels[stage] + 1) * network.num_classes  # deep supervision
    count += _head_parameters(network, network.num_classes)
    if teachers:
        fusions = sum(
            (a + c + 1) * c for a, c in zip(network.attention_channels, channels, strict=True)
        )
        shared = fusions + _decoder_parameters(network)
        count += sum(shared + _head_parameters(network, c) for c in network.in_channels)
    return count


def _stem_parameters(network: NetworkConfig) -> int:
    kernel = math.prod(2 * s - 1 for s in network.stem_stride)
    convolution = (kernel * sum(network.in_channels) + 1) * network.conv_channels[0]
    cell = math.prod(network.stem_stride)
    attention = sum(cell * c + 1 for c in network.in_channels) * network.attention_channels[0]
    return convolution + attention


def _jlc_parameters(network: NetworkConfig, stage: int) -> int:
    channels, width = network.conv_channels[stage], network.group_widths[stage]
    hidden = channels * network.conv_expansion[stage]
    branches = sum((width * k**3 + 1) * channels for k in network.kernel_sizes)
    mlp = (channels + 1) * hidden + (hidden + 1) * channels
    return network.conv_depths[stage] * (branches + mlp)


def _decoder_parameters(network: NetworkConfig) -> int:
    channels = network.conv_channels
    ups = sum(
        (channels[i + 1] * math.prod(stride) + 1) * channels[i]
        for i, stride in enumerate(network.strides)
    )
    return ups + sum(_jlc_parameters(network, i) for i in range(network.num_stages - 1))


def _head_parameters(network: NetworkConfig, out_channels: int) -> int:
    outputs = out_channels * math.prod(network.stem_stride)
    return (27 * network.conv_channels[0] + 1) * outputs


def _attention_parameters(network: NetworkConfig, stage: int) -> int:
    """The blocks of a stage and the merging behind it."""
    modalities, channels = network.num_modalities, network.attention_channels[stage]
    scales = network.window_scales(stage)
    heads = len(scales) * network.num_heads[stage]
    values = _value_channels(network, stage)
    qkv = (channels + 1) * heads * (2 * network.head_channels[stage] + values)
    output = (heads * values + 1) * channels
    hidden = channels * network.attention_expansion[stage]
    mlp = (channels + 1) * hidden + (hidden + 1) * channels
    tokens = (b // s for b, s in zip(*scales[0], strict=True))
    table = math.prod(2 * n - 1 for n in tokens) * network.num_heads[stage]
    block = modalities * (4 * channels + qkv + output + mlp) + table
    merging = 0
    if stage < network.num_stages - 1:
        merged = channels * math.prod(network.strides[stage])
        merging = modalities * merged * (2 + network.attention_channels[stage + 1])
    return network.attention_depths[stage] * block + merging


def _value_channels(network: NetworkConfig, stage: int) -> int:
    """Channels of a head's values: enough for all heads together to hold the stage's channels."""
    keys = network.head_channels[stage]
    heads = len(network.window_scales(stage)) * network.num_heads[stage]
    return keys * math.ceil(network.attention_channels[stage] / (heads * keys))
