"""Bundles from a server that is honest, wrong, silent, too generous or breaks off."""

import hashlib
import urllib.error
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from veloxseg.errors import BundleError
from veloxseg.models.downloading import _Redirections, download
from veloxseg.models.finding import known_models
from veloxseg.models.installing import bundle_hash, install_model

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


def _sends(content: bytes, *, told: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if told is None else told))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_a_bundle_is_added_from_its_address(serve: Serve, zip_bundle: Path) -> None:
    content = zip_bundle.read_bytes()
    told: list[tuple[int, int]] = []
    model = install_model(
        f"{serve(_sends(content))}/models/liver%2Dct.veloxseg.zip?token=1",
        sha256=hashlib.sha256(content).hexdigest(),
        progress=lambda done, total: told.append((done, total)),
    )
    assert model.name == "liver-ct"
    assert bundle_hash(model.path) == bundle_hash(zip_bundle)
    assert told[-1] == (len(content), len(content))
    assert [path.name for path in model.path.parent.iterdir()] == ["liver-ct.veloxseg"]


def test_an_address_with_spaces_and_letters_beyond_ascii_is_sent_encoded(
    serve: Serve, zip_bundle: Path
) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        _sends(zip_bundle.read_bytes())(handler)

    install_model(f"{serve(answer)}/foie é/my liver%20(2).zip?by=é", name="liver")
    assert asked == ["/foie%20%C3%A9/my%20liver%20(2).zip?by=%C3%A9"]


def test_redirections_are_followed(serve: Serve, tmp_path: Path) -> None:
    target = serve(_sends(b"content"))

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{target}/file")
        handler.end_headers()

    assert download(f"{serve(redirect)}/x", tmp_path / "file").read_bytes() == b"content"


def test_a_redirection_to_a_local_file_is_refused(serve: Serve, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", secret.as_uri())
        handler.end_headers()

    with pytest.raises(BundleError):
        download(f"{serve(redirect)}/x", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_redirection_from_https_to_http_is_refused() -> None:
    from urllib.request import Request

    with pytest.raises(BundleError, match="HTTPS all the way"):
        _Redirections().redirect_request(
            Request("https://a.example/x"), None, 302, "", {}, "http://a.example/x"
        )


def test_what_was_changed_on_the_way_is_refused_by_its_hash(
    serve: Serve, zip_bundle: Path, installed: Path
) -> None:
    url = f"{serve(_sends(zip_bundle.read_bytes()))}/liver.zip"
    with pytest.raises(BundleError, match="it is another file") as told:
        install_model(url, sha256="0" * 64)
    assert url in str(told.value)
    assert ".download-" not in str(told.value)
    assert list(installed.iterdir()) == []


def test_what_is_no_zip_is_refused_by_its_address(serve: Serve, installed: Path) -> None:
    url = f"{serve(_sends(b'<html>Please log in</html>'))}/liver.zip"
    with pytest.raises(BundleError, match=f"{url}: .*no zip"):
        install_model(url)
    assert list(installed.iterdir()) == []


def test_a_missing_file_is_told_with_the_servers_words(serve: Serve) -> None:
    url = serve(lambda handler: handler.send_error(404))
    with pytest.raises(BundleError, match="404 Not Found"):
        install_model(f"{url}/liver.zip")
    assert known_models() == {}


def test_a_download_that_breaks_off_is_refused(
    serve: Serve, zip_bundle: Path, installed: Path
) -> None:
    content = zip_bundle.read_bytes()
    url = serve(_sends(content[:1000], told=len(content)))
    with pytest.raises(BundleError, match=r"broke off after 1000|cannot be downloaded"):
        install_model(f"{url}/liver.zip")
    assert list(installed.iterdir()) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_is_too_large_is_refused(told: bool, serve: Serve, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if told:
            handler.send_header("Content-Length", "3000000")
        handler.end_headers()
        handler.wfile.write(bytes(3_000_000))

    with pytest.raises(BundleError, match="more than 2 MiB"):
        download(serve(answer), tmp_path / "file", max_bytes=2 << 20)
    assert list(tmp_path.glob("*file*")) == []


def test_a_silent_server_is_given_up(serve: Serve, tmp_path: Path) -> None:
    over = Event()
    url = serve(lambda _: over.wait(10) and None)
    with pytest.raises(BundleError, match="timed out"):
        download(url, tmp_path / "file", timeout_seconds=0.2)
    over.set()


def test_a_server_that_falls_silent_halfway_is_given_up(serve: Serve, tmp_path: Path) -> None:
    over = Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _sends(bytes(1000), told=10**6)(handler)
        over.wait(10)

    with pytest.raises(BundleError, match="timed out"):
        download(serve(answer), tmp_path / "file", timeout_seconds=0.2)
    over.set()
    assert list(tmp_path.glob("*file*")) == []


def test_no_server_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be downloaded") as told:
        download("http://127.0.0.1:9/liver.zip", tmp_path / "file")
    assert isinstance(told.value.__cause__, urllib.error.URLError)
