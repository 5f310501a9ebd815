"""How visible a change is: one row an image, from which every table takes its means."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import DataError

if TYPE_CHECKING:
    import torch

    from bench.faces.pixels import Pixels
    from bench.quality.lpips import Lpips

COLUMNS = ("image", "psnr", "ssim", "dssim", "linf", "lpips", "changed")
"""Image id; dB; [0, 1]; [0, 1]; grey levels; distance (NaN where LPIPS is not available); bool."""

_BATCH = 32


def measure(original: Pixels, changed: Pixels, lpips: Lpips | None, device: torch.device) -> pd.DataFrame:
    """Return the quality of `changed` against the `original` images of the same ids, one row an image.

    PSNR of an image that did not change is infinite; means are over changed images (`bench.stats.rates`).
    """
    place = {name: row for row, name in enumerate(original.ids)}
    parts = [pd.DataFrame({name: [] for name in COLUMNS})]
    for start in range(0, len(changed.ids), _BATCH):
        ids = changed.ids[start : start + _BATCH]
        after = changed.images[start : start + _BATCH].to(device).float() / 255
        before = original.images[[place[name] for name in ids]].to(device).float() / 255
        parts.append(_rows(ids, before, after, lpips))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _rows(ids: Sequence[str], before: torch.Tensor, after: torch.Tensor, lpips: Lpips | None) -> pd.DataFrame:
    import torch

    from bench.quality import metrics

    ssim = metrics.ssim(after, before)
    distance = torch.full_like(ssim, torch.nan) if lpips is None else lpips.distance(after, before)
    columns: dict[str, Any] = {
        "image": list(ids),
        "psnr": metrics.psnr(after, before),
        "ssim": ssim,
        "dssim": (1 - ssim) / 2,
        "linf": metrics.linf(after, before),
        "lpips": distance,
        "changed": metrics.changed(after, before),
    }
    return pd.DataFrame(
        {key: value.cpu().numpy() if key != "image" else value for key, value in columns.items()}
    )


def to_bytes(rows: pd.DataFrame) -> bytes:
    """Return rows as Parquet; the same rows give the same bytes."""
    sink = io.BytesIO()
    rows.to_parquet(sink, index=False)
    return sink.getvalue()


def from_bytes(payload: bytes, source: str = "image measures") -> pd.DataFrame:
    """Return rows from Parquet.

    Raises:
        DataError: not Parquet, or other columns than `COLUMNS`.
    """
    import pyarrow.parquet as pq

    try:
        rows: pd.DataFrame = pq.ParquetFile(io.BytesIO(payload)).read().to_pandas()
    except (OSError, ValueError) as error:
        raise DataError(f"{source} is not a Parquet file: {error}.") from error
    if tuple(rows.columns) != COLUMNS:
        raise DataError(f"{source} has columns {', '.join(rows.columns)}, expected {', '.join(COLUMNS)}.")
    return rows
