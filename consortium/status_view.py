"""A status snapshot as something to look at: `consortium status`, and the demo's live table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_PHASE_WORDS = {
    "inviting": "exchanging keys",
    "keying": "sharing secrets",
    "collecting": "training, uploading",
    "confirming": "confirming survivors",
    "unmasking": "removing masks",
}


_FIGURES = {
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "accuracy": "accuracy",
    "brier": "Brier",
    "calibration.error": "calibration error",
}


class StatusView:
    """Renders snapshots; keeps nothing but the last one."""

    def render(self, snapshot: Mapping[str, Any]) -> RenderableType:
        """One block per study, or the hospitals if there is no study yet."""
        studies: Sequence[Mapping[str, Any]] = snapshot["studies"]
        if not studies:
            names = ", ".join(snapshot["connected"]) or "nobody"
            return Text(f"No study yet. Connected: {names}.")
        return Group(*(self._study(study) for study in studies))

    def _study(self, study: Mapping[str, Any]) -> RenderableType:
        doing = _PHASE_WORDS.get(study["phase"], study["phase"])
        attempt = f", attempt {study['attempt']}" if study["attempt"] > 1 else ""
        total = study["rounds"]
        if study["state"] != "running":
            where = study["state"] + (f": {study['reason']}" if study["reason"] else "")
        elif study["round"] > total:
            where = f"final evaluation{attempt}: {doing}"
        else:
            where = f"round {study['round']} of {total}{attempt}: {doing}"
        head = Text.assemble((study["study"], "bold"), "  ", where)
        parts: list[RenderableType] = [head, self._sites(study)]
        if study["history"]:
            parts.append(self._rounds(study))
        if quality := study.get("quality"):
            parts.append(_quality(quality))
        return Group(*parts)

    def _sites(self, study: Mapping[str, Any]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("hospital", min_width=14)
        table.add_column("now", min_width=22)
        table.add_column("rounds in", justify="right")
        table.add_column("epsilon so far", justify="right")
        for site in study["sites"]:
            spent = "" if site["epsilon"] is None else f"{site['epsilon']:.3f} of {study['epsilon']:g}"
            # As Text: a hospital's words are shown, never obeyed as rich's markup.
            table.add_row(site["site"], Text(site["state"]), str(site["rounds"]), spent)
        return table

    def _rounds(self, study: Mapping[str, Any]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("model after round", "test AUC", "accuracy", "loss", "survivors", "seconds"):
            table.add_column(name, justify="right")
        for row in study["history"][-6:]:
            metrics = row["metrics"]
            table.add_row(
                str(row["round"] - 1),
                _number(metrics.get("auc")),
                _number(metrics.get("accuracy")),
                _number(metrics.get("loss")),
                f"{len(row['survivors'])} of {row['participants']}",
                f"{row['seconds']:.1f}",
            )
        return table


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
