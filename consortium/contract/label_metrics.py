"""Which figures a label can have: a rule between the data of a study and its evaluation.

| label | metrics |
|---|---|
| binary | auc, accuracy, loss, brier, calibration, sensitivity |
| classes | auc (of each class against the others, and their mean), accuracy, loss, confusion |
| mask | dice (of each class but the first, and their mean), loss |

Every figure has a name of its own in each log entry with metrics, and an entry has room for a thousand names.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from consortium.contract.schema import Finding
from consortium.contract.study_data import BINARY, CLASSES, MASK, BinaryLabel, ClassesLabel, Label, MaskLabel
from consortium.contract.subgroups import EvaluationPrivacy

METRICS_OF_LABEL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        BINARY: ("auc", "accuracy", "loss", "brier", "calibration", "sensitivity"),
        CLASSES: ("auc", "accuracy", "loss", "confusion"),
        MASK: ("loss", "dice"),
    }
)

VALUES_MAX: Mapping[str, int] = MappingProxyType({"auc": 100, "confusion": 24, "dice": 64})
"""The most values of a label that a metric is given for, where it has figures for each of them."""

CLASS_BINS_MAX = 100_000
"""The most bins of score histograms of all classes together."""


def metrics_fit_label(
    label: Label | BinaryLabel | ClassesLabel | MaskLabel,
    metrics: tuple[str, ...],
    score_bins: int,
    privacy: EvaluationPrivacy | None,
) -> Iterator[Finding]:
    """A label has the metrics that mean something for it, and no more values than their figures have room for."""
    fitting = METRICS_OF_LABEL[label.type]
    values = () if isinstance(label, Label | BinaryLabel) else label.values
    for index, metric in enumerate(metrics):
        at = f"evaluation.metrics[{index}]"
        if metric not in fitting:
            yield Finding(at, metric, f"with labels of type {label.type} one of {', '.join(fitting)}")
        elif len(values) > VALUES_MAX.get(metric, len(values)):
            yield Finding(at, f"{metric} of {len(values)} values", f"at most {VALUES_MAX[metric]} values of the label")
    if label.type == CLASSES and "auc" in metrics and len(values) * score_bins > CLASS_BINS_MAX:
        yield Finding(
            "evaluation.score_bins", f"{score_bins} for each of {len(values)} values of the label",
            f"at most {CLASS_BINS_MAX // len(values)}: every value has histograms of its own",
        )  # fmt: skip
    if label.type != BINARY and privacy is not None:
        yield Finding(
            "evaluation.privacy", f"a budget for the test figures, with labels of type {label.type}",
            "nothing: noisy test figures exist for binary labels only; without a budget they are exact sums, which "
            "every hospital may decline to share (share_exact_metrics)",
        )  # fmt: skip
