"""Servers on loopback that a coordinator could be, or be mistaken for."""

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from vgmedgen.trust.certificates import Issued, make_authority, make_server

HOST = "127.0.0.1"


class Pair(NamedTuple):
    """Files of a server's certificate."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str = "ca", *, days: int = 400) -> Issued:
    """A CA whose certificate lies in `folder`."""
    issued = make_authority(name, days)
    (folder / f"{name}.crt").write_bytes(issued.certificate_pem)
    return issued


def server_files(
    folder: Path,
    ca: Issued,
    *,
    hosts: tuple[str, ...] = (HOST,),
    days: int = 300,
    ago: int = 0,
) -> Pair:
    """A server's certificate and key, begun `ago` days before today."""
    now = datetime.now(UTC) - timedelta(days=ago)
    issued = make_server((ca.certificate, ca.key), hosts, days, now=now)
    stem = "-".join((*hosts, str(ago), str(days))).replace(":", "")
    pair = Pair(folder / f"{stem}.crt", folder / f"{stem}.key")
    pair.certificate.write_bytes(issued.certificate_pem)
    pair.key.write_bytes(issued.key_pem)
    return pair


@contextmanager
def coordinator(
    pair: Pair | None,
    *,
    ahead: float | None = 0.0,
    health: int = 200,
    fleet: tuple[int, object] = (400, {"code": 2003, "detail": "interval"}),
    context: ssl.SSLContext | None = None,
):
    """A server with TLS, or without where `pair` is None; yields its port.

    `ahead`: seconds by which its clock is; None leaves the Date header out.
    `fleet`: status and body of every answer to a POST.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(health, b"")

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(fleet[0], json.dumps(fleet[1]).encode())

        def _answer(self, status, body):
            self.send_response_only(status)
            if ahead is not None:
                now = datetime.now(UTC) + timedelta(seconds=ahead)
                self.send_header("Date", format_datetime(now, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # clients that do not trust us leave in the middle of the handshake

    server = Server((HOST, 0), Handler)
    if pair:
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def rude(*, silent: bool):
    """Takes connections and closes them at once, or never says a word."""
    with socket.create_server((HOST, 0)) as listener:
        stop, held = threading.Event(), []

        def serve():
            listener.settimeout(0.05)
            while not stop.is_set():
                try:
                    one = listener.accept()[0]
                except TimeoutError:
                    continue
                if silent:
                    held.append(one)
                else:
                    one.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        stop.set()
        thread.join()
        for one in held:
            one.close()


@contextmanager
def proxy(refuses=0):
    """An HTTP proxy that only knows CONNECT; yields its port and what was asked of it.

    With `refuses`, that is the status of all that it answers.
    """
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            if refuses:
                self.send_error(refuses)
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as far:
                self.send_response_only(200)
                self.end_headers()
                there = threading.Thread(target=_pump, args=(self.connection, far))
                there.start()
                _pump(far, self.connection)
                there.join()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return trial.getsockname()[1]


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while content := source.recv(65536):
            sink.sendall(content)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
