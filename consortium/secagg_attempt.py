"""The coordinator's machine of an attempt, in groups or not, behind one interface (pure; protocol sections 4 and 10).

A context that names a size of groups is run by `privacy/secagg/grouped_coordinator.py`, any other by
`privacy/secagg/coordinator.py`. Both have the same events and, but for three messages more, the same effects.
"""

from typing import TypeAlias

from privacy.errors import PeerViolation
from privacy.secagg import coordinator as plain
from privacy.secagg import grouped_coordinator as grouped
from privacy.secagg.context import Context
from privacy.secagg.messages import BeaconCommitment, BeaconPhase, BeaconReveal, Phase, SiteId, UploadHeader

Running: TypeAlias = plain.Running | grouped.Running
Machine: TypeAlias = plain.State | grouped.State
Message: TypeAlias = plain.SiteMessage | grouped.BeaconMessage
Event: TypeAlias = plain.Event | grouped.Event
Effects: TypeAlias = grouped.Effects

_GROUPED = (grouped.Committing, grouped.Revealing, grouped.Grouped)


def begin(context: Context) -> Running:
    """Wait for the first message of every participant; raises what `Context.check` and `check_whole` raise."""
    if context.group_size:
        return grouped.begin(context)[0]
    machine, _ = plain.begin(context)
    assert isinstance(machine, plain.Advertising)  # begin asks, it does not decide
    return machine


def step(machine: Running, event: Event) -> tuple[Machine, Effects]:
    """One event: the next state, and what to do, in order. Nothing a site sends raises."""
    if isinstance(machine, _GROUPED):
        return grouped.step(machine, event)
    if isinstance(event, BeaconCommitment | BeaconReveal):
        # No honest site sends one when the plan has no groups.
        site, rule = event.site, "an attempt without groups has no beacon"
        violation = PeerViolation(site, phase_of(machine).value, rule, type(event).__name__)
        after, effects = plain.step(machine, plain.SiteLost(site=site))
        return after, (plain.Blame(violation=violation), *effects) if effects else ()
    return plain.step(machine, event)


def phase_of(machine: Running) -> Phase | BeaconPhase:
    """The phase the attempt is in."""
    phase = grouped.phase_of(machine) if isinstance(machine, _GROUPED) else plain.phase_of(machine)
    assert phase is not None  # it is running
    return phase


def hears(machine: Running, context: bytes) -> bool:
    """Whether what a site signed under this context is about the attempt, or about a group of it."""
    return grouped.hears(machine, context) if isinstance(machine, _GROUPED) else context == machine.attempt.digest


def admit_upload(machine: Running, header: UploadHeader) -> None:
    """Raise unless an upload under this header would be accepted now: OutOfOrder, or PeerViolation."""
    if isinstance(machine, _GROUPED):
        grouped.admit_upload(machine, header)
    else:
        plain.admit_upload(machine, header)


def in_sum(machine: Running) -> tuple[SiteId, ...]:
    """The sites whose upload was accepted: a survivor may still fall silent, and stays a survivor."""
    match machine:
        case plain.Masking(answers=headers):
            return tuple(header.site for header in headers)
        case plain.Confirming(survivors=survivors) | plain.Unmasking(survivors=survivors):
            return survivors
        case grouped.Grouped():
            return grouped.in_sum(machine)
        case _:
            return ()


def opened_over(machine: Running) -> tuple[SiteId, ...]:
    """The survivors over whom shares may have been released; none before they were asked for."""
    match machine:
        case plain.Unmasking(survivors=survivors):
            return survivors
        case grouped.Grouped():
            return grouped.opened_over(machine)
        case _:
            return ()


def enough_shares(machine: Running) -> bool:
    """Whether the shares that have arrived open the sum, whoever else may be waited for."""
    if isinstance(machine, plain.Unmasking):
        return len(machine.answers) >= machine.attempt.context.threshold
    return isinstance(machine, grouped.Grouped) and grouped.enough_shares(machine)


def answer_of(machine: Running, site: str) -> Message | None:
    """What a site answered in the present phase, if it has."""
    machines = [part.machine for part in machine.parts] if isinstance(machine, grouped.Grouped) else [machine]
    answers = (answer for one in machines if not isinstance(one, plain.Done) for answer in one.answers)
    return next((answer for answer in answers if answer.site == site), None)
