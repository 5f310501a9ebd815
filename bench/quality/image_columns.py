"""A file of image measures as columns: what tables take their means of, without a frame.

Only reading lives here; what is measured and how it is stored is in `bench.quality.per_image`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.quality.per_image import COLUMNS


def from_bytes(payload: bytes, source: str = "image measures") -> dict[str, NDArray[Any]]:
    """Return the columns of a file of `bench.quality.per_image.to_bytes` by name, image ids left out.

    Raises:
        DataError: not Parquet, or other columns than `bench.quality.per_image.COLUMNS`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(payload)).read(use_threads=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{source} is not a Parquet file: {error}.") from error
    if tuple(table.column_names) != COLUMNS:
        raise DataError(
            f"{source} has columns {', '.join(table.column_names)}, expected {', '.join(COLUMNS)}."
        )
    found = {name: table[name].to_numpy() for name in COLUMNS[1:]}
    return {**found, "changed": found["changed"].astype(np.bool_)}
