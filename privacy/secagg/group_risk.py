"""How likely a group is to have too many sites that work with the coordinator (section 10).

A group of n sites with threshold t is protected if and only if 2t > n + c for its c colluding ones (section 2).
The beacon makes the groups a uniformly random division, so c is hypergeometric; a union bound over the groups, and over
everything a coordinator that lies can choose between, gives an upper bound. `python -m privacy.secagg.group_risk`
prints the table of docs/protocol.md.
"""

import math
from fractions import Fraction

from privacy.secagg.beacon import WITHHELD_MAX
from privacy.secagg.context import default_threshold
from privacy.secagg.groups import group_sizes, scaled


def tolerated(size: int, threshold: int) -> int:
    """The most colluding sites with which a group is protected: the largest c with 2t > n + c."""
    return 2 * threshold - size - 1


def chance_of_more(sites: int, colluding: int, size: int, most: int) -> Fraction:
    """The chance that a random group of `size` out of `sites` has more than `most` of the `colluding` ones."""
    too_many = range(most + 1, min(colluding, size) + 1)
    ways = sum(math.comb(colluding, c) * math.comb(sites - colluding, size - c) for c in too_many)
    return Fraction(ways, math.comb(sites, size))


def choices(committed: int, withheld_max: int = WITHHELD_MAX) -> int:
    """Between how many beacons a coordinator can choose by withholding nonces once it has seen all of them."""
    return sum(math.comb(committed, missing) for missing in range(withheld_max + 1))


def risk(sites: int, colluding: int, *, group_size: int, threshold: int, attempts: int = 1) -> float:
    """At most this is the chance that any group of an attempt is not protected.

    Args:
        sites: those that are divided. A coordinator that leaves honest ones out can bring their number down to what
            the study demands, and should be assumed to: give `sites.minimum` here.
        colluding: how many of them work with the coordinator.
        group_size: the fewest sites of a group.
        threshold: of the whole attempt.
        attempts: how many attempts the coordinator may break off because it does not like their groups.
    """
    chance = Fraction(0)
    for size in group_sizes(sites, group_size):
        most = tolerated(size, scaled(threshold, size, sites))
        chance += chance_of_more(sites, colluding, size, most)
    return float(min(Fraction(1), chance * choices(sites) * attempts))


_EXAMPLES = (
    (600, 30, 64),
    (600, 30, 100),
    (600, 60, 64),
    (600, 60, 100),
    (600, 60, 120),
    (600, 60, 128),
    (600, 90, 128),
    (1024, 102, 100),
    (1024, 102, 128),
)


def main() -> None:
    """Print the table of docs/protocol.md: default thresholds, one attempt, the coordinator's choices included."""
    print("| sites | colluding | group_size | groups | tolerated in each | risk |")  # noqa: T201 - what this is for
    print("|---|---|---|---|---|---|")  # noqa: T201
    for sites, colluding, size in _EXAMPLES:
        threshold = default_threshold(sites)
        groups = group_sizes(sites, size)
        least = min(tolerated(n, scaled(threshold, n, sites)) for n in groups)
        chance = risk(sites, colluding, group_size=size, threshold=threshold)
        counted = f"{len(groups)} of {min(groups)} to {max(groups)}"
        shown = f"2^{math.ceil(math.log2(chance))}" if 0 < chance < 1 else f"{chance:g}"
        print(f"| {sites} | {colluding} | {size} | {counted} | {least} | {shown} |")  # noqa: T201


if __name__ == "__main__":
    main()
