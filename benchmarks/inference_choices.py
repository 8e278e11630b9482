"""What larger tiles, less overlap and smaller precisions do to Dice and time on labelled cases.

    python benchmarks/inference_choices.py BUNDLE RAW_DATASET SPLITS.json --fold 0 \
        --tiles 1x1x1 2x1x1 2x2x2 --overlaps 0.5 0.25 --precisions float32 bf16

Tiles are multiples (z, y, x) of the trained patch, computed with the same weights: windows tile the
larger grid, instance norms see more. The cases are those that the fold was validated on.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from statistics import mean
from time import perf_counter

import numpy as np
from safetensors.numpy import load as load_weights

from veloxseg.bundle.format import NETWORK, PIPELINE, WEIGHTS, Precision
from veloxseg.bundle.graph import network_graph
from veloxseg.bundle.precision import store_in_16_bits
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.bundle.weights import split_folds
from veloxseg.bundle.writing import write_bundle
from veloxseg.evaluation.metrics import dice
from veloxseg.network.config import NetworkConfig
from veloxseg.runtime.model import load
from veloxseg.volumes.reading import read_volume


def main() -> None:
    """Print one row for each choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path, help="nnU-Net raw dataset with the cases' labels")
    parser.add_argument("splits", type=Path, help="splits_final.json")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--tiles", nargs="+", default=["1x1x1"])
    parser.add_argument("--overlaps", nargs="+", type=float, default=[0.5])
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    cases = json.loads(options.splits.read_text())[options.fold]["val"]
    print("| tile | overlap | precision | mean Dice | tiles a case | seconds a case | network |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    bundle = open_bundle(options.bundle)
    for tile in options.tiles:
        with tempfile.TemporaryDirectory() as folder:
            larger = _with_tile(bundle, tile, Path(folder) / "larger.veloxseg")
            for overlap, precision in itertools.product(options.overlaps, options.precisions):
                row = _measure(larger, options.dataset, cases, overlap, precision, options.threads)
                print(f"| {tile} | {overlap:g} | {precision} | {row} |", flush=True)


def _with_tile(bundle: Bundle, tile: str, path: Path) -> Path:
    """The same weights for a patch of so many trained ones along each axis."""
    times = [int(n) for n in tile.split("x")]
    config = NetworkConfig(**json.loads(bundle.read(NETWORK)))
    z, y, x = (n * size for n, size in zip(times, config.patch_size, strict=True))
    folds = split_folds(load_weights(bundle.read(WEIGHTS)))
    graph = network_graph(config, folds, patch_size=(z, y, x))
    pipeline = bundle.pipeline.model_copy(update={"patch_size": (z, y, x)})
    files = {
        PIPELINE: pipeline.model_dump_json().encode(),
        "model.onnx": graph.SerializeToString(),
        "model.bf16.onnx": store_in_16_bits(graph, "bf16").SerializeToString(),
        NETWORK: bundle.read(NETWORK),
    }
    write_bundle(path, files, bundle.manifest.model_copy(update={"verification": {}}))
    return path


def _measure(
    bundle: Path,
    dataset: Path,
    cases: list[str],
    overlap: float,
    precision: Precision,
    threads: int | None,
) -> str:
    model = load(bundle, backend="openvino", precision=precision, threads=threads)
    scores, seconds, network, tiles = [], [], [], []
    for number, case in enumerate([cases[0], *cases]):  # the first one twice, to warm up
        images = sorted((dataset / "imagesTr").glob(f"{case}_????.nii.gz"))
        started = perf_counter()
        found = model.predict(images, overlap=overlap)
        if number == 0:
            continue
        seconds.append(perf_counter() - started)
        network.append(found.timings["network"])
        tiles.append(found.num_tiles)
        truth = read_volume(dataset / "labelsTr" / f"{case}.nii.gz").data
        values = [v if isinstance(v, tuple) else (v,) for v in found.labels.values()]
        scores += [dice(np.isin(found.mask, v), np.isin(truth, v)) for v in values]
    means = (mean(tiles), mean(seconds), mean(network))
    return f"{np.nanmean(scores):.4f} | {means[0]:.1f} | {means[1]:.2f} | {means[2]:.2f}"


if __name__ == "__main__":
    main()
