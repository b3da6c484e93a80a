"""Serves the current folder to this machine with the headers that let a page use threads: python server.py [PORT]."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike


class Handler(SimpleHTTPRequestHandler):
    """Files, isolated from other origins."""

    def guess_type(self, path: str | PathLike[str]) -> str:
        """A module that comes as anything but JavaScript is refused by browsers."""
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

    def end_headers(self) -> None:
        """Adds the two headers."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=".")).serve_forever()
