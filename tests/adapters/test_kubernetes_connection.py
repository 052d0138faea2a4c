"""A connection is kept between requests, and one that the server has ended is replaced without a word."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from threading import Event, Thread

import pytest
from tests.cluster.certificates import Authority

from stepwell.adapters.kubernetes.connection import Access, AnswerError, Connection

DEADLINE = 20.0


class Server(ThreadingHTTPServer):
    """Answers with what it was asked, and over which of its connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.hang_up = False
        """After the next answer, which does not tell so."""
        self.ended = Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self.number = self.server.connections

    def do_PUT(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        told = {"on": self.number, "path": self.path, "as": self.headers["Authorization"], "sent": sent}
        body = json.dumps(told).encode()
        self.send_response(404 if self.path == "/none" else 201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.server.hang_up

    def finish(self) -> None:
        super().finish()
        # The client may have hung up first.
        with suppress(OSError):
            self.connection.shutdown(SHUT_RDWR)
        self.server.ended.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    authority = Authority(tmp_path, "authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("localhost"))
    with Server() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(DEADLINE)


@pytest.fixture
def connection(server: Server, tmp_path: Path) -> Iterator[Connection]:
    url, ca_file = f"https://localhost:{server.server_port}", str(tmp_path / "authority.pem")
    connection = Connection(Access(url=url, ca_file=ca_file, token=lambda: "me"), timeout=DEADLINE)
    yield connection
    connection.close()


def test_requests_share_a_connection_whatever_the_answers(connection: Connection) -> None:
    first = connection.ask("PUT", "/a", query={"b": "c d"}, body={"e": 1})
    assert first == {"on": 1, "path": "/a?b=c+d", "as": "Bearer me", "sent": '{"e": 1}'}
    with pytest.raises(AnswerError, match="404"):
        connection.ask("PUT", "/none")
    assert connection.ask("PUT", "/a")["on"] == 1


def test_after_the_server_hung_up_there_is_another_one(connection: Connection, server: Server) -> None:
    server.hang_up = True
    connection.ask("PUT", "/a")
    assert server.ended.wait(DEADLINE)
    assert connection.ask("PUT", "/a")["on"] == 2


def test_what_was_let_go_of_is_made_anew(connection: Connection) -> None:
    connection.ask("PUT", "/a")
    connection.close()
    connection.close()
    assert connection.ask("PUT", "/a")["on"] == 2


def test_a_server_of_another_authority_is_told_nothing(connection: Connection, server: Server, tmp_path: Path) -> None:
    """The authority is read for each connection: what is mounted may have been replaced."""
    known = (tmp_path / "authority.pem").read_text()
    Authority(tmp_path, "stranger").file.rename(tmp_path / "authority.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.ask("PUT", "/a")
    (tmp_path / "authority.pem").write_text(known)
    assert connection.ask("PUT", "/a")["path"] == "/a"
