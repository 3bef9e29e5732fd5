"""A Parquet file as the text cells that a CSV file would have had, so that both are judged by the same rules.

Only the columns that are needed are read, in pieces, with the rows counted while they come: a file of a few kilobytes
can claim any number of them. Types that have no plain text, such as lists and dates, are refused.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from site_agent.data_faults import Faults

ROWS_MAX = 20_000_000
_BATCH_ROWS = 65_536
_THRIFT_BYTES_MAX = 64 * 2**20
_THRIFT_ITEMS_MAX = 1_000_000


def check_header(header: list[str], roles: Mapping[str, str], faults: Faults) -> None:
    """Report columns that are needed (name -> what for) and are missing, or there more than once."""
    for name, times in Counter(header).items():
        if times > 1 and name in roles:
            faults.add(name, f"{times} columns of that name", "one")
    for name, role in roles.items():
        if name not in header:
            faults.add(name, "no such column", f"a column with this name: it is {role}")


def parquet_columns(path: Path, roles: Mapping[str, str], faults: Faults) -> pd.DataFrame:
    """The columns in `roles` as stripped text, indexed by row from 1; null and NaN are empty cells.

    Raises:
        DataInvalid: The file is no Parquet file, or too large. What is wrong with single columns is only reported.
        OSError: It cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where a dataset is in this format
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(
            path,
            memory_map=False,
            thrift_string_size_limit=_THRIFT_BYTES_MAX,
            thrift_container_size_limit=_THRIFT_ITEMS_MAX,
        ) as file:
            return _cells(file, pa, roles, faults)
    except (pa.ArrowException, OSError):
        # The library's own words may quote what stands in the file.
        faults.add("", "a file that is not Parquet, or is damaged", "a Parquet file")
    raise faults.error() from None


def _cells(file: Any, pa: Any, roles: Mapping[str, str], faults: Faults) -> pd.DataFrame:
    schema = file.schema_arrow
    check_header(list(schema.names), roles, faults)
    if file.metadata.num_rows > ROWS_MAX:
        faults.add("", f"{file.metadata.num_rows} rows", f"at most {ROWS_MAX}")
        raise faults.error()
    wanted = [name for name in roles if schema.names.count(name) == 1]
    for name in wanted:
        if not _is_plain(schema.field(name).type, pa):
            faults.add(name, f"the type {schema.field(name).type}", "text, whole numbers, numbers or true and false")
    wanted = [name for name in wanted if _is_plain(schema.field(name).type, pa)]
    cells: dict[str, list[str]] = {name: [] for name in wanted}
    rows = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted, use_threads=False):
        rows += batch.num_rows
        if rows > ROWS_MAX:
            faults.add("", f"more than {ROWS_MAX} rows", f"at most {ROWS_MAX}")
            raise faults.error()
        for name in wanted:
            cells[name] += [_text(value) for value in batch.column(name).to_pylist()]
    return pd.DataFrame(cells, index=pd.Index(np.arange(1, rows + 1), dtype=np.int64), dtype=object)


def _is_plain(kind: Any, pa: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating)
    return any(test(kind) for test in (*tests, pa.types.is_boolean, pa.types.is_null))


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(value).strip()
