"""The warehouse that `examples/orders` calls, alone in a pod: it picks each order, and counts what it is asked.

Standard library only, since it reaches its pod by a ConfigMap. ``GET /asked`` answers, by idempotency key, with the
order and how often it was asked for.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8080

_asked: dict[str, tuple[str, int]] = {}
_lock = threading.Lock()


class Warehouse(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Pick."""
        run = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["run"]
        key = self.headers["Idempotency-Key"]
        with _lock:
            _, times = _asked.get(key, ("", 0))
            _asked[key] = (run["foreignID"], times + 1)
        self._answer({"status": "Picked", "object": {**run["object"], "shelf": "shelf 1"}})

    def do_GET(self) -> None:
        """Tell."""
        with _lock:
            self._answer(_asked)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """Not a line for each request."""

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Warehouse).serve_forever()
