"""This hospital's own figures, in its own home: exact, about its own patients, and never sent anywhere."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from site_agent.evaluation import Evaluation


def curves_of(evaluation: "Evaluation") -> dict[str, float]:
    """A model's figures that are one number, or one for each class, by names to draw curves under."""
    found: dict[str, float] = {}
    for name, value in evaluation.own_figures().items():
        if isinstance(value, int | float):
            found[name] = float(value)
        elif isinstance(value, list):
            numbers = {f"{name}.{place}": one for place, one in enumerate(value, start=1) if isinstance(one, float)}
            found |= numbers
    return found


class Results:
    """`results/<study>.json`: how each global model did on the patients set aside here."""

    def __init__(self, path: Path, study: str) -> None:
        self._path = path
        self._study = study

    def add(self, round_number: int, evaluation: "Evaluation", *, of: str | None = None) -> None:
        """The model that round `round_number` started from, measured here; `of` whom, if a study has more than one."""
        record = self._read()
        side = {} if of is None else {"of": of}
        row = {"round": round_number, **side, **evaluation.own_figures()}
        record["rounds"] = [r for r in record["rounds"] if r["round"] != round_number] + [row]
        self._write(record)

    def finish(self, outcome: str, model_digest: str, *, verified: bool) -> None:
        """The study ended with this model; `verified` if this site computed it itself."""
        self._write({**self._read(), "outcome": outcome, "model_digest": model_digest, "verified": verified})

    def _read(self) -> dict[str, Any]:
        """What is there; a file that somebody damaged is put aside, not written over."""
        if not self._path.is_file():
            return {"study": self._study, "rounds": []}
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and all(isinstance(row, dict) and "round" in row for row in record["rounds"]):
                return record
        except (ValueError, KeyError, TypeError):
            pass
        self._path.replace(self._path.with_suffix(".damaged"))
        return {"study": self._study, "rounds": []}

    def _write(self, record: dict[str, Any]) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        scratch = self._path.with_suffix(".partial")
        scratch.write_text(json.dumps(record, indent=2), encoding="utf-8")
        scratch.replace(self._path)
