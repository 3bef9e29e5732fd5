"""An outside witness that a log can ask: our own `judge` behind the standard library's HTTP server, or a lie."""

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from audit.checkpoint import parse_checkpoint
from audit.note import NoteVerifier
from audit.witness import CheckpointRefused, Remembered, judge
from audit.witness_protocol import Answer, cosignature_answer, parse_request, refusal_answer
from consortium.coordinator_file import OutsideWitness
from tests.interop.grown_logs import LOG, NOW, WITNESSES

SIGNER = WITNESSES[0]


class Witness(ThreadingHTTPServer):
    """Remembers what it cosigned and what it was asked. `lie` makes of an honest answer what is sent."""

    daemon_threads = True

    def __init__(self, log: NoteVerifier, prefix: str, tls: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log, self.prefix = log, prefix
        self.remembered = Remembered()
        self.asked: list[tuple[int, int]] = []  # old size, hashes
        self.lie: Callable[[Answer], Answer] = lambda answer: answer
        self.headers: dict[str, str] = {}
        self.encrypted = tls is not None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def configured(self) -> OutsideWitness:
        """Its section of coordinator.yaml."""
        scheme = "https" if self.encrypted else "http"
        return OutsideWitness(url=f"{scheme}://127.0.0.1:{self.server_port}{self.prefix}", vkey=SIGNER.key.vkey())

    def answer(self, body: bytes) -> Answer:
        """As a witness answers."""
        try:
            request = parse_request(body)
            self.asked.append((request.old_size, len(request.proof)))
            self.remembered, signed = judge(self.remembered, request, self.log)
        except CheckpointRefused as refused:
            return refusal_answer(refused, remembered_size=self.remembered.size)
        return cosignature_answer(SIGNER.cosign(signed.note.text, NOW))

    def monitored(self, path: str) -> bytes | None:
        """What it cosigned last of this log, at the address of the specification; None elsewhere."""
        name = hashlib.sha256(self.log.name.encode()).hexdigest()
        return self.remembered.note if path == f"{self.prefix}/{name}/checkpoint" and self.remembered.size else None

    def remembers(self, note: bytes) -> None:
        """It has cosigned this checkpoint."""
        found = parse_checkpoint(note).checkpoint
        self.remembered = Remembered(size=found.size, root=found.root, note=note)


class Handler(BaseHTTPRequestHandler):
    """One call."""

    server: Witness

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        shown = self.server.monitored(self.path)
        self._send(Answer(status=200 if shown else 404, content_type="text/plain", body=shown or b""))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = Answer(status=404, content_type="text/plain", body=b"")
        if self.path == f"{self.server.prefix}/add-checkpoint":
            answer = self.server.lie(self.server.answer(body))
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        for name, value in (headers | self.server.headers).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked has read enough
            self.wfile.write(answer.body)


@contextmanager
def outside_witness(
    log: NoteVerifier = LOG.verifier, *, prefix: str = "/witness", tls: Path | None = None
) -> Iterator[Witness]:
    """A witness at a free port; over HTTPS with a file of its certificate and key."""
    server = Witness(log, prefix, tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
