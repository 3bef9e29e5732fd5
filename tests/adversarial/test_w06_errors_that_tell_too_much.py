"""W-06: a failure inside the coordinator reaches nobody but the coordinator's own log, and there without values.

Tried: row w06 of `mutations.py`.
"""

import json

import pytest
from structlog.testing import capture_logs

from consortium.wire.errors import CallRefused, RefusalCode, ServiceRefusal
from tests.fakes.wire_world import HELLO, RecordingService, coordinator

SECRET = "patient 4711 of north-clinic, key 0x5ec2e7"


@pytest.mark.parametrize("method", ["submit_events", "run_session"])
async def test_an_unforeseen_error_is_an_incident_number(method: str) -> None:
    service = RecordingService(failing={method: KeyError(SECRET)})
    async with coordinator(service) as world, world.connect() as client:

        async def call() -> None:
            if method == "submit_events":
                await client.submit_events((b"one",))
                return
            async with client.session(HELLO) as session:
                await anext(session)

        with capture_logs() as logs, pytest.raises(CallRefused) as caught:
            await call()
    error = caught.value
    assert (error.status, error.code, error.retryable) == ("INTERNAL", RefusalCode.INTERNAL, False)
    for text in (str(error), error.advice(), repr(error), json.dumps(logs)):
        assert "4711" not in text
        assert "5ec2e7" not in text
        assert "Traceback" not in text
    (entry,) = logs
    assert entry["incident"] == error.incident
    assert error.incident in error.advice()
    assert entry["error"] == "KeyError"
    assert any("wire_world.py" in place for place in entry["where"])


async def test_even_long_and_strange_words_fit_the_metadata() -> None:
    refusal = ServiceRefusal("\x1b[31m\U0001f3e5" * 5000, advice="\u202e\udcff" * 5000)
    async with coordinator(RecordingService(failing={"submit_events": refusal})) as world, world.connect() as client:
        with pytest.raises(CallRefused) as caught:
            await client.submit_events((b"one",))
    assert len(caught.value.message) == 500
    assert "\x1b" not in caught.value.message
    assert "\u202e" not in caught.value.advice()
    assert caught.value.code is RefusalCode.REFUSED
