"""Epsilon of known settings by four accountants called directly, without any code of ours -> epsilons.json.

    python tests/vectors/dp/make_dp_vectors.py

takes a minute. dp-accounting's PLD and RDP accountants, Opacus' PRV (with its own error bounds) and RDP accountants.
"""

import importlib.metadata
import json
from pathlib import Path

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant, RDPAccountant

FILE = Path(__file__).with_name("epsilons.json")

SETTINGS = (  # noise multiplier, sampling rate, steps, delta
    (3.4484, 0.2, 40, 1e-3),  # the heart study at epsilon 1
    (1.5567, 0.2, 40, 1e-3),  # at 3
    (0.7779, 0.2, 40, 1e-3),  # at 10
    (3.0, 0.125, 60, 1e-4),  # the design's 1.28 / 1.14 / 1.13 (RDP / PRV / PLD)
    (1.9, 0.4, 20, 1e-5),  # its 4.86 / 4.85 (PRV / PLD)
    (1.0, 0.01, 1000, 1e-5),
    (1.1, 256 / 60000, 14062, 1e-5),  # the MNIST tutorial of Opacus, 60 epochs
    (0.7, 0.02, 300, 1e-5),
    (0.55, 0.005, 500, 1e-6),
    (8.0, 0.5, 200, 1e-4),
    (2.0, 1.0, 10, 1e-5),
    (20.0, 1.0, 1000, 1e-6),
    (5.0, 0.1, 2000, 1e-4),
    (10.0, 0.3, 1, 1e-3),
    (0.9304, 0.01, 2000, 1e-5),
)


def main() -> None:
    """Write the file."""
    rows = []
    for noise, rate, steps, delta in SETTINGS:
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
        pld, rdp = PLDAccountant(), RdpAccountant()
        pld.compose(event, steps)
        rdp.compose(event, steps)
        prv, opacus_rdp = PRVAccountant(), RDPAccountant()
        prv.history = opacus_rdp.history = [(noise, rate, steps)]
        rows.append(
            {
                "noise_multiplier": noise,
                "sampling_rate": rate,
                "steps": steps,
                "delta": delta,
                "google_pld": pld.get_epsilon(delta),
                "google_rdp": rdp.get_epsilon(delta),
                "opacus_prv": float(prv.get_epsilon(delta, eps_error=0.01, delta_error=delta / 1000)),
                "opacus_rdp": float(opacus_rdp.get_epsilon(delta)),
            }
        )
    record = {
        "versions": {name: importlib.metadata.version(name) for name in ("dp-accounting", "opacus")},
        "prv_eps_error": 0.01,
        "rows": rows,
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
