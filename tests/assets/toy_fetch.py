"""``bench`` with entries of the tests in its catalogue."""

import time

from test_fetching import entry, made, raw

from bench.assets import catalogue
from bench.cli import main
from bench.contracts import Recipe


def slowly(sources, target):
    """Write the file in parts, so that a test can kill the process between them; not the second time."""
    content = sources[0].read_bytes()[::-1]
    with target.open("wb") as file:
        file.write(content[:1000])
        file.flush()
        mark = target.parents[1] / ".second"
        if not mark.exists():
            mark.touch()
            time.sleep(60)
        mark.unlink()
        file.write(content[1000:])


catalogue.OWN = (
    entry(),
    entry(made(path="weights/toy/terms.bin"), name="toy-terms", terms="for research only."),
    entry(made(Recipe(sources=(raw(),), convert=slowly), path="weights/toy/slow.bin"), name="toy-slow"),
)
main()
