"""S-15: something leaves the building that the hospital's own list does not have.

Held by: `CoordinatorLine.record`, asked by the wire before the first byte goes; a disk that refuses the record keeps
the message here. Tried: row s15 of `mutations.py`.
"""

import pytest

from consortium.contract.messages import Hello, Refusal
from consortium.wire.client import CoordinatorClient
from site_agent.agent import CoordinatorLine
from site_agent.store import Store, StoreUnwritable
from tests.fakes.site_wire import STUDY, StudyService, dialled
from tests.fakes.site_world import ZEROS


async def test_a_disk_that_refuses_the_record_keeps_the_message_here(tmp_path, monkeypatch):
    service = StudyService()
    async with dialled(tmp_path, service) as (_, home):
        store = Store(tmp_path / "agent.db")
        line = CoordinatorLine(store)
        client = await CoordinatorClient.connect(
            home.identity.address, home.ca_pem, home.certificate_pem, home.tls_key_pem, on_sent=line.record
        )
        async with client, client.session(Hello(agent_version="0.1.0", protocol_version=1)) as session:
            line.bind(client, session)
            await anext(session)

            def full(_record):
                raise StoreUnwritable("agent.db could not be used: database or disk is full")

            monkeypatch.setattr(store, "record_egress", full)
            refusal = Refusal(study_digest=STUDY.digest(), round=0, attempt=0, rule="r", explanation="e")
            with pytest.raises(StoreUnwritable):
                await line.send(refusal, STUDY.digest())
            with pytest.raises(StoreUnwritable):
                await client.submit_events((b"entry",))
            with pytest.raises(StoreUnwritable):
                await client.list_studies()
            monkeypatch.undo()
            await line.send(refusal, ZEROS)
    assert service.events == []
    assert [record.kind for record in store.egress()] == ["hello", "refusal"]
    assert len(service.heard) <= 1
