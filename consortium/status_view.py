"""A status snapshot as something to look at: `consortium status`, and the demo's live table."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from consortium.wire.traffic import Passed

_PHASE_WORDS = {
    "inviting": "exchanging keys",
    "keying": "sharing secrets",
    "collecting": "training, uploading",
    "confirming": "confirming survivors",
    "unmasking": "removing masks",
}


_FIGURES = {
    "auc": "AUC",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "accuracy": "accuracy",
    "brier": "Brier",
    "calibration.error": "calibration error",
}


_COLUMNS = {"auc": "test AUC", "dice": "test Dice", "accuracy": "accuracy", "loss": "loss"}


_ROUNDS_OF_AN_ESTIMATE = 5
_ROWS_MAX = 16
"""With more hospitals a live view would be cut at a screen's height: it has a row for each state instead."""
_NAMES = 3  # of the hospitals in a state


class StatusView:
    """Renders snapshots; keeps nothing."""

    def render(self, snapshot: Mapping[str, Any], now: float | None = None) -> RenderableType:
        """One block per study, or the hospitals if there is no study yet; with `now`, in Unix time, for how long."""
        studies: Sequence[Mapping[str, Any]] = snapshot["studies"]
        # As Text, here as below: what others said is shown, never obeyed as rich's markup.
        objections = [
            Text(f"does not cosign the log: {one['witness']}: {one['said']}", style="red")
            for one in snapshot.get("objections", ())
        ]
        if not studies:
            names = ", ".join(snapshot["connected"]) or "nobody"
            return Group(Text(f"No study yet. Connected: {names}."), *objections)
        size = snapshot["log_size"]
        return Group(*(self._study(study, now, size) for study in studies), *_traffic(snapshot), *objections)

    def _study(self, study: Mapping[str, Any], now: float | None, log_size: int) -> RenderableType:
        doing = _PHASE_WORDS.get(study["phase"], study["phase"])
        attempt = f", attempt {study['attempt']}" if study["attempt"] > 1 else ""
        total = study["rounds"]
        if study["state"] != "running":
            where = study["state"] + (f": {study['reason']}" if study["reason"] else "")
        elif study["round"] > total:
            where = f"final evaluation{attempt}: {doing}"
        else:
            where = f"round {study['round']} of {total}{attempt}: {doing}"
        if study["state"] == "running":
            where += _so_far(study, now)
        head = Text.assemble((study["study"], "bold"), "  ", where)
        live_and_many = now is not None and len(study["sites"]) > _ROWS_MAX
        parts: list[RenderableType] = [head, self._states(study) if live_and_many else self._sites(study)]
        if study["history"]:
            parts.append(self._rounds(study))
        if quality := study.get("quality"):
            parts.append(_quality(quality))
        seen, needed = study["witnessed"], study["witnesses_needed"]
        parts.append(Text(f"log: {seen} of {log_size} entries cosigned by {needed} of its hospitals", style="dim"))
        return Group(*parts)

    def _sites(self, study: Mapping[str, Any]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("hospital", min_width=14, overflow="fold")  # a name is never cut
        table.add_column("now", min_width=22)
        table.add_column("rounds in", justify="right")
        table.add_column("epsilon so far", justify="right")
        for site in study["sites"]:
            spent = _spent(study, [site])
            # As Text: a hospital's words are shown, never obeyed as rich's markup.
            table.add_row(site["site"], Text(site["state"]), str(site["rounds"]), spent)
        return table

    def _states(self, study: Mapping[str, Any]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("now", min_width=22)
        table.add_column("hospitals", justify="right")
        table.add_column("which", overflow="fold")
        table.add_column("epsilon at most", justify="right")
        states: dict[str, list[Mapping[str, Any]]] = {}
        for site in study["sites"]:
            states.setdefault(site["state"], []).append(site)
        for state, sites in sorted(states.items(), key=lambda item: len(item[1])):  # the exceptions first
            names = ", ".join(site["site"] for site in sites[:_NAMES])
            more = f" and {len(sites) - _NAMES} more" if len(sites) > _NAMES else ""
            table.add_row(Text(state), str(len(sites)), names + more, _spent(study, sites))
        return table

    def _rounds(self, study: Mapping[str, Any]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        rows = study["history"][-6:]
        shown = [name for name in _COLUMNS if any(row["metrics"].get(name) is not None for row in rows)]
        for name in ("model after round", *(_COLUMNS[name] for name in shown), "survivors", "seconds"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(
                str(row["round"] - 1),
                *(_number(row["metrics"].get(name)) for name in shown),
                f"{len(row['survivors'])} of {row['participants']}",
                f"{row['seconds']:.1f}",
            )
        return table


def _spent(study: Mapping[str, Any], sites: Sequence[Mapping[str, Any]]) -> str:
    """The largest epsilon that one of these hospitals signed, of what the study asks for."""
    if study["epsilon"] is None:
        return "none promised"
    signed = [site["epsilon"] for site in sites if site["epsilon"] is not None]
    return f"{max(signed):.3f} of {study['epsilon']:g}" if signed else ""


def _traffic(snapshot: Mapping[str, Any]) -> list[Text]:
    passed = snapshot.get("traffic")
    if not passed:
        return []
    words = Passed(**passed).words(up="to hospitals", down="from hospitals")
    return [Text(f"since the start: {words}", style="dim")]


def _so_far(study: Mapping[str, Any], now: float | None) -> str:
    """For how long the phase has gone on, and about how long the study will, at the pace of its last rounds."""
    since, seconds = study.get("since"), [row["seconds"] for row in study["history"] if row["kind"] == "train"]
    lasted = "" if now is None or since is None or now - since < 1 else f", for {_time(now - since)}"
    rounds_left = study["rounds"] - study["round"] + 1
    if not seconds or rounds_left < 1:
        return lasted
    return f"{lasted}; about {_time(rounds_left * median(seconds[-_ROUNDS_OF_AN_ESTIMATE:]))} left"


def _time(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _quality(metrics: Mapping[str, float]) -> Text:
    """The last model that was measured, with intervals of 95 %."""
    figures = []
    for name, label in _FIGURES.items():
        if (value := metrics.get(name)) is not None:
            low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
            figures.append(f"{label} {value:.3f}" + ("" if low is None or high is None else f" ({low:.3f}-{high:.3f})"))
    return Text("last measured: " + (", ".join(figures) or "no figure stands out of the noise"), style="dim")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
