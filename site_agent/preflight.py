"""`site-agent check`: try what a run will need, and say what was found and what to do.

All that is sent is a TLS handshake, and to the coordinator a question for its studies and one for its clock.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consortium import __version__
from consortium.contract import certificates
from consortium.contract.certificates import Role
from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData
from site_agent.bundles.approval import bundle_at
from site_agent.check_coordinator import NAMES as COORDINATOR_NAMES
from site_agent.check_coordinator import ask_coordinator
from site_agent.check_machine import check_confinement, check_disk, check_folders, check_memory
from site_agent.check_network import Firewall, look_at_network
from site_agent.check_result import CheckFailed, CheckResult, CheckWarns, broken, not_checked, passed
from site_agent.check_stewards import check_stewards
from site_agent.client_algo_file import made_client_algo
from site_agent.computing import compute_of, trial_of
from site_agent.datasets import FOLDERS
from site_agent.home import AgentHome, open_home
from site_agent.ledger import Ledger
from site_agent.left_out import withdrawn_at
from site_agent.patient_marks import identifiers_in, marks_of
from site_agent.renewal import due_at
from site_agent.starting_point import require_named_file
from site_agent.store import Store
from site_agent.training_spec import spec_of

SCHEMA = "consortium/site-check/v1"
CERTIFICATE_DAYS_MIN = 3
CERTIFICATE_LOW_PART = 6
"""An agent renews at a third; with less than a sixth left something is in the way."""

Check = Callable[[AgentHome], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Everything that was tried."""

    site: str
    at: datetime  # UTC
    results: tuple[CheckResult, ...]
    firewall: Firewall | None

    @property
    def ok(self) -> bool:
        """Whether a run can be expected to work."""
        return all(result.ok for result in self.results)

    def to_json(self) -> dict[str, object]:
        """For monitoring; docs/reference/site-check.md promises these keys."""
        return {
            "schema": SCHEMA,
            "site": self.site,
            "agent_version": __version__,
            "at": self.at.isoformat(timespec="seconds"),
            "ok": self.ok,
            "checks": [result.to_json() for result in self.results],
            "firewall": None if self.firewall is None else self.firewall.to_json(),
        }


async def run_checks(folder: Path) -> Checked:
    """Every check, in the order in which a run would fail; a later one is tried even when an earlier one fails.

    Only the way to the coordinator is different: where a stretch of it is broken, those behind it are not tried.

    Raises:
        HomeInvalid: There is no home to check.
    """
    home = open_home(folder)
    results = [
        await _tried(home, "configuration", _configuration),
        await _tried(home, "folders", _folders),
        await _tried(home, "disk", _disk),
        await _tried(home, "memory", _memory),
        await _tried(home, "confinement", _confinement),
        await _tried(home, "keys", _keys),
        await _tried(home, "certificate", _certificate),
        await _tried(home, "stewards", _stewards),
    ]
    network = await look_at_network(home)
    results += network.results
    in_the_way = next((one for one in network.results if not one.ok), None)
    if in_the_way is None:
        results += await ask_coordinator(home)
    else:
        results += [not_checked(name, in_the_way.name) for name in COORDINATOR_NAMES]
    results += [
        await _tried(home, "data", _data),
        await _tried(home, "gpu", _gpu),
        await _tried(home, "engines", _engines),
        await _tried(home, "ledger", _ledger),
    ]
    return Checked(site=home.site, at=datetime.now(UTC), results=tuple(results), firewall=network.firewall)


async def _tried(home: AgentHome, name: str, check: Check) -> CheckResult:
    try:
        return passed(name, await check(home))
    except Exception as error:  # noqa: BLE001 - a check that cannot be made has failed, whatever the reason
        return broken(name, error)


async def _folders(home: AgentHome) -> str:
    return await asyncio.to_thread(check_folders, home)


async def _disk(home: AgentHome) -> str:
    return await asyncio.to_thread(check_disk, home)


async def _memory(home: AgentHome) -> str:
    return check_memory(home)


async def _confinement(_: AgentHome) -> str:
    return await asyncio.to_thread(check_confinement)


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


