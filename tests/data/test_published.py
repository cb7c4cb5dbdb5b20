"""Published files: found where they lie, refused when damaged, downloaded whole or not at all."""

import functools
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fromnoise.data import published

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Cut(Quiet):
    """Promises more than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])


@pytest.fixture
def serve(tmp_path):
    """Start a server of `folder`; gives its address, and stops all when the test ends."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler], folder: Path = tmp_path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))  # type: ignore
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class TestPlace:
    def test_what_is_given_is_meant(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FROMNOISE_DATA", str(tmp_path))
        (tmp_path / "mnist").mkdir()
        assert published.folder(tmp_path, "mnist") == tmp_path

    def test_else_the_shared_folder_else_the_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("FROMNOISE_DATA", str(tmp_path))
        assert published.folder(None, "mnist") == tmp_path / "cache/fromnoise/mnist"
        (tmp_path / "mnist").mkdir()
        assert published.folder(None, "mnist") == tmp_path / "mnist"
        monkeypatch.delenv("FROMNOISE_DATA")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert published.folder(None, "mnist") == tmp_path / "home/.cache/fromnoise/mnist"
        assert not (tmp_path / "cache").exists() and not (tmp_path / "home").exists()

    def test_a_place_that_is_none_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="does not exist"):
            published.folder(tmp_path / "nowhere", "mnist")
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="is not a directory"):
            published.folder(tmp_path / "file", "mnist")


class TestRead:
    def test_the_published_bytes(self, tmp_path):
        (tmp_path / "a").write_bytes(CONTENT)
        assert published.read(tmp_path / "a", MD5) == published.read(tmp_path / "a", None) == CONTENT

    @pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"\1" + data[1:], lambda data: b""])
    def test_anything_else_is_refused_with_both_checksums(self, tmp_path, monkeypatch, change):
        (tmp_path / "a").write_bytes(change(CONTENT))
        found = hashlib.md5(change(CONTENT)).hexdigest()
        message = rf"^{tmp_path / 'a'} is damaged or cut short: md5 {found} over [\d,]+ bytes, published {MD5}; delete"
        with pytest.raises(ValueError, match=message + " it and put the published file there$"):
            published.read(tmp_path / "a", MD5)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        cached = published.cache("mnist") / "a"
        cached.parent.mkdir(parents=True)
        cached.write_bytes(change(CONTENT))
        with pytest.raises(ValueError, match=r"delete it and start again to download it$"):
            published.read(cached, MD5)

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"^cannot read .*/a: No such file or directory$"):
            published.read(tmp_path / "a", MD5)


class TestFetch:
    def test_from_the_first_address_that_has_it(self, tmp_path, serve):
        (tmp_path / "full").mkdir()
        (tmp_path / "full/a").write_bytes(CONTENT)
        (tmp_path / "wrong").mkdir()
        (tmp_path / "wrong/a").write_bytes(b"<html>moved</html>")
        address, lines = serve(Quiet), []
        path = tmp_path / "cache/deep/a"
        addresses = [address + "empty/a", address + "wrong/a", serve(Cut) + "a", address + "full/a"]
        published.fetch(addresses, path, MD5, lines.append)
        assert path.read_bytes() == CONTENT and [file.name for file in path.parent.iterdir()] == ["a"]
        assert lines[-1] == f"downloading {address}full/a, 1.2 MiB"

    def test_nothing_is_left_where_none_has_it(self, tmp_path, serve):
        address, path = serve(Quiet), tmp_path / "cache/a"
        cut = serve(Cut) + "a"
        with pytest.raises(ValueError) as refused:
            published.fetch([address + "a", "http://127.0.0.1:1/a", cut], path, MD5, lambda line: None)
        message = str(refused.value)
        assert message.startswith(f"cannot download a ({address}a: HTTP Error 404: ") and "\n" not in message
        assert "http://127.0.0.1:1/a: " in message and f"{cut}: " in message
        assert message.endswith(f"get it elsewhere and put it in {path.parent}")
        assert not path.parent.exists()

    def test_progress_is_told(self, tmp_path, serve, monkeypatch):
        monkeypatch.setattr(published, "TOLD_EVERY", 0.0)
        (tmp_path / "a").write_bytes(CONTENT)
        lines: list[str] = []
        published.fetch([serve(Quiet) + "a"], tmp_path / "b", MD5, lines.append)
        assert lines[-1] == "downloaded 1.2 of 1.2 MiB"
