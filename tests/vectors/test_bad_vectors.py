"""The frozen `bad_*` cases (made by bad_cases.py): each is refused, by the error that stands beside it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.encoding import encode
from privacy.errors import ContextRefused, EncodingRefused, PeerViolation
from privacy.secagg import coordinator, site
from privacy.secagg.context import Context
from privacy.secagg.messages import COORDINATOR
from privacy.secret import Secret
from tests.fakes.memory_round import consortium, deterministic_entropy
from tests.vectors.bad_cases import MESSAGES, ROUNDS, changed, heard_by_coordinator, heard_by_site
from tests.vectors.plain import from_plain, to_plain

FOLDER = Path(__file__).parent / "secagg"
FROZEN = json.loads((FOLDER / "bad_messages.json").read_text())
CASES = [(name, case) for name in ROUNDS for case in FROZEN["bad_messages"][name]]


@cache
def waiting(name: str, kind: str, sender: str | None) -> tuple[Any, Any]:
    """Whoever hears such a message in a golden round, and the message as it should be."""
    golden = json.loads((FOLDER / name).read_text())
    if sender is None:
        return heard_by_site(golden, MESSAGES[kind])
    return heard_by_coordinator(golden, MESSAGES[kind], sender)


def identity(value: Any) -> str:
    if isinstance(value, str):
        return "p256" if "p256" in value else "hybrid"
    return f"{value['message']}-{value['name']}".replace(" ", "-")


@pytest.mark.parametrize(("name", "case"), CASES, ids=identity)
def test_a_bad_message_is_refused(name: str, case: dict[str, Any]) -> None:
    state, message = waiting(name, case["message"], case.get("sender"))
    bad = changed(message, case["path"], case["value"])
    assert bad != message
    if case["to"] == COORDINATOR:
        after, effects = coordinator.step(state, bad)
        assert type(effects[0]).__name__ == ("Blame" if case["error"] == "PeerViolation" else case["error"])
        if isinstance(effects[0], coordinator.Blame):
            assert effects[0].violation.site == case["blames"]
        else:
            assert after == state
        return
    after, effects = site.step(state, bad)
    assert isinstance(after, site.Aborted)
    assert effects == (site.Abandon(reason=after.reason),)
    assert type(after.reason).__name__ == case["error"]
    assert getattr(after.reason, "site", "") == case["blames"]
    assert isinstance(after.reason, PeerViolation) == bool(case["blames"])


@pytest.mark.parametrize(("name", "kind", "sender"), sorted({(n, c["message"], c.get("sender", "")) for n, c in CASES}))
def test_the_message_as_it_should_be_is_taken(name: str, kind: str, sender: str) -> None:
    """Otherwise the cases above would be refused for no reason."""
    state, message = waiting(name, kind, sender or None)
    if sender:
        _, effects = coordinator.step(state, message)
        assert not any(isinstance(effect, coordinator.Blame | coordinator.Ignored) for effect in effects)
    else:
        assert not isinstance(site.step(state, message)[0], site.Aborted)


@pytest.mark.parametrize("case", FROZEN["bad_contexts"], ids=lambda case: case["name"])
def test_a_bad_context_is_refused_before_there_is_a_key(case: dict[str, Any]) -> None:
    group = consortium(4)
    context: Context = changed(group.context, case["path"], case["value"])
    member = group.members[0]
    with pytest.raises(ContextRefused) as caught:
        site.begin(context, member.site, member.signer, deterministic_entropy("e"), member.long_term_secret)
    assert caught.value.field == case["field"]
    with pytest.raises(ContextRefused):
        coordinator.begin(context)
    assert from_plain(Context, to_plain(group.context)) == group.context


@pytest.mark.parametrize("case", FROZEN["bad_values"], ids=lambda case: case["name"])
def test_bad_values_are_refused_before_anything_is_sent(case: dict[str, Any]) -> None:
    values = {lane: np.array([float(value) for value in given]) for lane, given in case["values"].items()}
    with pytest.raises(EncodingRefused) as caught:
        encode(values, consortium(4).context.layout, Secret(b"d" * 32))
    assert caught.value.lane == case["lane"]
