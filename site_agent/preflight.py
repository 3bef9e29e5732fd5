"""`site-agent check`: try what a run will need, and say what was found. Nothing is sent but a greeting."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consortium.contract import certificates
from consortium.contract.certificates import Role
from consortium.contract.study import StudyFile
from consortium.wire.client import CoordinatorClient
from site_agent.agent import CoordinatorLine
from site_agent.errors import SiteError
from site_agent.home import AgentHome, open_home
from site_agent.store import Store

DISK_FREE_MIN_BYTES = 500 * 2**20
CERTIFICATE_DAYS_MIN = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One thing that was tried."""

    name: str
    ok: bool
    found: str
    advice: str = ""


class CheckFailed(SiteError):
    """Something a run will need is not as it must be."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


async def run_checks(folder: Path) -> list[CheckResult]:
    """Every check, in the order in which a run would fail; a later one is tried even when an earlier one fails."""
    home = open_home(folder)
    checks: list[tuple[str, Callable[[AgentHome], Awaitable[str]]]] = [
        ("configuration", _configuration),
        ("disk", _disk),
        ("certificate", _certificate),
        ("coordinator", _coordinator),
        ("data", _data),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(CheckResult(name=name, ok=True, found=await check(home)))
        except Exception as error:
            advice = getattr(error, "advice", None)
            if advice is None:
                raise
            results.append(CheckResult(name=name, ok=False, found=str(error), advice=advice()))
    return results


async def _configuration(home: AgentHome) -> str:
    config = home.config
    return f"site.yaml is valid: {len(config.datasets)} dataset(s), studies {', '.join(config.studies) or 'none yet'}"


async def _disk(home: AgentHome) -> str:
    free = shutil.disk_usage(home.folder).free
    if free < DISK_FREE_MIN_BYTES:
        raise CheckFailed(
            f"{free / 2**20:.0f} MiB free", "Free some space; the agent must be able to write its ledger."
        )
    return f"{free / 2**30:.1f} GiB free"


async def _certificate(home: AgentHome) -> str:
    now = datetime.now(UTC)
    der = certificates.certificate_der(home.certificate_pem)
    holder = certificates.verify_certificate(der, home.ca_certificate, now, role=Role.SITE)
    days = (holder.not_after - now).days
    if days < CERTIFICATE_DAYS_MIN:
        raise CheckFailed(f"it expires in {days} days", "Ask the consortium lead for a new kit and enrol again.")
    return f"{holder.name}, good for {days} days"


async def _coordinator(home: AgentHome) -> str:
    line = CoordinatorLine(Store(home.folder / "agent.db"))
    client = await CoordinatorClient.connect(
        home.identity.address, home.ca_pem, home.certificate_pem, home.tls_key_pem, on_sent=line.record
    )
    async with client:
        studies = await client.list_studies()
    return f"{home.identity.address} answered over mutual TLS 1.3; it offers {len(studies)} study(ies)"


async def _data(home: AgentHome) -> str:
    from site_agent.cohort import read_cohort  # noqa: PLC0415 - pandas

    config = home.config
    checked = []
    for decision in Store(home.folder / "agent.db").decisions():
        dataset = config.dataset_for(decision.study)
        if decision.decision != "approved" or dataset is None:
            continue
        cohort = await asyncio.to_thread(read_cohort, StudyFile.from_document(decision.document), dataset)
        summary = cohort.summary
        checked.append(
            f"{decision.study}: {summary.patients} patients ({summary.training_patients} to train, {summary.test_patients} to test), "
            f"{summary.records_left_out} of {summary.records_read} records left out for missing values"
        )
    for name, dataset in config.datasets.items():
        if not Path(dataset.path).is_file():
            raise CheckFailed(f"dataset {name}: {dataset.path} is not a file", "Correct the path in site.yaml.")
    return "; ".join(checked) or "every dataset's file is there; they are checked against a study once it is approved"
