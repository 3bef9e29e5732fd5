"""An MLflow tracking server as far as `MlflowRun` speaks to one: it answers as MLflow 3.17 did and remembers."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from consortium.contract.mlflow_run import Tracking


class Server(ThreadingHTTPServer):
    """What the REST interface answers, as a server of MLflow 3 did; it remembers what it was told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[str, Any]] = []
        self.experiments: dict[str, str] = {}
        self.broken = False
        self.refused = 0  # calls while it was broken
        self.answers = threading.Event()  # while it is not set, a call that came is kept waiting
        self.answers.set()

    @property
    def tracking(self) -> Tracking:
        return Tracking(server=f"http://127.0.0.1:{self.server_port}", experiment="lungs & hearts")

    def until(self, path: str, count: int = 1) -> list[Any]:
        """The bodies of the calls of one kind, once there are so many."""
        for _ in range(6000):
            found = [body for one, body in self.heard if one == path]
            if len(found) >= count:
                return found
            time.sleep(0.01)
        raise AssertionError([one for one, _ in self.heard])


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        _, _, query = self.path.partition("?")
        self.server.answers.wait()
        known = self.server.experiments.get(query.removeprefix("experiment_name="))
        self.server.heard.append(("get-by-name", query))
        if known is None:
            self._answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        else:
            self._answer(200, {"experiment": {"experiment_id": known}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.removeprefix("/api/2.0/mlflow/")
        if self.server.broken:
            self.server.refused += 1
            self._answer(503, {})
            return
        self.server.heard.append((path, body))
        answers = {"experiments/create": {"experiment_id": "7"}, "runs/create": {"run": {"info": {"run_id": "r1"}}}}
        self._answer(200, answers.get(path, {}))

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def mlflow_server() -> Iterator[Server]:
    """A server on a free port of this machine."""
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.answers.set()
        made.shutdown()
        thread.join()
        made.server_close()
