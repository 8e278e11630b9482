"""From the network's input to labels on the source image: tiles, engine and mask as one step."""

from collections.abc import Callable

from veloxseg.bundle.format import Pipeline
from veloxseg.runtime.backends.backend import Backend
from veloxseg.runtime.mask import Labelling, segment
from veloxseg.runtime.preprocessing import Preprocessed
from veloxseg.runtime.tiling import Run, absent_logits, mirrored, slide


def label_case(
    prepared: Preprocessed,
    engine: Backend,
    pipeline: Pipeline,
    *,
    run: Run | None = None,
    batch: int = 1,
    mirroring: bool = False,
    probabilities: bool = False,
    on_tiles: Callable[[int, int], None] | None = None,
) -> Labelling:
    """Run the network over a case's tiles and write the mask that its logits make.

    Args:
        prepared: The case on the network's grid.
        engine: The network.
        pipeline: Patch, overlap, labels and the way back.
        run: Called in the engine's place, as to time it.
        batch: Tiles in one run.
        mirroring: Average over mirrored tiles.
        probabilities: Keep them too.
        on_tiles: Told (tiles done, tiles in all).
    """
    run = run or engine.run
    slabs = slide(
        prepared.data,
        mirrored(run, pipeline.mirror_axes) if mirroring else run,
        patch_size=pipeline.patch_size,
        overlap=pipeline.overlap,
        absent=absent_logits(pipeline, relative=engine.relative),
        batch_size=batch,
        occupancy=prepared.occupancy,
        on_tiles=on_tiles,
    )
    return segment(
        slabs,
        placement=prepared.placement,
        pipeline=pipeline,
        relative=engine.relative,
        with_probabilities=probabilities,
    )
