"""Webhooks: what is told, signed, in order, once taken, and again when the receiver was away."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa

from consortium import webhooks
from consortium.coordinator_file import Webhook
from consortium.database import webhooks as table
from consortium.webhook_places import Places
from consortium.webhooks import SecretUnusable, Silence, Webhooks, read_secret
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.running_study import STUDY

SECRET = bytes(range(32))


@contextmanager
def receiver(*statuses):
    """A server that keeps what it is sent and answers with these statuses in turn, then 204."""
    got, answers = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers.items()), body))
            self.send_response(answers.pop(0) if answers else 204)
            self.send_header("Location", "https://elsewhere.example.org/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(webhooks, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(webhooks, "RETRY_S", 0.01)
    monkeypatch.setattr(webhooks, "RETRY_S_MAX", 0.02)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


def told(world, url, **changes):
    return Webhooks(world.rooms, (Webhook(url=url, **changes),), world.folder, silent_minutes=15)


def place_of(world, url):
    """How far the webhook has been told; -1 before it has begun."""
    with world.rooms.database.reading() as connection:
        found = connection.execute(sa.select(table.c.next_leaf).where(table.c.url == url)).scalar()
    return -1 if found is None else found


async def test_an_entry_of_the_log_arrives_as_a_signed_cloudevent(tmp_path):
    with coordinator_in(tmp_path) as world, receiver() as (url, got):
        path = world.folder / "keys" / "hook.secret"
        path.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
        path.chmod(0o600)
        async with told(world, url, secret_file="keys/hook.secret").telling():
            await until(lambda: place_of(world, url) >= 0)
            world.submit(STUDY)
            await until(lambda: got)
        ((headers, body),) = got
        event = json.loads(body)
        (leaf,) = (at for at, entry in enumerate(world.log()) if entry["type"] == "study.created")
        entry = world.log()[leaf]
        assert headers["Content-Type"].startswith("application/cloudevents+json")
        assert {key: event[key] for key in event.keys() - {"data"}} == {
            "specversion": "1.0",
            "id": entry["id"],
            "source": "/consortium/alpine-heart",
            "type": "consortium.study.needs_approval",
            "subject": STUDY.id,
            "time": entry["ts"],
            "datacontenttype": "application/json",
        }
        assert event["data"] == {
            "entry": "study.created",
            "leaf": leaf,
            "actor": "coordinator",
            "outcome": "0",
            **entry["body"],
        }
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
        assert (headers["webhook-id"], headers["webhook-signature"]) == (entry["id"], f"v1,{expected}")


async def test_a_receiver_that_was_away_is_told_what_it_missed_and_nothing_twice(tmp_path):
    with coordinator_in(tmp_path) as world, receiver(503, 302, 429) as (url, got):
        world.submit(STUDY)  # before the webhook: no news
        async with told(world, url).telling():
            await until(lambda: place_of(world, url) >= 0)
        world.studies.move(STUDY.id, "abort")
        async with told(world, url).telling():  # another process
            await until(lambda: len(got) == 4)
            await until(lambda: place_of(world, url) == world.rooms.recorder.log.size)
        async with told(world, url).telling():
            await asyncio.sleep(0.05)
        kinds = [(json.loads(body)["type"], json.loads(body)["data"]["entry"]) for _, body in got]
        assert kinds == [("consortium.study.stopped", "study.aborted")] * 4


async def test_an_event_that_is_refused_is_passed_over_and_one_not_asked_for_is_not_sent(tmp_path):
    with coordinator_in(tmp_path) as world, receiver(400) as (url, got):
        async with told(world, url, events=("study.stopped", "study.needs_approval")).telling():
            await until(lambda: place_of(world, url) >= 0)
            world.submit(STUDY)
            await until(lambda: len(got) == 1)
            world.studies.move(STUDY.id, "abort")
            await until(lambda: len(got) == 2)
    with coordinator_in(tmp_path) as world, receiver() as (url, got):
        before = world.rooms.recorder.log.size
        Places(world.rooms.database).of(url, 0)
        async with told(world, url, events=("model.released",)).telling():
            await until(lambda: place_of(world, url) == before)
        assert got == []


def test_a_hospital_is_silent_once_until_it_was_here_again():
    now = [0.0]
    silence = Silence(15, lambda: now[0])
    both, here = frozenset({"amber", "birch"}), frozenset({"amber"})
    assert silence.begun(both, here) == []  # from the start on it has its time
    now[0] = 899.0
    assert silence.begun(both, here) == []
    now[0] = 900.0
    assert silence.begun(both, here) == ["birch"]
    now[0] = 5000.0
    assert silence.begun(both, both) == []
    assert silence.begun(both, here) == []
    now[0] = 5900.0
    assert silence.begun(both, here) == ["birch"]
    assert silence.begun(frozenset({"amber"}), here) == []  # it was revoked


@pytest.mark.parametrize(
    ("text", "mode", "found"),
    [
        ("whsec_" + base64.b64encode(bytes(23)).decode(), 0o600, "23 bytes"),
        ("hidden-words", 0o600, "prefix"),
        ("whsec_*", 0o600, "no base64"),
        ("whsec_" + base64.b64encode(bytes(24)).decode(), 0o644, "mode"),
    ],
)
def test_a_secret_that_cannot_be_used_is_said_without_quoting_it(tmp_path, text, mode, found):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(SecretUnusable, match=found) as caught:
        read_secret(path)
    assert text not in str(caught.value)
