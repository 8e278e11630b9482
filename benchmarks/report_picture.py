"""A picture of a report for the documentation: the upper part of its page in a headless browser.

    python benchmarks/report_picture.py SUMMARY OUTPUT.png [--images imagesTr] [--channel N ...]
        [--title TEXT] [--height 2240] [--width 1180]

SUMMARY is what ``veloxseg evaluate -o`` wrote; its masks must still be there. Needs Chromium or
Chrome on PATH, and Pillow.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from veloxseg.evaluation.report.page import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 300_000


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
    parser.add_argument("--height", type=int, default=2240)
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
    """Fewer colours where the file would be too large."""
    image = Image.open(picture).convert("RGB")
    image.save(output, optimize=True)
    for num_colours in (256, 128, 64):
        if output.stat().st_size <= MOST_BYTES:
            return
        image.quantize(num_colours).save(output, optimize=True)


if __name__ == "__main__":
    main()
