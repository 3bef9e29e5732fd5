"""`make bench`: measure, print, and write one JSON file: name -> {value, unit, reference}.

A reference is the figure the project is held to. Speeds are ratios against something measured in the same run, so that
a slow or busy machine does not change them much.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks import heart_disease, masks  # noqa: E402 - the path is set above


def main() -> int:
    """Measure everything; the exit code says only whether it ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    runs = heart_disease.measure(options.seeds).federated
    found = {
        "heart_auc": {
            "value": float(np.mean([run.auc for run in runs])),
            "unit": "AUC over all test patients",
            "reference": 0.865,
        },
        "heart_mean_site_accuracy": {
            "value": float(np.mean([run.mean_site_accuracy for run in runs])),
            "unit": "mean over hospitals",
            "reference": 0.80,
        },
        "mask_stream_vs_cipher": {
            "value": masks.stream_vs_cipher(),
            "unit": "bare AES-256-CTR time / time to mask with one seed",
            "reference": 0.60,
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    for name, row in found.items():
        print(f"{name:<28} {row['value']:.3f}   ({row['unit']}; held to {row['reference']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