async def _keys(home: AgentHome) -> str:
    signing = home.signing_key.public_key().public_bytes_raw().hex()
    tls = home.connection.spki_sha256
    _ = home.long_term_secret
    # A renewed certificate has a TLS key of its own, and names the signing keys as the one before it did.
    expected = home.identity.spki_sha256
    if home.connection_path.exists():
        expected = _shown(home).spki_sha256.hex()
    held = (signing, home.ecdsa_key.public.hex(), tls)
    # After a change of the signing keys agent.db says which they are.
    changed = Store(home.folder / "agent.db").own_keys()
    own = (home.identity.signing_key, home.identity.ecdsa_key) if changed is None else (changed.signing, changed.ecdsa)
    if held != (*own, expected):
        raise CheckFailed(
            "they are not the keys this home was enrolled with, or changed to",
            "Restore the keys folder, or enrol anew.",
        )
    return "readable by their owner only, and the ones that were enrolled, or changed to"


async def _certificate(home: AgentHome) -> str:
    now, shown = datetime.now(UTC), home.connection
    holder = _shown(home)
    left = shown.not_after - now
    found = f"{holder.name}, good for {left.days} days; renewed by itself from {due_at(shown):%Y-%m-%d} on"
    renews = "Start the agent, which renews it; its log says what is in the way. After the end only a new kit helps."
    if left.days < CERTIFICATE_DAYS_MIN:
        raise CheckFailed(f"it expires in {left.days} days", renews)
    if left < (shown.not_after - shown.not_before) / CERTIFICATE_LOW_PART:
        raise CheckWarns(f"{holder.name}, good for {left.days} days, and was not renewed", renews)
    return found


def _shown(home: AgentHome) -> certificates.PeerIdentity:
    """What the certificate says that is shown to the coordinator; raises CertificateRefused."""
    der = certificates.certificate_der(home.connection.certificate_pem)
    return certificates.verify_certificate(der, home.ca_certificate, datetime.now(UTC), role=Role.SITE)


async def _stewards(home: AgentHome) -> str:
    return check_stewards(Store(home.folder / "agent.db").stewards(), home.config.policy)


async def _data(home: AgentHome) -> str:
    from site_agent.cohort import read_cohort  # noqa: PLC0415 - pandas

    config = home.config
    for name, dataset in config.datasets.items():
        kind = "folder" if isinstance(dataset, FOLDERS) else "file"
        if not _is_there(Path(dataset.path), kind):
            raise CheckFailed(f"dataset {name}: {dataset.path} is not a {kind}", "Correct the path in site.yaml.")
        if not os.access(dataset.path, os.R_OK | (os.X_OK if kind == "folder" else 0)):
            raise CheckFailed(
                f"dataset {name}: {dataset.path} may not be read by this account",
                "Let the account that runs the agent read it (and nobody who need not).",
            )
    checked = []
    store = Store(home.folder / "agent.db")
    withdrawn = withdrawn_at(home, store)
    for decision in store.decisions():
        chosen = config.dataset_for(decision.study)
        if decision.decision != "approved" or chosen is None:
            continue
        study = StudyFile.from_document(decision.document)
        summary = (await asyncio.to_thread(read_cohort, study, chosen, home.images, withdrawn)).summary
        if isinstance(study.data, ImagingData):
            from site_agent.imaging.cohort import report_lines  # noqa: PLC0415 - only for images

            checked.append("\n  ".join([f"{decision.study}:", *report_lines(summary)]))
            continue
        checked.append(
            f"{decision.study}: {summary.patients} patients ({summary.sides}), {summary.records_left_out} of "
            f"{summary.records_read} records left out for missing values"
        )
    return "\n".join(checked) or "every dataset's file is there; they are checked against a study once it is approved"


def _is_there(path: Path, kind: str) -> bool:
    return path.is_dir() if kind == "folder" else path.is_file()


async def _gpu(home: AgentHome) -> str:
    """Where networks would be computed: what site.yaml asks for, on this machine."""
    config = home.config
    compute = await asyncio.to_thread(compute_of, config.device, config.precision)
    return f"device {config.device} means here: {compute.words}"


async def _engines(home: AgentHome) -> str:
    """How gradients would be computed for each approved study, tried on made-up records as before its first round."""
    config = home.config
    compute = await asyncio.to_thread(compute_of, config.device, config.precision)
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
