"""Whether what a bundle does keeps patients apart, as training under patient-level privacy needs. Pure.

A bundle can be harmless and still not fit: these are not attacks, and each place says what to write instead.

| place | why it does not fit |
|---|---|
| a loss with `batch: true` | one ratio over the batch couples its patients: clipping one of them bounds nothing |
| crops with `num_samples` above 1 | each crop would be clipped as if it were a patient: epsilon 2.77 would be 134 |

Batch norm fits: it is replaced by group norm when the network is built, and `changes` says so.
"""

from collections.abc import Iterator

from site_agent.bundles.checking import Bundle, Component
from site_agent.bundles.refusals import Finding


def misfits(bundle: Bundle) -> list[Finding]:
    """Every place that would break the unit of privacy."""
    return [*_of_loss(bundle.loss), *_of_transforms(bundle.train_transforms)]


def changes(bundle: Bundle) -> list[str]:
    """What is done otherwise than the bundle says, in plain words."""
    norm = bundle.network.arguments.get("norm", bundle.network.arguments.get("norm_name", "as it comes"))
    words = norm if isinstance(norm, str) else norm[0]
    found = []
    if words.lower() != "layer":
        found.append(f"{bundle.network.id}: norms ({words.lower()}) become group norms with groups of their own")
    if bundle.optimizer is not None:
        found.append(
            f"{bundle.optimizer.id}: the study's optimizer takes the steps, not {bundle.optimizer.target.name}"
        )
    if bundle.schedule is not None:
        found.append(f"{bundle.schedule.id}: the study's learning rate holds, not {bundle.schedule.target.name}")
    return found


def _of_loss(loss: Component | None) -> Iterator[Finding]:
    if loss is not None and loss.arguments.get("batch") is True:
        yield loss.finding(
            "batch", "true", "false", "One ratio over a batch couples its patients; take each record by itself."
        )


def _of_transforms(transforms: tuple[Component, ...]) -> Iterator[Finding]:
    for transform in transforms:
        count = transform.arguments.get("num_samples", 1)
        if count != 1:
            yield transform.finding(
                "num_samples",
                str(count),
                "1",
                "Several crops of one record would each be clipped as a patient; a study's patches of one record "
                "(data.patch.per_record) are clipped as one.",
            )
