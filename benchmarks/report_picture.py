"""A picture of a report for the documentation: the upper part of its page in a headless browser.

    python benchmarks/report_picture.py SUMMARY OUTPUT.png [--images imagesTr] [--channel N ...]
        [--title TEXT] [--height 2140] [--width 1180]

SUMMARY is what ``veloxseg evaluate -o`` wrote; its masks must still be there. Needs Chromium or
Chrome on PATH, and Pillow.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from veloxseg.evaluation.report.page import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 300_000
LEAST_COLOUR = 12


def main() -> None:
    """Write the page and picture it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("summary", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--channel", type=int, action="append")
    parser.add_argument("--title")
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=2140)
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"No browser on PATH; looked for {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(
            arguments.summary,
            Path(folder) / "report.html",
            images=arguments.images,
            channels=arguments.channel,
            title=arguments.title,
        )
        picture = take_picture(browser, page, arguments)
        save_small(picture, arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")


def take_picture(browser: str, page: Path, arguments: argparse.Namespace) -> Path:
    """Open a page in the browser and picture its upper part."""
    picture = page.with_suffix(".png")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'browser'}",
        f"--window-size={arguments.width},{arguments.height}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return picture


def save_small(picture: Path, output: Path) -> None:
    """With fewer colours where the file would be too large, and then smaller."""
    image = Image.open(picture).convert("RGB")
    image.save(output, optimize=True)
    for scale in (1, 0.9, 0.8, 0.7):
        if output.stat().st_size <= MOST_BYTES:
            return
        size = (round(scale * image.width), round(scale * image.height))
        small = image.resize(size, Image.Resampling.LANCZOS)
        reduce_colours(small).save(output, optimize=True)


def reduce_colours(image: Image.Image) -> Image.Image:
    """128 even greys and up to 128 colours, which greys would leave no room for otherwise."""
    pixels = np.asarray(image).astype(int)
    coloured = np.ptp(pixels, axis=-1) > LEAST_COLOUR
    indices = np.round(pixels.mean(-1) * 127 / 255).astype(np.uint8)
    colours = Image.fromarray(pixels[coloured][None].astype(np.uint8)).quantize(128)
    indices[coloured] = 128 + np.asarray(colours)[0]
    reduced = Image.fromarray(indices, mode="P")
    greys = [round(grey * 255 / 127) for grey in range(128) for _ in range(3)]
    reduced.putpalette([*greys, *(colours.getpalette() or [])])
    return reduced


if __name__ == "__main__":
    main()
