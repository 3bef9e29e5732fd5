"""A port for whoever watches a process: figures for Prometheus, and whether it is well. Off unless configured.

    GET /metrics    figures, in Prometheus' text format
    GET /healthz    200 while the process answers, 503 when its event loop does not
    GET /readyz     200 when it can do its work, else 503 and one line for each reason

Plain HTTP without a password, so it belongs on the loopback interface or on a network of the operator's own. It takes
no input: only the path of a GET is looked at.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/, written by prometheus_client.
"""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.registry import Collector

from consortium.contract.errors import ContractError
from consortium.contract.kit import split_address

REQUEST_S: Final = 5.0
"""What a reader has for sending its request and taking the answer."""
ANSWER_S: Final = 2.0
"""What the event loop has to show that it goes round."""
READERS_MAX: Final = 8


class MonitorPortUnusable(ContractError):
    """The port for monitoring cannot be opened. The operator's choice of address, or another process."""

    def __init__(self, address: str, found: str) -> None:
        super().__init__(f"the port for monitoring, {address}, cannot be opened: {found}")

    def advice(self) -> str:
        """What to do next."""
        return "Give monitor_address another port that is free on this machine, or null for none."


class MonitorPort:
    """The open port. Requests are answered in threads of its own, so `figures` and `problems` are called in them.

    Args:
        address: HOST:PORT; port 0 takes a free one, see `port`.
        figures: The metric families of now.
        problems: Why the process cannot do its work now, a line each; empty when it can.

    Raises:
        MonitorPortUnusable: Nothing was opened.
    """

    def __init__(
        self, address: str, *, figures: Callable[[], Iterable[Metric]], problems: Callable[[], Iterable[str]]
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Figures(figures))
        self._metrics: Callable[..., Any] = make_wsgi_app(registry, disable_compression=True)
        self._problems = problems
        self._loop = asyncio.get_running_loop()
        host, port = split_address(address)
        try:
            self._server = _Server((host.strip("[]"), port), _Handler)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            found = "it is in use" if in_use else error.strerror or os.strerror(error.errno or 0)
            raise MonitorPortUnusable(address, found) from error
        self._server.set_app(self._answer)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port; an answer under way may still leave."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            found: Iterable[bytes] = self._metrics(environ, start_response)
            return found
        if path == "/healthz":
            problems = [] if self._goes_round() else ["the event loop does not answer"]
        elif path == "/readyz":
            problems = list(self._problems())
        else:
            start_response("404 Not Found", _text())
            return [b"/metrics, /healthz or /readyz\n"]
        start_response("503 Service Unavailable" if problems else "200 OK", _text())
        return ["".join(f"{one}\n" for one in problems or ["ok"]).encode()]

    def _goes_round(self) -> bool:
        went = threading.Event()
        try:
            self._loop.call_soon_threadsafe(went.set)
        except RuntimeError:  # it is closed
            return False
        return went.wait(ANSWER_S)


def _text() -> list[tuple[str, str]]:
    """Headers; the library adds to the list that it is given."""
    return [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class _Figures(Collector):
    """Asks for the figures when they are read."""

    def __init__(self, figures: Callable[[], Iterable[Metric]]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        return self._figures()

    def describe(self) -> Iterable[Metric]:
        return ()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing about each request."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(READERS_MAX)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the library's look-up of the machine's name, which may wait for a name server."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each reader, while there are places."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that left or was too slow: there is nobody to tell."""
