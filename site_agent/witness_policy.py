"""policy.txt as this hospital has it: the log's key that it believes, witness keys from its own copy of the log."""

from audit.cosignature import WitnessKey
from audit.errors import AuditError
from audit.log import LogView
from audit.policy import policy_for
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from site_agent.errors import SiteError
from site_agent.followed_log import FollowedLog, OwnChain
from site_agent.home import AgentHome
from site_agent.log_keys import believed_keys, keys_of_copy
from site_agent.log_mirror import FOLDER, is_there
from site_agent.store import Store


class NoCopyYet(SiteError):
    """This hospital's agent has not followed the log yet, so it knows no witness keys."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Run the agent for a minute (site-agent run); without --study the log's key alone is printed."


def policy_without_witnesses(home: AgentHome) -> bytes:
    """The log's key alone."""
    return policy_for(believed_keys(home).newest.vkey())


def policy_of_study(home: AgentHome, store: Store, study: StudyFile) -> bytes:
    """The key of the log and those of the study's witnesses, as the copy here has them, with the study's quorum.

    Raises:
        NoCopyYet: There is no copy, or too few of the hospitals have named a key in it.
        LogBroken: The copy contradicts this hospital.
    """
    keys = witness_keys(home, store)
    known: dict[str, WitnessKey] = {site: keys[site] for site in study.sites.roster if site in keys}
    if len(known) < study.cosignatures_needed:
        raise NoCopyYet(
            f"{study.cosignatures_needed} hospitals must witness {study.id}, and the copy of the log here has the keys"
            f" of {len(known)}"
        )
    outside = study.witnesses.outside if study.witnesses is not None else ()
    return policy_for(
        believed_keys(home).newest.vkey(),
        known,
        needed=study.cosignatures_needed,
        outside=[WitnessKey.from_vkey(vkey) for vkey in outside],
    )


def witness_keys(home: AgentHome, store: Store) -> dict[SiteId, WitnessKey]:
    """Every hospital's witness key, by the copy of the log here. Raises NoCopyYet, LogBroken."""
    if not is_there(home.folder):
        raise NoCopyYet("this home has no copy of the log")
    newest, *others = keys_of_copy(home)
    read = FollowedLog(OwnChain(site=home.site, signed=store.signed_entry), *believed_keys(home).accepted)
    try:
        view = LogView.read(home.folder / FOLDER, newest, also=others)
    except AuditError as error:
        raise NoCopyYet(f"the copy of the log here cannot be used: {error}") from error
    read.under(view.checkpoint().note)
    try:
        read.follow(view)
    finally:
        view.close()
    return read.witnesses
