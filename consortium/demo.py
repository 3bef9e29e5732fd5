"""`consortium demo`: the whole thing on one machine, with nothing simulated.

Every step is a command a hospital or a coordinating centre would type, run as a process of its own: a coordinator, one
agent per hospital, mutual TLS between them, keys made where they belong. The demo only waits, shows, and at the end
compares with what no consortium can have: every record in one place.
"""

import asyncio
import json
import re
import secrets
import socket
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from audit.entries import DpCertificate, parse_entry
from consortium.assets import heart_disease, study_file
from consortium.contract.private_files import write_private
from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import TabularData
from consortium.demo_baselines import alone, pooled
from consortium.demo_data import prepares, require_data, site_files
from consortium.demo_images import Figures, compared, figure_of, footnote, results_table, verdict
from consortium.errors import ConsortiumError
from consortium.operator import watch_status
from consortium.status_view import StatusView
from site_agent.app import dataset_budgets, egress_of, open_store
from site_agent.cohort import Cohort, read_cohort
from site_agent.datasets import Dataset
from site_agent.site_file import load_site_file

READY_WAIT_S = 60.0
STUDY_WAIT_S = 900.0
STOP_WAIT_S = 10.0
CERTIFICATE_WAIT_S = 60.0
FEW_PATIENTS = 5


class DemoFailed(ConsortiumError):
    """A step of the demo did not work."""

    def advice(self) -> str:
        """What to do next."""
        return "Everything that was written is kept, logs included: see the folder named above."


