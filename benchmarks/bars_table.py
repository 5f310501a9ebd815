"""The table of performance bars as Markdown, for docs/performance.md: `python -m benchmarks.bars_table`."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

MEASURED = Path(__file__).with_name("bars.csv")


def read(path: Path) -> list[Mapping[str, str]]:
    """Return the rows that `benchmarks/run --csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown(rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield the table, a line a bar: what was measured with its interval, what is wanted, and whether it is met."""
    yield "| bar | what | measured | wanted | |"
    yield "|---|---|---|---|---|"
    for row in rows:
        wanted = (
            f"≤ {_number(row['most'])}"
            if row["most"]
            else f"≥ {_number(row['least'])}"
            if row["least"]
            else ""
        )
        between = f" [{_number(row['low'])}, {_number(row['high'])}]" if row["low"] else ""
        measured = f"{_number(row['value'])}{between} {row['unit']}"
        verdict = row["verdict"].replace("—", "")
        yield f"| {row['bar']} | {row['what']} | {measured} | {wanted} | {verdict} |".replace("|  |", "| |")


def _number(text: str) -> str:
    """Return a number with three digits that count, and no more than it has."""
    value = float(text)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    print(*markdown(read(MEASURED)), sep="\n")
