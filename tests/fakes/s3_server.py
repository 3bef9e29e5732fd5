"""As much of the S3 protocol as objects.py needs, over real HTTP: put, get with ranges, head, delete, list,
multipart.

It believes every signature; that a client signs is looked at (`unsigned`).
"""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape


class S3Server:
    """One bucket in memory, on a port of the loopback. `objects` may be changed by a test."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.unsigned = 0
        self._parts: dict[str, dict[int, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a client come here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "eu-central-1",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", headers.get("length", str(len(body))))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _asked(self) -> tuple[str, dict[str, list[str]], bytes]:
                store.unsigned += "AWS4-HMAC-SHA256" not in self.headers.get("Authorization", "")
                url = urlsplit(self.path)
                key = unquote(url.path).removeprefix(f"/{store.bucket}").lstrip("/")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return key, parse_qs(url.query, keep_blank_values=True), body

            def do_PUT(self) -> None:
                key, query, body = self._asked()
                if "uploadId" in query:
                    store._parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
                else:
                    store.objects[key] = body
                self._answer(200, ETag='"e"')

            def do_POST(self) -> None:
                key, query, body = self._asked()
                if "delete" in query:
                    keys = [unescape(found) for found in re.findall(r"<Key>([^<]*)</Key>", body.decode())]
                    for one in keys:
                        store.objects.pop(one, None)
                    gone = "".join(f"<Deleted><Key>{escape(one)}</Key></Deleted>" for one in keys)
                    self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
                elif "uploads" in query:
                    upload = f"u{len(store._parts)}"
                    store._parts[upload] = {}
                    self._answer(200, f"<R><UploadId>{upload}</UploadId></R>".encode())
                else:
                    parts = store._parts.pop(query["uploadId"][0])
                    store.objects[key] = b"".join(parts[number] for number in sorted(parts))
                    self._answer(200, b"<R><ETag>e</ETag></R>")

            def do_DELETE(self) -> None:
                key, _, _ = self._asked()
                store.objects.pop(key, None)
                self._answer(204)

            def do_HEAD(self) -> None:
                key, _, _ = self._asked()
                found = store.objects.get(key)
                if found is None:
                    self._answer(404)
                else:
                    self._answer(200, found, ETag='"e"', Last_Modified="Mon, 23 Nov 2026 12:00:00 GMT")

            def do_GET(self) -> None:
                key, query, _ = self._asked()
                if not key:
                    self._answer(200, store._listing(query))
                    return
                found = store.objects.get(key)
                if found is None:
                    self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                    return
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                about = {"ETag": '"e"', "Last_Modified": "Mon, 23 Nov 2026 12:00:00 GMT"}
                if span is None:
                    self._answer(200, found, **about)
                else:
                    first, last = int(span[1]), min(int(span[2]), len(found) - 1)
                    about["Content_Range"] = f"bytes {first}-{last}/{len(found)}"
                    self._answer(206, found[first : last + 1], **about)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>e</ETag>"
            "<LastModified>2026-11-23T12:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
