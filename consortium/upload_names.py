"""Under which names uploads and masked sums lie on the disk."""

from consortium.contract.digest import digest_of
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundPlan, context_of


def upload_name(site: SiteId, masked_update_hash: bytes) -> Digest:
    """The name under which a site's masked update lies until it is in the sum. Two sites may send equal bytes."""
    return digest_of(f"{site} {masked_update_hash.hex()}".encode())


def masked_sum_name(plan: RoundPlan) -> Digest:
    """The name under which an attempt's masked sum lies among the uploads while shares are collected."""
    return Digest(context_of(plan).digest().hex())
