"""The process of one worker (`bench.engines.processes`): reads a job and then units, line by line; writes what it does.

A line that it writes is a JSON object: what it has in work (`bench.run.watch.Message`), ``finished`` (address, images),
and for each unit ``report``, or ``error`` where it cannot do it. What plugins print goes to standard error.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, BinaryIO


def main() -> None:
    """Work until nothing more is said."""
    orders, answers = _private_streams()
    lines = _followed(orders)
    import logging

    from bench.errors import BenchError
    from bench.run.engine import Job, Unit
    from bench.run.watch import Watch, set_this
    from bench.run.work import work

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)

    def say(**said: Any) -> None:
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()

    job = Job.model_validate_json(next(lines))
    for line in lines:
        unit = Unit.model_validate_json(line)
        set_this(Watch(unit.failed, answers.fileno()))
        try:
            report = work(job, unit, lambda address, count: say(finished=[address, count]))
        except BenchError as error:
            say(error=str(error))
        else:
            say(report=report.model_dump(mode="json"))


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the streams to whoever started this, and give plugins others: nothing to read, the log to print to."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # a device, not a file
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return orders, answers


def _followed(orders: BinaryIO) -> Iterator[bytes]:
    """Yield lines as they come; this process ends at once where whoever started it is gone, whatever it computes."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def follow() -> None:
        for line in orders:
            lines.put(line)
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)  # and what plugins started: it leads a session of its own
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    while True:
        yield lines.get()


if __name__ == "__main__":
    main()
