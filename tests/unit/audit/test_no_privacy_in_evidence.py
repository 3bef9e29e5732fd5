"""Evidence of a study that promises patients nothing: it verifies, says so, and holds no spend that would pretend."""

import hashlib
import json
import zipfile
from typing import Any

import pytest

from audit import entries, verify
from tests.fakes.sample_study_log import SITES, SampleConsortium, evidence, failed_steps

WHY = "Eight volumes at each hospital: noise of any use would drown them."
PRETENDING = (entries.DpConfigured, entries.DpAudited, entries.DpSpent)


class Exact(SampleConsortium):
    """The sample study without differential privacy; `pretends` leaves in it what a site says of privacy."""

    def __init__(self, *, created: dict[str, Any] | None = None, pretends: bool = False) -> None:
        super().__init__()
        self.pretends = pretends
        self.created = {"mechanism": "none", "epsilon": 1e9, "delta": 1.0} | (created or {})
        document = json.loads(self.document)
        document["privacy"] = {"mechanism": "none", "unit": "patient", "justification": WHY}
        self.document = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        self.study_digest = hashlib.sha256(self.document).hexdigest()

    def coordinator(self, kind: type[entries.Entry], /, **fields: Any) -> bytes:
        return super().coordinator(kind, **(fields | (self.created if kind is entries.StudyCreated else {})))

    def site(self, name: str, kind: type[Any], /, **fields: Any) -> bytes:
        if kind in PRETENDING and not self.pretends:
            return b""
        return super().site(name, kind, **fields)

    def ending(self, **_: Any) -> None:
        super().ending(certified=lambda _: None)


def checked(tmp_path: Any, consortium: SampleConsortium) -> dict[str, Any]:
    consortium.whole_study()
    archive, policy = evidence(tmp_path, consortium)
    return verify.check(str(archive), policy)


def test_it_verifies_and_says_that_nothing_is_promised(tmp_path: Any) -> None:
    result = checked(tmp_path, Exact())
    assert failed_steps(result) == {}
    assert "No patient has differential privacy" in " ".join(result["notes"])
    assert "without a dp.spent" not in " ".join(result["notes"])
    (archive,) = tmp_path.rglob("*.zip")
    with zipfile.ZipFile(archive) as bundle:
        page = bundle.read(next(name for name in bundle.namelist() if name.endswith("report.html"))).decode()
    assert "No patient has differential privacy in this study." in page
    assert WHY in page
    assert "largest epsilon" not in page


@pytest.mark.parametrize(
    ("changed", "step"),
    [
        ({"pretends": True}, "none: the study promises no privacy"),
        ({"created": {"epsilon": 3.0}}, "privacy.epsilon"),
        ({"created": {"delta": 1e-5}}, "privacy.delta"),
        ({"created": {"mechanism": "local-dp-sgd"}}, "privacy.mechanism"),
    ],
    ids=["a spend", "an epsilon", "a delta", "a mechanism"],
)
def test_it_fails_where_anything_pretends_a_promise(tmp_path: Any, changed: dict[str, Any], step: str) -> None:
    result = checked(tmp_path, Exact(**changed))
    assert step in json.dumps(failed_steps(result))


def test_a_private_study_cannot_be_logged_as_one_that_promises_nothing(tmp_path: Any) -> None:
    class Hidden(SampleConsortium):
        def coordinator(self, kind: type[entries.Entry], /, **fields: Any) -> bytes:
            changed = {"mechanism": "none"} if kind is entries.StudyCreated else {}
            return super().coordinator(kind, **(fields | changed))

    assert "privacy.mechanism" in json.dumps(failed_steps(checked(tmp_path, Hidden())))
    assert len(SITES) >= 3
