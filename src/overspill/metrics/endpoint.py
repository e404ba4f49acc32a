"""An endpoint over HTTP: `/metrics` for Prometheus, `/healthz` and `/livez` for whoever watches over the process.

A small server of the standard library, with what it lacks for being left open: at most so many connections at a time, of which the oldest gives way to a new one, so that
clients that are slow or never ask cannot keep a scraper out; a limit on what a request may say; a time limit on every read and write. It answers three exact paths, reads no
file, and has no password: it listens on the loopback interface unless it is told another address.
"""
from __future__ import annotations

import http.client
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from .health import Health, of_queues
from .prometheus import QueueCollector, register
from .watched import Observable

__all__ = ["LOOPBACK", "PORT", "Endpoint", "serve"]

PORT: Final = 9464
"""The port that OpenTelemetry's and other exporters of a program's own metrics use."""
LOOPBACK: Final = "127.0.0.1"

_HEAD_MAX: Final = 16 * 1024
_CONNECTIONS_MAX: Final = 16
_TIMEOUT_S: Final = 5.0
_log = logging.getLogger("overspill")


class _Head:
    """The request as it comes in: no longer than a head may be."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _HEAD_MAX

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("head")
        return line

    def close(self) -> None:
        self._stream.close()


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server: _Server
    server_version = "overspill"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # also whoever cannot even say a request line is told in full what was wrong
    timeout = _TIMEOUT_S

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except http.client.LineTooLong:
            self.requestline, self.request_version, self.command = "", self.default_request_version, ""
            self.close_connection = True
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = self.server.answers.get(path)
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"here are {', '.join(self.server.answers)}\n".encode())
            return
        try:
            status, content_type, body = answer(self.headers.get("Accept", ""))
        except Exception:
            _log.exception("%s could not be answered", path)
            status, content_type, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", b"this failed; the log of the process says why\n"
        self._send(status, content_type, body)

    do_HEAD = do_GET

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("%s " + format, self.client_address[0], *args)


Answer = Callable[[str], tuple[HTTPStatus, str, bytes]]
"""From what the client accepts: status, content type, body."""


class _Server(ThreadingHTTPServer):
    """Accepts without polling, and lets no more than so many connections live."""

    request_queue_size = 64

    def __init__(self, host: str, port: int, answers: dict[str, Answer]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answers = answers
        self._connections: dict[socket.socket, None] = {}
        self._connections_lock = threading.Lock()
        self._closing = threading.Event()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the name service for a name that nobody needs

    def accept_until_closed(self) -> None:
        while True:
            try:
                connection, address = self.get_request()
            except OSError:
                if self._closing.is_set():
                    return
                _log.exception("a connection to the metrics could not be accepted")
                self._closing.wait(1.0)  # out of descriptors, most likely: trying at once would not help
                continue
            self._make_way()
            with self._connections_lock:
                self._connections[connection] = None
            self.process_request(connection, address)

    def _make_way(self) -> None:
        with self._connections_lock:
            if len(self._connections) < _CONNECTIONS_MAX:
                return
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            _hang_up(oldest)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection to the metrics ended early", exc_info=True)

    def stop_accepting(self) -> None:
        self._closing.set()
        _hang_up(self.socket)

    def hang_up(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone by itself


class Endpoint:
    """A server that runs until `close`, in a thread of its own. Also a context manager."""

    def __init__(self, registry: CollectorRegistry, health: Callable[[], Health], host: str, port: int) -> None:
        self._registry = registry
        self._health = health
        self._server = _Server(host, port, {"/metrics": self._metrics, "/healthz": self._healthz, "/livez": self._livez})
        self.host, self.port = host, int(self._server.server_address[1])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overspill-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.accept_until_closed()
        finally:
            self._ended.set()

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def paths(self) -> list[str]:
        return list(self._server.answers)

    def _metrics(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        encode, content_type = choose_encoder(accept)
        return HTTPStatus.OK, content_type, encode(self._registry)

    def _healthz(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        health = self._health()
        return _as_json(health.is_well, health)

    def _livez(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        health = self._health()
        return _as_json(health.is_alive, health)

    def close(self) -> None:
        """Answer no more. Returns when the port is free."""
        self._server.stop_accepting()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def join(self) -> None:
        """Wait until somebody closes it. Ctrl-C ends the waiting; an interrupted `Thread.join` would take the thread for dead from then on."""
        self._ended.wait()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_json(good: bool, health: Health) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(health.as_dict(), indent=2).encode() + b"\n"


def serve(
    queues: Iterable[Observable], port: int = PORT, *, host: str = LOOPBACK, registry: CollectorRegistry | None = None, full_at: float | None = 0.95,
) -> Endpoint:  # fmt: skip
    """Serve the metrics and the health of these queues over HTTP, from the process that owns them, until `close`.

    `/metrics` is for Prometheus: these queues alone, or the whole of a `registry` in which they are registered as well. `/healthz` answers 200, or 503 if a queue is broken, cannot
    be asked, or has used more than `full_at` of its disk limit (None: full is no illness); `/livez` answers 503 only for a broken one, which opening again cures. Both say which
    queue and why, in JSON.

    `port=0` takes a free one (`endpoint.port`). There is no password and no encryption: whoever can reach `host` can read the names and the figures. Raises `OSError` if the
    address cannot be had.
    """
    queues = list(queues)
    if registry is None:
        registry = CollectorRegistry()
        collector = QueueCollector()
        registry.register(collector)
        for queue in queues:
            collector.watched.add(queue)
    else:
        for queue in queues:
            register(queue, registry)
    return Endpoint(registry, lambda: of_queues(queues, full_at), host, port)
