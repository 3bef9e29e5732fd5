"""What is said about an error: to the coordinator a rule and general words, in the agent's log no patients' data."""

from consortium.contract.parameter_parts import PartsRefused
from consortium.contract.shared_noise import NoiseRefused
from consortium.contract.tensor_clips import TensorClipsRefused
from privacy.errors import BudgetExceeded, PrivacyError
from site_agent.errors import AdapterRefused, SiteError, TrainingFailed, WeightsRefused
from site_agent.plan_check import PlanRefused
from site_agent.policy import BUDGET_REFUSED, Refuse
from site_agent.preparation import Declined
from site_agent.store import PeerChanged
from site_agent.training_room import JobFailed, RoomLost


def refusal_of(error: Exception) -> Refuse:
    """What the coordinator is told about an error here: a rule and general words, never a message from inside."""
    match error:
        case Declined(refusal=refusal) | JobFailed(refusal=refusal):
            return refusal
        case RoomLost():
            return Refuse("training", "training at this hospital ended before it was done")
        case BudgetExceeded():
            return BUDGET_REFUSED
        case TensorClipsRefused():
            return Refuse("aggregation.tensor_clips", "the study's clips do not fit the network as this site builds it")
        case PartsRefused():
            return Refuse("training", "the trainable or site_kept of the study does not fit the network built here")
        case NoiseRefused():
            return Refuse("privacy.mechanism", "the noise that hospitals would share does not fit the study's ring")
        case PlanRefused(rule=rule):
            return Refuse(f"plan: {rule}"[:100], "the round plan is not one this site may answer")
        case PrivacyError():
            return Refuse("secure aggregation", "this site left the attempt")
        case SiteError():
            return Refuse("site", f"this site cannot take part ({type(error).__name__})")
        case _:
            return Refuse("failure", "something failed at this site; its operator can see what")


def is_about_others(error: Exception) -> bool:
    """Whether an error's words are about the coordinator, a peer or the model: then the agent's log may have them."""
    about = isinstance(
        error,
        PlanRefused
        | PeerChanged
        | TrainingFailed
        | PrivacyError
        | TensorClipsRefused
        | NoiseRefused
        | PartsRefused
        | WeightsRefused
        | AdapterRefused,
    )
    if isinstance(error, JobFailed):
        return error.has_words
    return about and not isinstance(error, BudgetExceeded)
