"""Who is left out of every cohort at this hospital, from what the agent remembers."""

from site_agent.home import AgentHome
from site_agent.store import Store
from site_agent.withdrawals import NOBODY, WithdrawalsUnreadable, Withdrawn, key_id, recognition_key


def withdrawn_at(home: AgentHome, store: Store) -> Withdrawn:
    """The patients who withdrew; raises WithdrawalsUnreadable if they could not be recognised."""
    marks, keys, times = store.withdrawn_marks()
    if not marks:
        return NOBODY
    key = recognition_key(home.long_term_secret)
    if keys != {key_id(key)}:
        raise WithdrawalsUnreadable
    return Withdrawn(key=key, marks=marks, times=times)
