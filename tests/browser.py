"""A headless browser for tests of pages; they skip where none is installed."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def require_browser() -> str:
    """Path of the first browser found on PATH; skips the test without one."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on PATH; looked for {', '.join(_NAMES)}")
    return found


def dump_page(page: Path, folder: Path, *options: str) -> str:
    """The page's document after its script has run, as HTML.

    Args:
        page: HTML file, opened from disk.
        folder: For the browser's own files.
        options: More of the browser's.
    """
    command = [
        require_browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-extensions",
        "--disable-background-networking",
        f"--user-data-dir={folder / 'browser'}",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def run_in_page(page: Path, folder: Path, script: str) -> str:
    """Run a script after the page's own, and give what it returns as text."""
    document = dump_page(add_script(page, folder, script), folder)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', document, re.S)
    assert answer is not None
    return unescape(answer[1])


def add_script(page: Path, folder: Path, script: str) -> Path:
    """A copy of a page with one more script, whose returned value is written to the page's end.

    The page's content policy, which would forbid it, is left out.
    """
    text = page.read_text(encoding="utf-8")
    text, num_policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert num_policies == 1
    runner = f"""<script>
    let answer;
    try {{ answer = String((() => {{ {script} }})()); }} catch (error) {{ answer = String(error); }}
    const place = document.createElement("pre");
    place.id = "answer";
    place.textContent = answer;
    document.body.append(place);
    </script></body>"""
    copy = folder / "copy.html"
    copy.write_text(text.replace("</body>", runner), encoding="utf-8")
    return copy
