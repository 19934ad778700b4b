"""Downloads: no private address, also not by a redirect or a second answer of the name server; bounded."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract.files import FetchFile, FileStored
from sandreel_core.errors import Refused
from sandreel_runnerd.fetch import Fetch, is_public
from sandreel_runnerd.files import Files
from sandreel_runnerd.root import Root
from tests.support.site import BODY, web_site


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture
def site() -> Iterator[str]:
    with web_site() as url:
        yield url


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    root = Root(str(tmp_path))
    files = Files(root)
    yield files
    files.close()
    root.close()


def fetch(files: Files, url: str, **more: Any) -> tuple[FileStored, str]:
    request = {name: more.pop(name) for name in ("timeout_s", "sha256") if name in more}
    return Fetch(files, FetchFile(url=url, path="got", **request), **({"allow_private": True} | more)).run()


def refused(code: str) -> pytest.RaisesExc[Refused]:
    return pytest.RaisesExc(Refused, check=lambda error: error.code == code)


def test_a_download_follows_redirects_and_is_checked(files: Files, site: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    assert fetch(files, f"{site}/to//to//body", sha256=digest) == (FileStored(size=len(BODY), sha256=digest), "got")
    assert (tmp_path / "got").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing", "FETCH_FAILED"), ("short", "FETCH_FAILED"), ("to//" * 7 + "body", "FETCH_FAILED")],
)
def test_a_failed_download_leaves_nothing(files: Files, site: str, tmp_path: Path, path: str, code: str) -> None:
    with refused(code):
        fetch(files, f"{site}/{path}")
    assert names(tmp_path) == []


def test_a_download_is_bounded_in_bytes(files: Files, site: str, tmp_path: Path) -> None:
    with refused("TOO_LARGE"):
        fetch(files, f"{site}/endless", max_bytes=1024 * 1024)
    with refused("TOO_LARGE"):
        fetch(files, f"{site}/body", max_bytes=1000)
    with refused("CHECKSUM"):
        fetch(files, f"{site}/body", sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_download_is_bounded_in_time(files: Files, site: str, tmp_path: Path) -> None:
    with refused("FETCH_TIMEOUT"):
        fetch(files, f"{site}/stuck", timeout_s=0.2)
    assert names(tmp_path) == []


def test_abort_ends_a_download(files: Files, site: str) -> None:
    stuck = Fetch(files, FetchFile(url=f"{site}/stuck", path="got"), allow_private=True)
    timer = threading.Timer(0.2, stuck.abort)
    timer.start()
    with refused("FETCH_TIMEOUT"):
        stuck.run()
    timer.join()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://0/",
        "http://2130706433/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.1.1/",
    ],
)
def test_private_addresses_are_refused(files: Files, url: str) -> None:
    with refused("PRIVATE_ADDRESS"):
        fetch(files, url, allow_private=False)


def test_a_redirect_to_a_private_address_is_refused(files: Files, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`public.test` passes as public; where it leads to does not."""
    port = int(site.rpartition(":")[2])
    dialled: list[Any] = []
    real_resolve, real_connect = socket.getaddrinfo, socket.socket.connect

    def resolve(host: str, port: int, **more: Any) -> Any:
        if host == "public.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", port))]
        return real_resolve(host, port, **more)

    def connect(self: socket.socket, address: Any) -> None:
        dialled.append(address)
        real_connect(self, ("127.0.0.1", port))

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with refused("PRIVATE_ADDRESS"):
        fetch(files, f"http://public.test:{port}/to/http://127.0.0.1:{port}/body", allow_private=False)
    assert dialled == [("93.184.215.14", port)]
    # And what is dialled is the address that was checked, not the name again.
    assert fetch(files, f"http://public.test:{port}/body", allow_private=False)[0].size == len(BODY)
    assert dialled == [("93.184.215.14", port)] * 2


@pytest.mark.parametrize(
    "url", ["ftp://a/", "file:///etc/passwd", "http://", "http://u:p@a/", "http://a:99999/", "http://a:0/", "x"]
)
def test_other_urls_are_refused(files: Files, url: str) -> None:
    with refused("BAD_REQUEST"):
        fetch(files, url)


def test_a_url_that_would_smuggle_a_header_is_refused(files: Files, site: str) -> None:
    with refused("BAD_REQUEST"):
        fetch(files, f"{site}/a b")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)
def test_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public
