"""What a study may ask of hospitals that train with code of their own: classes of `monai.fl.client.ClientAlgo`.

A study names such a class by a word, never by a path: which class that is, and the one file it stands in, each hospital
says in its own site.yaml. The study's network still decides the first model, the layout of the update and the test
figures; the hospital's class replaces the steps between a global model and an update, and nothing else.
"""

from collections.abc import Iterator

from consortium.contract.schema import Finding

NONE = "none"
PULLS_STEPS = frozenset({"fedprox", "scaffold"})
"""Algorithms that are a rule for each local step, which nobody makes a class of a hospital's keep to."""


def client_algo_takes_the_steps(  # noqa: PLR0917 - the values of a rule
    mechanism: str,
    client_algo: str | None,
    algorithm: str,
    trainable: object | None,
    site_kept: object | None,
    schedule: object | None,
    optimizer_state: object | None,
    adapter: object | None,
) -> Iterator[Finding]:
    """A rule of studies: what a hospital's own class cannot be held to is not promised beside it."""
    if client_algo is None:
        return
    if mechanism != NONE:
        # Clipping or noising a finished update bounds no single patient's part in it.
        yield Finding(
            "training.client_algo",
            f"{client_algo} with {mechanism}",
            f"nothing with {mechanism}: once an update is finished, no patient's part in it can be bounded",
        )
    if algorithm in PULLS_STEPS:
        yield Finding(
            "training.algorithm",
            f"{algorithm} with training.client_algo",
            "one of fedavg, fedavgm, fedadam, fedyogi, fedadagrad: the steps are those of the hospital's own class",
        )
    steered = {
        "training.trainable": trainable,
        "training.site_kept": site_kept,
        "training.schedule": schedule,
        "training.optimizer_state": optimizer_state,
        "adapter": adapter,
    }
    for name, value in steered.items():
        if value is not None:
            yield Finding(
                name,
                f"{name.rpartition('.')[2]} with training.client_algo",
                "nothing: what the hospital's own class trains, and how, is not steered from outside",
            )


def records_go_as_they_are(client_algo: str | None, augmentation: object | None) -> Iterator[Finding]:
    """A rule of studies on images: whoever takes the steps also decides what is done to a record before one."""
    if client_algo is not None and augmentation is not None:
        yield Finding(
            "data.augmentation",
            "augmentation with training.client_algo",
            "nothing: the hospital's own class gets its records as they are",
        )
