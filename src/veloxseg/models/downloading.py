"""A file from the web, whole or not at all."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from veloxseg.atomic import atomic_path
from veloxseg.errors import BundleError

LARGEST_DOWNLOAD_BYTES = 1 << 30
"""What a bundle may weigh that comes from elsewhere; ours are some MB."""

TIMEOUT_SECONDS = 30.0
"""How long a server may be silent."""

_CHUNK_BYTES = 1 << 18
_SCHEMES = ("http://", "https://")


def is_url(text: str) -> bool:
    """Whether something is to be downloaded rather than found on the disk."""
    return text.lower().startswith(_SCHEMES)


def download(
    url: str,
    file: Path,
    *,
    max_bytes: int = LARGEST_DOWNLOAD_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Download a file over HTTP(S).

    Redirections are followed to other HTTP(S) addresses, never from HTTPS to plain HTTP.

    Args:
        url: ``http://`` or ``https://``; spaces and letters beyond ASCII are encoded.
        file: Where to write it.
        max_bytes: More is refused.
        timeout_seconds: How long the server may be silent.
        progress: Told (bytes done, bytes in all), where the server says how many there are.

    Returns:
        ``file``.

    Raises:
        BundleError: the server cannot be reached, is silent, answers with an error or a file that
            is too large, or breaks off; nothing is left of the file.
        OSError: the file cannot be written.
    """
    try:
        answer = _opener().open(_encoded(url), timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        raise BundleError(
            f"{url}: the server answered {error.code} {error.reason}. Check the address."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from error
    with answer, atomic_path(file) as temporary, temporary.open("wb") as target:
        total = _length(answer)
        _require_size(url, total or 0, max_bytes)
        done = 0
        while chunk := _read(url, answer):
            done += len(chunk)
            _require_size(url, done, max_bytes)
            target.write(chunk)
            if progress is not None and total:
                progress(done, total)
        if total is not None and done != total:
            raise BundleError(
                f"{url}: broke off after {done} of {total} bytes. Try again, or download it by "
                "other means and give the file."
            )
    return file


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Never from HTTPS to HTTP: what is changed on the way would not be noticed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        if not is_url(newurl) or (req.type == "https" and newurl.lower().startswith("http:")):
            raise BundleError(
                f"{req.full_url}: sends on to {newurl}, which is not protected as the address is. "
                "Expected HTTPS all the way. Check the address."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Only HTTP and HTTPS: urllib's own opener would also read local files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirections(),
    ):
        opener.add_handler(handler)
    return opener


def _encoded(url: str) -> str:
    """As it is sent: of what is encoded already nothing is changed."""
    parts = urlsplit(url)
    path, query = (quote(part, safe="%/:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def _length(answer: Any) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _read(url: str, answer: Any) -> bytes:
    try:
        chunk: bytes = answer.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error
    return chunk


def _unreachable(url: str, error: BaseException) -> BundleError:
    reason = getattr(error, "reason", None) or error
    return BundleError(
        f"{url}: cannot be downloaded ({reason}). Check the address and the network, or download "
        "it by other means and give the file."
    )


def _require_size(url: str, num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise BundleError(
            f"{url}: more than {max_bytes / 2**20:.0f} MiB. Expected a bundle, which is some MB. "
            "If it is one, download it by other means and give the file."
        )
