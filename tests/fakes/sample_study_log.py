"""A complete, plausible study log with real signatures, and ways to lie in it.

`SampleConsortium` plays the coordinator and four hospitals. `whole_study()` fills `lines` with the stored bytes of
every entry of a small study; a test alters them before `open_log` writes them (a coordinator that lies with its real
log key), or alters the exported archive afterwards (a forger without any key). Everything is deterministic.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from audit import certificate, entries, merkle, tiles
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.evidence import Exported, export, policy_text
from audit.log import Log
from audit.note import NoteSigner
from audit.verify import epsilon_lower, epsilon_upper
from consortium.contract.names import Digest
from consortium.contract.submission import Destination, sign

NOT_SET = b"%PDF-1.7 stands for the report on paper"
STUDY = "heart-disease"
SITES = ("cleveland", "hungary", "switzerland", "va-long-beach")
ORIGIN = "fl.example.org/sample-consortium"
SIGMA, RATE, STEPS, DELTA, BUDGET = 4.0, 0.2, 2, 1e-3, 1.0
FIGURES_SIGMA, FIGURES_DELTA, FIGURES_BUDGET = 8.0, 1e-4, 2.0
START_MS = 1_795_000_000_000
OWNER = "u:" + "a" * 32

AUDIT_FIGURES = (("epsilon_high", 0.62), ("epsilon_low", 0.55), ("noise_claimed", SIGMA))

FIGURES = {
    "every_rounds": 1,
    "privacy": {"epsilon": FIGURES_BUDGET, "delta": FIGURES_DELTA},
    "subgroups": [{"column": "sex", "values": [0, 1]}],
}
"""The evaluation of a study whose test figures have a budget."""

Fields = dict[str, Any]


def key(role: str) -> Ed25519PrivateKey:
    """A private key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"sample key {role}".encode()).digest())


