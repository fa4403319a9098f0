"""A site of one empty page that can load the package's built files, and whatever else a measurement needs."""

import mimetypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from crowdnerf_lab.widgets.built import STATIC

PAGE = b'<!doctype html><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">'

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


@contextmanager
def site_of(files: Mapping[str, bytes], *, isolated: bool = False) -> Iterator[str]:
    """The address of the page; NAME in it is files[NAME], or else the built file of that name.

    isolated: from other origins, so that WebAssembly may use threads.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            content = PAGE if not name else files.get(name) or _built(name)
            kind = "text/html" if not name else mimetypes.guess_type(name)[0] or "application/octet-stream"
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content or b"")))
            for name, value in ISOLATION.items() if isolated else ():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _built(name: str) -> bytes | None:
    path = STATIC / Path(name).name
    return path.read_bytes() if path.is_file() else None
