"""`site-agent check`: try what a run will need, and say what was found. All that is sent is a request for studies."""

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consortium.contract import certificates
from consortium.contract.certificates import Role
from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData
from site_agent.agent import CoordinatorLine, dial
from site_agent.bundles.approval import bundle_at
from site_agent.client_algo_file import made_client_algo
from site_agent.datasets import FOLDERS
from site_agent.errors import SiteError
from site_agent.home import AgentHome, HomeInvalid, open_home
from site_agent.ledger import Ledger
from site_agent.patient_marks import identifiers_in, marks_of
from site_agent.preparation import compute_of, trial_of
from site_agent.starting_point import require_named_file
from site_agent.store import Store
from site_agent.training_spec import spec_of

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
    """Every check, in the order in which a run would fail; a later one is tried even when an earlier one fails.

    Raises:
        HomeInvalid: There is no home to check.
    """
    home = open_home(folder)
    checks: list[tuple[str, Callable[[AgentHome], Awaitable[str]]]] = [
        ("configuration", _configuration),
        ("disk", _disk),
        ("keys", _keys),
        ("certificate", _certificate),
        ("coordinator", _coordinator),
        ("data", _data),
        ("engines", _engines),
        ("ledger", _ledger),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(CheckResult(name=name, ok=True, found=await check(home)))
        except Exception as error:  # noqa: BLE001 - a check that cannot be made has failed, whatever the reason
            advice = getattr(error, "advice", None)
            results.append(
                CheckResult(
                    name=name,
                    ok=False,
                    found=str(error) if advice is not None else f"{type(error).__name__}: {error}",
                    advice=advice() if advice is not None else "Report this: the check itself failed.",
                )
            )
    return results


async def _configuration(home: AgentHome) -> str:
    config = home.config
    for digest, path in config.bundles.items():
        bundle_at(digest, Path(path))
    for registered in config.client_algos.values():
        await asyncio.to_thread(made_client_algo, registered)
    algos = f"; client_algos {', '.join(config.client_algos)}, each made of its file" if config.client_algos else ""
    for sha256, path in config.weights.items():
        await asyncio.to_thread(require_named_file, sha256, Path(path))
    weights = f"; weights {len(config.weights)}, each as its digest says" if config.weights else ""
    bundles = f"; bundles {len(config.bundles)}, each as its digest says" if config.bundles else ""
    return (
        f"site.yaml is valid: datasets {', '.join(config.datasets)}; studies {', '.join(config.studies) or 'none yet'}"
        f"{bundles}{algos}{weights}"
    )


async def _disk(home: AgentHome) -> str:
    free = shutil.disk_usage(home.folder).free
    if free < DISK_FREE_MIN_BYTES:
        raise CheckFailed(
            f"{free / 2**20:.0f} MiB free", "Free some space; the agent must be able to write its ledger."
        )
    return f"{free / 2**30:.1f} GiB free"


async def _keys(home: AgentHome) -> str:
    signing = home.signing_key.public_key().public_bytes_raw().hex()
    try:
        tls = hashlib.sha256(certificates.spki_of(certificates.load_tls_key(home.tls_key_pem).public_key())).hexdigest()
    except ValueError as error:
        raise HomeInvalid(f"{home.folder / 'keys' / 'tls.pem'}: {error}") from error
    _ = home.long_term_secret
    held = (signing, home.ecdsa_key.public.hex(), tls)
    if held != (home.identity.signing_key, home.identity.ecdsa_key, home.identity.spki_sha256):
        raise CheckFailed(
            "they are not the keys this home was enrolled with", "Restore the keys folder, or enrol anew."
        )
    return "readable by their owner only, and the ones that were enrolled"


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
    async with await dial(home, line) as client:
        studies = await client.list_studies()
    return f"{home.address} answered over mutual TLS 1.3; studies offered: {len(studies)}"


async def _data(home: AgentHome) -> str:
    from site_agent.cohort import read_cohort  # noqa: PLC0415 - pandas

    config = home.config
    for name, dataset in config.datasets.items():
        kind = "folder" if isinstance(dataset, FOLDERS) else "file"
        if not _is_there(Path(dataset.path), kind):
            raise CheckFailed(f"dataset {name}: {dataset.path} is not a {kind}", "Correct the path in site.yaml.")
    checked = []
    for decision in Store(home.folder / "agent.db").decisions():
        chosen = config.dataset_for(decision.study)
        if decision.decision != "approved" or chosen is None:
            continue
        study = StudyFile.from_document(decision.document)
        summary = (await asyncio.to_thread(read_cohort, study, chosen, home.images)).summary
        if isinstance(study.data, ImagingData):
            from site_agent.imaging.cohort import report_lines  # noqa: PLC0415 - only for images

            checked.append("\n  ".join([f"{decision.study}:", *report_lines(summary)]))
            continue
        checked.append(
            f"{decision.study}: {summary.patients} patients ({summary.training_patients} to train, "
            f"{summary.test_patients} to test), {summary.records_left_out} of {summary.records_read} records left out "
            "for missing values"
        )
    return "\n".join(checked) or "every dataset's file is there; they are checked against a study once it is approved"


def _is_there(path: Path, kind: str) -> bool:
    return path.is_dir() if kind == "folder" else path.is_file()


async def _engines(home: AgentHome) -> str:
    """How gradients would be computed for each approved study, tried on made-up records as before its first round."""
    config = home.config
    compute = await asyncio.to_thread(compute_of, config)
    found = [f"device: {compute.words}"]
    for decision in Store(home.folder / "agent.db").decisions():
        dataset = config.dataset_for(decision.study)
        if decision.decision != "approved" or dataset is None:
            continue
        study = StudyFile.from_document(decision.document)
        if study.is_private:
            spec = spec_of(study, declared_patients=dataset.declared_patients, weights=config.weights)
            trial = await asyncio.to_thread(trial_of, spec, config.engine, compute)
            found.append(f"{decision.study}: {trial.words}")
    if not found[1:]:
        found.append(f"engine: {config.engine}; they are tried on a study's network once it is approved")
    return "\n".join(found)


async def _ledger(home: AgentHome) -> str:
    """Whether the ledger is as new as what was signed, and which datasets have patients in common."""
    store = Store(home.folder / "agent.db")
    ledger = Ledger(home.folder / "ledger.db", told=store.told)
    ledger.require_current()
    await asyncio.to_thread(_register, home, ledger)
    studies = len({row.study_digest for row in ledger.report()})
    shared = [
        f"{name} and {overlap.dataset} have {overlap.patients or 'perhaps some'} patients in common and one budget"
        for name in home.config.datasets
        for overlap in ledger.overlaps(name)
        if name < overlap.dataset or overlap.dataset not in home.config.datasets
    ]
    current = f"as new as what this hospital signed; studies that spent something: {studies}"
    return "; ".join([current, *shared])


def _register(home: AgentHome, ledger: Ledger) -> None:
    for name, dataset in home.config.datasets.items():
        if Path(dataset.path).exists():  # that one is missing is said where data are checked
            ledger.register(name, marks_of(identifiers_in(dataset), home.long_term_secret))
