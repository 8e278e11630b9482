"""Parameters and multiply-adds of the published sizes.

    python benchmarks/model_size.py

Multiply-adds are PyTorch's own count of matrix products and convolutions (half its FLOPs) for one
patch through the bare network in evaluation. Prints a Markdown table.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from veloxseg.network.published import load_published

SIZES = {
    "PET/CT, 96x96x96": {"in_ch": [1, 1], "n_classes": 2, "input_size": [96, 96, 96]},
    "HECKTOR, 128x128x64": {
        "in_ch": [1, 1],
        "n_classes": 2,
        "input_size": [128, 128, 64],
        "min_big_window_sizes": [[4, 4, 2], [8, 8, 4], [4, 4, 2], [4, 4, 2]],
    },
    "BraTS, 96x96x96": {"in_ch": [4], "n_classes": 4, "input_size": [96, 96, 96]},
}


def main() -> None:
    """Count and print."""
    print("| size | parameters | with training-only modules | multiply-adds |")
    print("| --- | --- | --- | --- |")
    for name, sizes in SIZES.items():
        model = load_published({**sizes, "depths": [1, 1, 1, 1]}).eval()
        image = torch.randn(1, sum(sizes["in_ch"]), *sizes["input_size"])
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.network(image)
        bare, whole = (
            sum(p.numel() for p in module.parameters()) / 1e6 for module in (model.network, model)
        )
        multiply_adds = counter.get_total_flops() / 2e9
        print(f"| {name} | {bare:.2f} M | {whole:.2f} M | {multiply_adds:.2f} G |")


if __name__ == "__main__":
    main()