class DemoFolder(ConsortiumError):
    """The output folder cannot be used."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "Name another folder with --out, or remove this one; nothing was changed."


def run_demo(
    study: Path | None, out: Path | None, *, rounds: int | None, seed: int | None, data: Path | None = None
) -> int:
    """Run it all; returns 0 only if every step worked and the evidence was verified."""
    source = study_file(study if study is not None else Path("heart-disease"))
    out = out or _unused(Path("consortium-demo"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoFolder(f"{out} exists and is not empty")
    require_data(load_study(source), data)
    out.mkdir(parents=True, exist_ok=True)
    demo = Demo(source, out.resolve(), rounds=rounds, seed=seed, data=data)
    try:
        return asyncio.run(demo.run())
    except KeyboardInterrupt:
        return 130


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOutcome:
    """What one hospital can say at the end, from its own folder."""

    site: str
    last: Mapping[str, Any]  # the final model on this hospital's test patients
    epsilon: float  # of its training
    figures: float  # of test figures with a budget of their own; 0 without
    bytes_left: int
    messages_left: int


class Demo:
    """One run, in one folder."""

    def __init__(
        self, source: Path, out: Path, *, rounds: int | None, seed: int | None, data: Path | None = None
    ) -> None:
        # A table in a log file must not be squeezed into 80 columns.
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
        self._source = source
        self._out = out
        self._home = out / "coordinator"
        self._study_path = out / "study.yaml"
        self._study_path.write_text(_with_settings(source.read_text(), rounds=rounds, seed=seed))
        self._study: StudyFile = load_study(self._study_path)
        self._begun = time.monotonic()
        self._processes: list[asyncio.subprocess.Process] = []
        (out / "logs").mkdir()
        # Written only for studies whose hospitals' data are made or divided here, by name of the hospital.
        self._site_files: Mapping[str, str] = {}
        if prepares(self._study):
            self._say("The hospitals' images are prepared ...")
            self._site_files = site_files(self._study, data, out / "data")

    async def run(self) -> int:
        """The story, in order."""
        study = self._study
        promised = f"epsilon {study.privacy.epsilon:g}" if study.is_private else "no differential privacy"
        self._say(
            f"[bold]{study.title}[/bold]: {len(study.sites.required)} hospitals, {study.training.rounds} rounds, "
            f"{promised} per patient and hospital, on this machine. Files go to {self._out}"
        )
        async with AsyncExitStack() as running:
            port = _free_port()
            await self._step("consortium", "init", self._home, "--name", "demo", "--address", f"127.0.0.1:{port}")
            coordinator = await running.enter_async_context(
                self._background("consortium", "serve", "--home", self._home)
            )
            await self._ready(coordinator)
            await asyncio.gather(*(self._enrol(site) for site in study.sites.roster))
            for site in study.sites.roster:
                await running.enter_async_context(self._background("site-agent", "run", "--home", self._out / site))
            await self._step("consortium", "study", "submit", self._study_path, "--home", self._home)
            await asyncio.gather(*(self._approve(site) for site in study.sites.roster))
            await self._step("consortium", "study", "start", study.id, "--home", self._home)
            final = await self._watch()
            if study.is_private:
                await self._certified()
            await self._step(
                "consortium", "study", "release", study.id, "--home", self._home, "--out", self._out / "model"
            )
            evidence = self._out / "evidence.zip"
            await self._step(
                "consortium", "audit", "export", "--study", study.id, "--home", self._home, "--out", evidence
            )
            policy = await self._write_policy()
            for process in self._processes:  # all at once, then each is waited for
                process.terminate()
        verified = await self._verify(evidence, policy)
        outcomes = [self._outcome(site) for site in study.sites.roster]
        self._show_results(final, outcomes)
        self._show_ending(verified=verified)
        return 0 if verified else 1

    # --- steps -----------------------------------------------------------------------------------------------------

    async def _enrol(self, site: str) -> None:
        kit = self._out / "kits" / f"{site}.zip"
        kit.parent.mkdir(exist_ok=True)
        await self._step("consortium", "site", "invite", site, "--home", self._home, "--out", kit)
        await self._step("site-agent", "enrol", "--kit", kit, "--home", self._out / site)
        self._write_site_file(site)

    async def _approve(self, site: str) -> None:
        """The hospital's steward makes a key of their own, and approves with it."""
        home, steward, folder = self._out / site, f"steward of {site}", self._out / "stewards"
        folder.mkdir(mode=0o700, exist_ok=True)
        passphrase = folder / f"{site}.txt"
        write_private(passphrase, secrets.token_urlsafe(24).encode())
        signing = ("--key", folder / f"{site}.key", "--passphrase-file", passphrase)
        await self._step("site-agent", "stewards", "add", steward, "--home", home, *signing)
        await self._step(
            "site-agent", "studies", "approve", self._study.id, "--home", home, "--steward", steward, *signing
        )

    def _write_site_file(self, site: str) -> None:
        """The hospital's own configuration, with its data path made absolute."""
        if site in self._site_files:
            (self._out / site / "site.yaml").write_text(self._site_files[site])
            return
        beside = self._source.parent / "sites" / site / "site.yaml"
        # Other studies of the hospitals that come with the package need no copies of their files.
        source = beside if beside.is_file() else heart_disease() / "sites" / site / "site.yaml"
        if not source.is_file():
            raise DemoFailed(f"{source} is missing: the demo needs a site.yaml for every hospital of the study")

        def absolute(match: re.Match[str]) -> str:
            return f"{match[1]}{json.dumps(str((source.parent / match[2]).resolve()))}"

        text = re.sub(r"(?m)^(\s+path:\s*)(\S+)", absolute, source.read_text())
        (self._out / site / "site.yaml").write_text(text)

    async def _write_policy(self) -> Path:
        """As a hospital has it: the log's key from its kit, the witnesses' keys from its own copy of the log."""
        path = self._out / "policy.txt"
        await self._step(
            "site-agent",
            "policy",
            "--study",
            self._study.id,
            "--home",
            self._out / self._study.sites.roster[0],
            to=path,
        )
        return path

    async def _verify(self, evidence: Path, policy: Path) -> bool:
        """As a stranger would: the program from the bundle, in a process of its own, under plain Python."""
        with zipfile.ZipFile(evidence) as archive:
            for name in ("verify.py", "report.html", "report.pdf"):
                (self._out / name).write_bytes(archive.read(name))
        self._say(f"[dim]$[/dim] python3 verify.py {evidence.name} --policy {policy.name}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "verify.py", evidence.name, "--policy", policy.name,
            cwd=self._out, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        (self._out / "logs" / "verify.log").write_bytes(output)
        self._console.print(output.decode().rstrip(), markup=False, soft_wrap=True)
        return process.returncode == 0

    async def _watch(self) -> Mapping[str, Any]:
        """Show the study until it is over: a live table for people, a line a round otherwise."""
        view = StatusView()
        last: Mapping[str, Any] = {}
        shown = size = 0
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            async with asyncio.timeout(STUDY_WAIT_S):
                async for snapshot in watch_status(self._home):
                    last = next(s for s in snapshot["studies"] if s["study"] == self._study.id)
                    size = snapshot["log_size"]
                    if self._console.is_terminal:
                        live.update(view.render(snapshot), refresh=True)
                    else:
                        shown = self._say_rounds(last["history"], shown)
                    if last["state"] in ("completed", "aborted", "paused"):
                        break
        self._console.print(view.render({"studies": [last], "connected": [], "log_size": size}))
        if last["state"] != "completed":
            raise DemoFailed(f"the study is {last['state']}: {last['reason']}. Logs are in {self._out / 'logs'}")
        return last

    async def _certified(self) -> None:
        """Every hospital hears that the study is over, and signs its privacy certificate for the log."""
        async with asyncio.timeout(CERTIFICATE_WAIT_S):
            while not all(  # noqa: ASYNC110 - other processes sign, and tell nobody here
                _has_certified(self._out / site) for site in self._study.sites.roster
            ):
                await asyncio.sleep(0.2)

    def _say_rounds(self, history: Sequence[Mapping[str, Any]], shown: int) -> int:
        name = figure_of(self._study)
        for closed in history[shown:]:
            value = closed["metrics"].get(name)
            figure = f"{name.upper() if name == 'auc' else name} {'n/a' if value is None else f'{value:.3f}'}"
            self._say(
                f"round {closed['round']:>3} closed: {len(closed['survivors'])} of {closed['participants']} hospitals, "
                f"{closed['seconds']:.1f} s; the model before it: test {figure}"
            )
        return len(history)

    # --- results ---------------------------------------------------------------------------------------------------

    def _outcome(self, site: str) -> SiteOutcome:
        home = self._out / site
        results = json.loads((home / "results" / f"{self._study.id}.json").read_text())
        (budget,) = dataset_budgets(home, None)
        spent = next((one for one in budget.studies if one.study == self._study.id), None)
        training, figures = (spent.training, spent.figures) if spent is not None else (None, None)
        egress = egress_of(home).log.lines
        return SiteOutcome(
            site=site,
            last=results["rounds"][-1],
            epsilon=training.epsilon if training is not None else 0.0,
            figures=figures.epsilon if figures is not None else 0.0,
            bytes_left=sum(line.sent.size_bytes for line in egress),
            messages_left=len(egress),
        )

    def _show_results(self, final: Mapping[str, Any], outcomes: Sequence[SiteOutcome]) -> None:
        """Federated with privacy, beside what no consortium can have."""
        cohorts = {str(site): read_cohort(self._study, self._dataset(site)) for site in self._study.sites.roster}
        if not isinstance(self._study.data, TabularData):
            self._show_images(final, outcomes, cohorts)
            return
        threshold = self._study.evaluation.decision_threshold
        everybody = pooled(cohorts, threshold)
        by_hospital = alone(cohorts, threshold)
        table = Table(
            title="Quality on patients set aside for testing (AUC / accuracy)",
            title_justify="left",
            header_style="bold",
        )
        table.add_column("hospital")
        table.add_column("test patients", justify="right")
        table.add_column("federated, private", justify="right", style="bold")
        table.add_column("alone*", justify="right")
        table.add_column("pooled*", justify="right")
        table.add_column("epsilon spent", justify="right")
        table.add_column("bytes that left", justify="right")
        for outcome in outcomes:
            site = outcome.site
            own = by_hospital[site]
            table.add_row(
                site,
                str(outcome.last["patients"]),
                _pair(outcome.last["auc"], outcome.last["accuracy"]),
                "one class only" if own is None else _pair(own.auc_here[site], own.accuracy_here[site]),
                _pair(everybody.auc_here[site], everybody.accuracy_here[site]),
                _spent(outcome),
                f"{outcome.bytes_left:,}",
            )
        metrics = final["history"][-1]["metrics"]
        models = [model for model in by_hospital.values() if model is not None]
        table.add_section()
        table.add_row(
            "all test patients",
            f"{metrics['patients']:.0f}",
            _pair(metrics.get("auc"), metrics.get("accuracy")),
            _pair(_mean([m.auc_all for m in models]), _mean([m.accuracy_all for m in models])),
            _pair(everybody.auc_all, everybody.accuracy_all),
            f"{max(o.epsilon for o in outcomes):.3f}",
            f"{sum(o.bytes_left for o in outcomes):,}",
        )
        table.add_row(
            "mean over hospitals",
            "",
            f"{metrics['mean_site_accuracy']:.3f}" if "mean_site_accuracy" in metrics else "n/a",
            f"{_mean([m.mean_site_accuracy for m in models]):.3f}",
            f"{everybody.mean_site_accuracy:.3f}",
            "",
            "",
        )
        self._console.print(table)
        self._say(
            "[dim]* Computed by this demonstration alone, without any privacy, because all records happen to be on "
            "this machine. In the rows over all hospitals, `alone` is the mean over the hospitals' own models.\n"
            f"Epsilon is per patient and hospital at delta {self._study.privacy.delta:g}, by each hospital's own ledger"
            f"{', with that of its test figures' if outcomes[0].figures else ''}.[/dim]"
        )
        few = [site for site, cohort in cohorts.items() if _smaller_class(cohort) < FEW_PATIENTS]
        if few:
            names = ", ".join(few)
            self._say(
                f"[dim]An AUC with fewer than {FEW_PATIENTS} test patients of one class says little: {names}.[/dim]"
            )

    def _show_images(
        self, final: Mapping[str, Any], outcomes: Sequence[SiteOutcome], cohorts: Mapping[str, Cohort]
    ) -> None:
        """The same for images, where every hospital's own model is tried on all the others' patients too."""
        study, name = self._study, figure_of(self._study)
        federated = Figures(
            here={one.site: one.last[name] for one in outcomes}, everywhere=final["history"][-1]["metrics"].get(name)
        )
        own, everybody = compared(study, cohorts, self._say)
        patients = {one.site: int(one.last["patients"]) for one in outcomes}
        spent = {one.site: _spent(one) if study.is_private else "none promised" for one in outcomes}
        self._console.print(results_table(study, federated, own, everybody, patients=patients, spent=spent))
        self._say(f"[bold]{verdict(federated, own)}[/bold]")
        self._say(f"[dim]{footnote(study)}\nBytes that left: {sum(one.bytes_left for one in outcomes):,}.[/dim]")

    def _dataset(self, site: str) -> Dataset:
        dataset = load_site_file(self._out / site / "site.yaml").dataset_for(self._study.study_id)
        assert dataset is not None  # the agent has just trained on it
        return dataset

    def _show_ending(self, *, verified: bool) -> None:
        took = time.monotonic() - self._begun
        state = "[green]verified[/green]" if verified else "[red]NOT verified[/red]"
        self._say(f"Evidence: {self._out / 'evidence.zip'} ({state}); report: {self._out / 'report.html'}")
        self._say(
            f"Model: {self._out / 'model' / (self._study.id + '.safetensors')}; logs: {self._out / 'logs'}. "
            f"{took:.0f} s in all."
        )
        first = self._study.sites.roster[0]
        self._say("Next, try:")
        private = (
            f"site-agent budget --home {self._out / first}",
            f"site-agent certificate {self._study.id} --home {self._out / first}",
        )
        for command in (
            *(private if self._study.is_private else ()),
            f"site-agent egress --home {self._out / first}",
            f"consortium audit log --home {self._home}",
        ):
            self._say(f"  {command}")

    # --- processes -------------------------------------------------------------------------------------------------

    async def _step(self, program: str, *arguments: str | Path, to: Path | None = None) -> None:
        """One command, shown as a person would type it; what it says is kept, and shown if it fails."""
        self._say(f"[dim]$[/dim] {self._typed(program, arguments)}{f' > {to.name}' if to else ''}")
        process = await asyncio.create_subprocess_exec(
            *_command(program), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        printed, told = await process.communicate()
        if to is not None and process.returncode == 0:
            await asyncio.to_thread(to.write_bytes, printed)
        output = printed + told
        with (self._out / "logs" / "commands.log").open("ab") as file:
            file.write(f"$ {program} {' '.join(map(str, arguments))}\n".encode() + output)
        if process.returncode != 0:
            raise DemoFailed(f"{program} {arguments[0]} ended with exit code {process.returncode}:\n{output.decode()}")

    @asynccontextmanager
    async def _background(self, program: str, *arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that runs until the block is left; its log is a file of its own."""
        self._say(f"[dim]$[/dim] {self._typed(program, arguments)} &")
        name = "coordinator" if program == "consortium" else Path(arguments[-1]).name
        with (self._out / "logs" / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *_command(program), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=log
            )
        self._processes.append(process)
        try:
            yield process
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
                try:
                    async with asyncio.timeout(STOP_WAIT_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def _ready(self, coordinator: asyncio.subprocess.Process) -> None:
        """`consortium serve` prints one line when its port is open."""
        assert coordinator.stdout is not None  # asked for a pipe
        async with asyncio.timeout(READY_WAIT_S):
            line = await coordinator.stdout.readline()
        if not line.startswith(b"Serving"):
            raise DemoFailed(f"the coordinator did not start; see {self._out / 'logs' / 'coordinator.log'}")

    def _typed(self, program: str, arguments: Sequence[str | Path]) -> str:
        words = [
            str(a.relative_to(self._out)) if isinstance(a, Path) and a.is_relative_to(self._out) else str(a)
            for a in arguments
        ]
        return " ".join([program, *(f"'{word}'" if " " in word else word for word in words)])

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


_MODULE_OF = {"consortium": "consortium", "site-agent": "site_agent"}


def _has_certified(home: Path) -> bool:
    """Whether a hospital's certificate is signed and all it signed is in the log."""
    store = open_store(home)
    signed = any(isinstance(parse_entry(entry), DpCertificate) for entry in store.signed_entries()[-20:])
    return signed and not store.pending_events(1)


def _unused(folder: Path) -> Path:
    """The folder, or with a number if there is one of that name already."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 10_000))
    return folder if not folder.exists() else next(name for name in names if not name.exists())


def _command(program: str) -> tuple[str, ...]:
    return (sys.executable, "-m", _MODULE_OF[program])


def _with_settings(text: str, *, rounds: int | None, seed: int | None) -> str:
    """The study's text with other rounds or another seed; everything else, comments included, stays."""
    training = text.find("\ntraining:")
    if training < 0:  # whoever reads the file says what is missing
        return text
    head, tail = text[:training], text[training:]
    if rounds is not None:
        tail = re.sub(r"(?m)^(  rounds: )\d+", rf"\g<1>{rounds}", tail, count=1)
        # No study measures more seldom than it has rounds, and one whose hospitals train by turns does it once.
        most = 0 if re.search(r"(?m)^  participants_per_round: ", tail) is None else rounds
        tail = re.sub(
            r"(?m)^(  every_rounds: )(\d+)",
            lambda found: f"{found[1]}{max(most, min(int(found[2]), rounds))}",
            tail,
            count=1,
        )
    if seed is not None:
        tail = re.sub(r"(?m)^(  seed: )\d+", rf"\g<1>{seed}", tail, count=1)
    return head + tail


def _free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _smaller_class(cohort: Cohort) -> int:
    positive = int((cohort.test.labels > 0).sum())
    return min(positive, len(cohort.test) - positive)


def _spent(outcome: SiteOutcome) -> str:
    return f"{outcome.epsilon:.3f}" + (f" + {outcome.figures:.3f}" if outcome.figures else "")


def _pair(auc: float | None, accuracy: float | None) -> str:
    return " / ".join("n/a" if value is None else f"{value:.3f}" for value in (auc, accuracy))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))