def digest(text: str) -> str:
    """Some SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def plausible_epsilon(steps: int) -> float:
    """What an accountant might report for this many steps: between the two bounds."""
    spent = {(SIGMA, RATE): steps}
    return 0.7 * epsilon_lower(spent, DELTA) + 0.3 * epsilon_upper(spent, DELTA)


def figures_epsilon(draws: int) -> float:
    """The same for draws of test figures."""
    if not draws:
        return 0.0
    spent = {(FIGURES_SIGMA, 1.0): draws}
    return 0.3 * epsilon_lower(spent, FIGURES_DELTA) + 0.7 * epsilon_upper(spent, 0.99 * FIGURES_DELTA)


def drawn(steps: int = 1, **changed: Any) -> entries.PoissonSampledDiscreteGaussian:
    """The event of draws of test figures, in a study with one subgroup."""
    fields: Fields = {
        "noise_multiplier": FIGURES_SIGMA,
        "sampling_rate": 1.0,
        "steps": steps,
        "clip_norm_l2": math.sqrt(3),
        "shares": 1,
        "grid_spacing": 2.0**-20,
        "dimension": 61,
    }
    return entries.PoissonSampledDiscreteGaussian(**(fields | changed))


def model_file(number: int) -> tuple[bytes, str]:
    """The global model after `number` rounds: safetensors bytes and digest."""
    rng = np.random.default_rng(number)
    tensors = {"linear.weight": rng.normal(size=(1, 13)), "linear.bias": rng.normal(size=1), "b.scale": np.ones(())}
    arrays = {name: value.astype("<f4") for name, value in tensors.items()}
    layout = [[name, list(arrays[name].shape)] for name in sorted(arrays)]
    header = json.dumps(
        {"parameters": layout, "schema": "consortium/global-model/v1"}, sort_keys=True, separators=(",", ":")
    )
    values = b"".join(arrays[name].tobytes() for name in sorted(arrays))
    return save(arrays), hashlib.sha256(header.encode() + b"\n" + values).hexdigest()


class SampleConsortium:
    """Writes entries as coordinator and sites would; `lines` are the stored bytes so far."""

    def __init__(self, *, rounds: int = 4, steps_planned: int | None = None, figures: bool = False) -> None:
        """`figures`: the test figures have a budget of their own, and `draw` spends it."""
        self.rounds = rounds
        self.steps_planned = STEPS * (rounds + 1) if steps_planned is None else steps_planned
        self.log_signer = NoteSigner(ORIGIN, key("log"))
        self.export_signer = NoteSigner(f"{ORIGIN}/export", key("export"))
        self.lines: list[bytes] = []
        self.chains = {site: entries.SiteChain(site=site) for site in SITES}
        self.steps = dict.fromkeys(SITES, 0)
        self.draws = dict.fromkeys(SITES, 0)
        self.clock_ms = START_MS
        self.metrics: dict[str, float] | None = None  # of every round, in the place of those made up here
        self.document = json.dumps(
            {
                "schema": "consortium/study/v1",
                "id": STUDY,
                "title": "Heart disease across four hospitals",
                "governance": {"sponsor": "Example University Hospital", "purpose": "Predict coronary heart disease"},
                "privacy": {"epsilon": BUDGET, "delta": DELTA, "mechanism": "local-dp-sgd", "unit": "patient"},
                "training": {"rounds": rounds, "spare_rounds": 0},
                "aggregation": {"threshold": 3},
                **({"evaluation": FIGURES} if figures else {}),
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        self.study_digest = hashlib.sha256(self.document).hexdigest()

    def change_document(self, **sections: Any) -> None:
        """Another study, before anything is written about it."""
        changed = json.loads(self.document) | sections
        self.document = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
        self.study_digest = hashlib.sha256(self.document).hexdigest()

    def stamp(self) -> entries.Stamp:
        """The next entry's identity and time, one second later."""
        self.clock_ms += 1000
        return entries.stamp(self.clock_ms, hashlib.sha256(str(self.clock_ms).encode()).digest()[:10])

    def coordinator(self, kind: type[entries.Entry], /, **fields: Any) -> bytes:
        """Append an entry of the coordinator."""
        data = entries.entry_bytes(kind(**self.stamp(), **fields))
        self.lines.append(data)
        return data

    def site(self, name: str, kind: type[Any], /, **fields: Any) -> bytes:
        """Append an entry that a site signs, next in its chain."""
        chain = self.chains[name]
        about = {} if issubclass(kind, entries.SiteOwnEntry) else {"study": STUDY}
        entry = kind(
            **self.stamp(),
            actor=f"site:{name}",
            site_seq=chain.next_seq,
            site_prev=chain.previous,
            **(about | fields),
        )
        data = entries.sign_site_entry(entry, key(name))
        self.chains[name] = chain.admit(data, entry)
        self.lines.append(data)
        return data

    def opening(self) -> None:
        """log.opened, and every site invited and enrolled."""
        self.coordinator(
            entries.LogOpened,
            consortium="Sample consortium",
            log_vkey=self.log_signer.verifier.vkey(),
            export_vkey=self.export_signer.verifier.vkey(),
            coordinator_signing_key=key("coordinator").public_key().public_bytes_raw().hex(),
        )
        for site in SITES:
            self.coordinator(entries.SiteInvited, site=site)
            self.coordinator(
                entries.SiteEnrolled,
                site=site,
                certificate_sha256=digest(f"certificate {site}"),
                spki_sha256=digest(f"spki {site}"),
                signing_key=key(site).public_key().public_bytes_raw().hex(),
            )

    def owned(self, own: Ed25519PrivateKey | None = None, **said: str) -> dict[str, str]:
        """The fields of study.created that its owner signed for; `said` in place of what is true of this consortium."""
        here = {
            "consortium": "Sample consortium",
            "coordinator_signing_key": key("coordinator").public_key().public_bytes_raw().hex(),
        }
        now = datetime.fromtimestamp(self.clock_ms // 1000, UTC)
        submission = sign(Digest(self.study_digest), Destination(**(here | said)), own or key("owner"), now=now)
        return {
            "owner": OWNER,
            "owner_key": submission.owner_key,
            "signed_at": submission.signed_at,
            "owner_signature": submission.signature,
        }

    def agreeing(self, *, without: Iterable[str] = (), owner: Mapping[str, str] | None = None) -> None:
        """The study is submitted, approved by every site but those in `without`, prepared and started.

        `owner` is what study.created says of who signed it, `owned()` by default; empty, nobody did.
        """
        self.coordinator(
            entries.StudyCreated,
            study=STUDY,
            study_digest=self.study_digest,
            document_sha256=self.study_digest,
            title="Heart disease across four hospitals",
            sites=SITES,
            rounds=self.rounds,
            threshold=3,
            minimum=3,
            epsilon=BUDGET,
            delta=DELTA,
            unit="patient",
            mechanism=json.loads(self.document)["privacy"]["mechanism"],
            **(self.owned() if owner is None else owner),
        )
        for site in SITES:
            if site not in without:
                self.site(
                    site,
                    entries.StudyApproved,
                    study_digest=self.study_digest,
                    steward=f"u:{digest(site)[:32]}",
                    statement="I have read this study and approve it for our hospital.",
                )
            self.site(
                site,
                entries.CohortSnapshot,
                dataset="heart",
                columns=("age", "chol", "cp", "sex", "trestbps"),
                patients="100-199",
                contract_digest=digest("contract"),
            )
            self.site(
                site,
                entries.DpConfigured,
                dataset="heart",
                mechanism="local-dp-sgd",
                unit="patient",
                relation="add-or-remove-one",
                noise_multiplier=SIGMA,
                sampling_rate=RATE,
                steps_planned=self.steps_planned,
                clip_norm_l2=1.0,
                event=entries.PoissonSampledGaussian(
                    noise_multiplier=SIGMA, sampling_rate=RATE, steps=self.steps_planned
                ),
                epsilon_planned=plausible_epsilon(self.steps_planned),
                delta=DELTA,
                accountant="dp-accounting PLD",
                accountant_version="0.6.0",
                engine="bookkeeping",
            )
            self.site(
                site,
                entries.DpAudited,
                dataset="heart",
                checks=("noise", "sampling", "sensitivity"),
                failed=(),
                figures=AUDIT_FIGURES,
                confidence=0.999999,
            )
        self.coordinator(
            entries.StudyStarted,
            study=STUDY,
            study_digest=self.study_digest,
            sites=SITES,
            model_digest=model_file(0)[1],
        )

    def one_round(
        self,
        number: int,
        *,
        attempt: int = 1,
        survivors: tuple[str, ...] = SITES,
        kind: str = "train",
        spend: Callable[[str, int], float] = lambda _, steps: plausible_epsilon(steps),
        closed: bool = True,
        participants: tuple[str, ...] = SITES,
        measured: bool = True,
        **changed: Any,
    ) -> None:
        """One attempt at one round; `changed` overrides fields of round.closed."""
        survivors = tuple(site for site in survivors if site in participants)
        at: Fields = {"round": number, "attempt": attempt}
        before = model_file(min(number - 1, self.rounds))[1]
        after = model_file(number)[1] if kind == "train" else before
        self.coordinator(
            entries.RoundStarted,
            study=STUDY,
            **at,
            kind=kind,
            plan_sha256=digest(f"plan {number} {attempt}"),
            participants=participants,
            threshold=3,
            model_digest=before,
        )
        for site in participants:
            if kind == "train":
                self.steps[site] += STEPS
                event = entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=STEPS)
                self.site(
                    site,
                    entries.DpSpent,
                    **at,
                    dataset="heart",
                    event=event,
                    epsilon=spend(site, self.steps[site]),
                    delta=DELTA,
                    steps_total=self.steps[site],
                )
            if site in survivors:
                masked = digest(f"masked {site} {number}")
                self.site(site, entries.UpdateSubmitted, **at, masked_update_sha256=masked, size_bytes=1272)
            else:
                self.coordinator(
                    entries.SecaggDropout, study=STUDY, **at, site=site, phase="mask", reason="stream closed"
                )
        if not closed:
            self.coordinator(entries.RoundAborted, study=STUDY, **at, reason="fewer survivors than the threshold")
            return
        fields: Fields = {
            "survivors": survivors,
            "transcript": digest(f"transcript {number}"),
            "aggregate_sha256": digest(f"aggregate {number}"),
            "model_digest": before,
            "next_model_digest": after,
        }
        self.coordinator(entries.RoundClosed, study=STUDY, **at, **(fields | changed))
        metrics = self.metrics or {
            "auc": 0.62 + 0.24 * (1 - 0.7**number),
            "accuracy": 0.6 + 0.2 * (1 - 0.6**number),
            "loss": 0.7**number,
        }
        if measured:
            self.coordinator(
                entries.ModelEvaluated, study=STUDY, **at, model_digest=before, metrics=tuple(sorted(metrics.items()))
            )
        for site in survivors:
            self.site(site, entries.ModelVerified, **at, next_model_digest=after)

    def draw(self, site: str, *, round: int, **changed: Any) -> bytes:  # noqa: A002 - what it is called in an entry
        """A site's test figures of one round; `changed` overrides fields of figures.spent."""
        self.draws[site] += 1
        fields: Fields = {
            "attempt": 1,
            "dataset": "heart",
            "event": drawn(),
            "epsilon": figures_epsilon(self.draws[site]),
            "delta": FIGURES_DELTA,
            "steps_total": self.draws[site],
        }
        return self.site(site, entries.FiguresSpent, round=round, **(fields | changed))

    def certificate(self, site: str, **changed: Any) -> bytes:
        """A site's privacy certificate over what it has spent so far; `changed` overrides fields."""
        steps = self.steps[site]
        epsilon = plausible_epsilon(steps)
        fields: Fields = {
            "study_digest": self.study_digest,
            "dataset": "heart",
            "unit": "patient",
            "relation": "add-or-remove-one",
            "patients": "100-199",
            "epsilon": epsilon,
            "delta": DELTA,
            "epsilon_figures": figures_epsilon(self.draws[site]),
            "delta_figures": FIGURES_DELTA if self.draws[site] else 0.0,
            "trust": "local",
            "threshold": 3,
            "colluding": 0,
            "honest": 1,
            "epsilon_unmasked": epsilon,
            "event": entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=steps),
            "clip_norm_l2": 1.0,
            "steps_planned": self.steps_planned,
            "records_per_patient": 1,
            "sampling": "Poisson over patients; a step nobody falls into is noise alone.",
            "generator": "AES-256-CTR",
            "accountant": "dp-accounting PLD",
            "accountant_version": "0.6.0",
            "studies": (STUDY,),
            "epsilon_dataset": epsilon + figures_epsilon(self.draws[site]),
            "delta_dataset": DELTA,
            "outside": ("Test figures are exact sums over hospitals.", "Choices made before the study."),
            "audit": "passed",
            "audit_figures": AUDIT_FIGURES,
            "software": ("hospital-consortium 0.1.0", "python 3.11.9"),
            "code_sha256": digest("code"),
        }
        return self.site(site, entries.DpCertificate, **(fields | changed))

    def model_certificate(self, **changed: Any) -> None:
        """The model's certificate, composed from the sites' in the log; `changed` overrides fields."""
        promise = certificate.due(self.lines, study=STUDY)
        assert promise is not None
        self.coordinator(entries.ModelCertificate, study=STUDY, **(promise.fields() | changed))

    def ending(self, *, certified: Callable[["SampleConsortium"], None] | None = None) -> None:
        """One evaluation, then completed, certified and released; `certified` writes other certificates."""
        self.one_round(self.rounds + 1, kind="evaluate")
        last = model_file(self.rounds)[1]
        self.coordinator(entries.StudyCompleted, study=STUDY, model_digest=last)
        if certified is not None:
            certified(self)
        else:
            for site in SITES:
                self.certificate(site)
            self.model_certificate()
        self.coordinator(entries.ModelReleased, study=STUDY, model_digest=last)

    def whole_study(self) -> "SampleConsortium":
        """A study with a dropout, a failed attempt, a refused call, and an end."""
        self.opening()
        self.agreeing()
        self.coordinator(entries.AuthzDenied, subject="site:hungary", action="study abort", rule="only the lead may")
        self.one_round(1)
        self.one_round(2, survivors=SITES[:2], closed=False)
        self.one_round(2, attempt=2, survivors=tuple(site for site in SITES if site != "switzerland"))
        for number in range(3, self.rounds + 1):
            self.one_round(number)
        self.ending()
        return self

    def open_log(self, directory: Path) -> Log:
        """All lines in a new log, in one commit."""
        log = Log.create(directory, self.log_signer)
        log.append(self.lines)
        return log

    def export(self, log: Log, out: Path, *, printed: bool = False, **changed: Any) -> Exported:
        """The study's evidence; to set its PDF takes four fifths of the time, and is done where somebody reads it."""
        values: Fields = {
            "log": log,
            "study": STUDY,
            "study_document": self.document,
            "model": model_file(self.rounds)[0],
            "exported_by": "lead",
            "software": (("hospital-consortium", "0.1.0"),),
            "signer": self.export_signer,
            "stamp": self.stamp(),
            "out": out,
        }
        with nullcontext() if printed else patch("audit.evidence.render_pdf", lambda _: NOT_SET):
            return export(**(values | changed))


