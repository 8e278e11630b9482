"""A bundle, ready to segment: image to mask."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Pipeline, Precision
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.installation import num_cores
from veloxseg.models.finding import resolve_model
from veloxseg.runtime.backends.backend import Backend, BackendName
from veloxseg.runtime.backends.opening import open_backend
from veloxseg.runtime.case import CaseImages, Image, read_case
from veloxseg.runtime.labelling import label_case
from veloxseg.runtime.memory import estimate_bytes, require_memory
from veloxseg.runtime.postprocessing import postprocess_mask
from veloxseg.runtime.preprocessing import preprocess_volumes
from veloxseg.runtime.segmentation import Segmentation
from veloxseg.runtime.speed import Choice, choose_execution
from veloxseg.runtime.tiling import Run
from veloxseg.volumes.orientation import from_ras
from veloxseg.volumes.volume import Grid

_Voxel = TypeVar("_Voxel", bound=np.generic)


def load(
    bundle: Path | str,
    *,
    backend: BackendName | None = None,
    precision: Precision = "float32",
    threads: int | None = None,
    device: str = "auto",
    num_patches: int | None = None,
) -> "Model":
    """Load a bundle for prediction.

    Args:
        bundle: Its folder or zip, or the name of a model that ``veloxseg models`` lists.
        backend: The engine; None takes the one that is fastest here for that many patches.
        precision: Of the arithmetic; an engine in float32 gives one mask anywhere.
        threads: Threads to compute with; None: one for each core.
        device: ``auto``, ``cpu`` or ``cuda``, for the engines that know GPUs.
        num_patches: How many patches are to come, for the choice of the engine; None: many.

    Raises:
        BundleError: there is none, it is not what its manifest says, or has no such precision.
        VeloxSegError: the engine is not installed.
    """
    opened = open_bundle(resolve_model(bundle))
    choice = choose_execution(
        opened,
        backend=backend,
        precision=precision,
        threads=threads or num_cores(),
        num_patches=num_patches,
    )
    return Model(opened, choice, device=device)


class Model:
    """A bundle in an engine, which starts with the first case; threads may share it.

    Attributes:
        bundle: The model's files.
        choice: Engine, threads and batch, and why.
    """

    def __init__(self, bundle: Bundle, choice: Choice, *, device: str = "auto") -> None:
        self.bundle, self.choice = bundle, choice
        self._device = device
        self._engine: Backend | None = None
        self._loading: Future[Backend] | None = None
        self._lock = Lock()

    @property
    def pipeline(self) -> Pipeline:
        """Channels, labels and geometry."""
        return self.bundle.pipeline

    def predict(
        self,
        images: Image | Sequence[Image | None] | Mapping[str, Image | None],
        *,
        overlap: float | None = None,
        mirroring: bool | None = None,
        probabilities: bool = False,
        postprocessing: bool = True,
        max_memory_gb: float | None = None,
        on_tiles: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Segment a case.

        Args:
            images: A file or volume; or one for each channel in the model's order, or by the
                channel's name: ``{"CT": "ct.nii.gz"}``. An optional channel may be None, and by
                name also left out.
            overlap: Share of a patch that the next one covers too; None: the bundle's.
            mirroring: Average over mirrored patches, up to eight times the work; None: as the
                bundle says.
            probabilities: Keep them too; postprocessing does not change them.
            postprocessing: Take the bundle's steps; else the mask is what the network says.
            max_memory_gb: Refuse what would need more, before the images are brought to the grid.
            on_tiles: Told (tiles done, tiles in all).

        Raises:
            DatasetError: wrong number of images, an unknown channel, a missing one that is not
                optional, or values that are not finite.
            ImageReadError: a file cannot be read.
            GeometryError: the images lie on different grids.
            VeloxSegError: more memory would be needed than allowed.
        """
        clock = _Clock()
        self._begin_loading()
        case = read_case(images, self.pipeline)
        grid, source = case.grid, case.source
        clock.lap("read")
        self._require_memory(case, max_memory_gb, probabilities=probabilities)
        prepared = preprocess_volumes(case.channels, self.pipeline)
        del case  # the images' memory
        clock.lap("preprocess")
        engine = self._start()
        clock.lap("load")
        network, tiles = _Timed(engine.run), _Count(on_tiles)
        pipeline = self.pipeline
        if overlap is not None:
            pipeline = pipeline.model_copy(update={"overlap": overlap})
        with self._lock:  # the engine's memory serves one case at a time
            labelling = label_case(
                prepared,
                engine,
                pipeline,
                run=network,
                batch=self.choice.execution.batch,
                mirroring=pipeline.mirroring if mirroring is None else mirroring,
                probabilities=probabilities,
                on_tiles=tiles,
            )
        mask = self._turn_back(labelling.mask, grid)
        if postprocessing:
            mask = postprocess_mask(mask, pipeline.postprocessing, spacing_zyx=grid.spacing_zyx)
        clock.lap("postprocess")
        clock.move("postprocess", "network", network.seconds)
        return Segmentation(
            mask=mask,
            grid=grid,
            labels=dict(self.pipeline.foreground),
            probabilities=None
            if labelling.probabilities is None
            else self._turn_back(labelling.probabilities, grid),
            timings=clock.seconds,
            num_tiles=tiles.total,
            source=source,
        )

    def _require_memory(
        self, case: CaseImages, limit_gb: float | None, *, probabilities: bool
    ) -> None:
        estimate = estimate_bytes(
            case.grid.size_zyx,
            case.grid.spacing_zyx,
            self.pipeline,
            batch=self.choice.execution.batch,
            probabilities=probabilities,
        )
        require_memory(estimate, limit_gb, what=case.name)

    def _turn_back(self, voxels: npt.NDArray[_Voxel], grid: Grid) -> npt.NDArray[_Voxel]:
        if self.pipeline.orientation == "ras":
            voxels = np.ascontiguousarray(from_ras(voxels, grid))
        return voxels

    def _begin_loading(self) -> None:
        """Let the engine compile the network while images are read."""
        with self._lock:
            if self._engine is None and self._loading is None:
                pool = ThreadPoolExecutor(max_workers=1)
                self._loading = pool.submit(self._open)
                pool.shutdown(wait=False)

    def _start(self) -> Backend:
        with self._lock:
            if self._engine is None:
                loading, self._loading = self._loading, None
                self._engine = self._open() if loading is None else loading.result()
            return self._engine

    def _open(self) -> Backend:
        return open_backend(
            self.bundle,
            self.choice.execution,
            device=self._device,
            # Splines are clipped to the range of logits as they are.
            relative=self.pipeline.logits_resampling.order <= 1,
        )


class _Clock:
    """Seconds of successive stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        self.seconds[source] -= seconds
        self.seconds[target] = seconds


class _Timed:
    """The network, and the seconds it took."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.seconds = 0.0

    def __call__(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        started = perf_counter()
        logits = self._run(patches)
        self.seconds += perf_counter() - started
        return logits


class _Count:
    """How many tiles there are, told on to whoever listens."""

    def __init__(self, listener: Callable[[int, int], None] | None) -> None:
        self._listener = listener
        self.total = 0

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        if self._listener is not None:
            self._listener(done, total)