def evidence(directory: Path, consortium: SampleConsortium | None = None) -> tuple[Path, bytes]:
    """A log and its exported archive in `directory`; returns the archive and the policy to check it with."""
    consortium = consortium or SampleConsortium().whole_study()
    log = consortium.open_log(directory / "log")
    try:
        return consortium.export(log, directory / "evidence.zip").path, policy_text(log)
    finally:
        log.close()


def log_files(lines: list[bytes], signer: NoteSigner) -> dict[str, bytes]:
    """The `log/` folder of an archive over any lines at all, validly signed."""
    tree = merkle.Tree(merkle.leaf_hash(line) for line in lines)
    head = Checkpoint(origin=signer.name, size=tree.size, root=tree.root())
    files = {"log/checkpoint": sign_checkpoint(head, signer).to_bytes()}
    for tile in tiles.tiles_of(tree.size):
        files[f"log/{tile.path()}"] = tile.content(tree)
        if tile.level == 0:
            files[f"log/{tile.bundle_path()}"] = tiles.pack_bundle(lines[tile.start : tile.start + tile.width])
    return files


def unpack(archive: Path) -> dict[str, bytes]:
    """Every file of an archive."""
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive of files, without any of the care that an export takes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    return path


def failed_steps(result: Mapping[str, Any]) -> dict[str, Any]:
    """Title -> step, for the steps of a verification that failed."""
    return {step["title"]: step for step in result["steps"] if step["status"] == "FAIL"}
