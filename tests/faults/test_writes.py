"""Every write of a run can fail: one sentence, nothing half there, and the same command goes on to the same bytes."""

import errno
import os
from pathlib import Path

import pytest

from bench import files

MATRIX = (
    "--dataset", "tiny", "--attack", "tiny-noise", "--defense", "jpeg:quality=20", "--backbone", "tiny-a",
    "--head", "nn", "--threads", "1",
)  # fmt: skip


class PowerLossError(BaseException):
    """What a process knows of the power going: nothing, so that no handler may mend it."""


class Faults:
    """Counts the writes of a run, and has one of them fail.

    Attributes:
        count: writes so far.
        failing: number of the write that fails, from 0.
        how: an error number; or "power": the file is half written, and nothing runs after that.
    """

    def __init__(self, monkeypatch):
        self.count, self.failing, self.how = 0, None, None
        self._fsync, self._unlink = os.fsync, Path.unlink
        self.off = False
        monkeypatch.setattr(files.os, "fsync", self.fsync)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: self.unlink(path, missing_ok))

    def fsync(self, descriptor):
        number, self.count = self.count, self.count + 1
        if number != self.failing:
            return self._fsync(descriptor)
        if self.how == "power":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            self.off = True
            raise PowerLossError
        raise OSError(self.how, os.strerror(self.how))

    def unlink(self, path, missing_ok):
        if not self.off:  # without power nothing is tidied up
            self._unlink(path, missing_ok=missing_ok)


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


def run(cli, root):
    return cli("run", *MATRIX, "--store", root / "store", "--out", root / "run", "--csv", root / "table.csv")


@pytest.fixture
def whole(cli, faults, tmp_path):
    """An undisturbed run: its table, and how often it wrote."""
    code, _, err = run(cli, tmp_path / "whole")
    assert code == 0, err
    return (tmp_path / "whole/table.csv").read_bytes(), faults.count


def kept(root):
    return {path: path.stat().st_mtime_ns for path in (root / "store").glob("*/*/*.json")}


@pytest.mark.system
@pytest.mark.parametrize(
    ("how", "step"),
    [
        (errno.ENOSPC, 25),
        ("power", 25),
        *(
            pytest.param(how, step, marks=pytest.mark.slow)
            for how, step in ((errno.ENOSPC, 1), ("power", 1), (errno.EIO, 4), (errno.EDQUOT, 4))
        ),
    ],
)
def test_any_write_may_fail(cli, faults, whole, tmp_path, how, step):
    table, writes = whole
    assert writes > 50
    for number in range(0, writes, step):
        root = tmp_path / f"fault-{number}"
        faults.count, faults.failing, faults.how = 0, number, how
        try:
            code, _, err = run(cli, root)
        except PowerLossError:
            assert how == "power"
        else:
            assert code == 1, (number, err)
            last = err.splitlines()[-1]
            assert last.startswith("Error: cannot write "), last
            assert os.strerror(how) in last
            assert "Traceback" not in err
            assert not list(root.rglob("*.tmp"))
        faults.failing, faults.off = None, False
        before = kept(root)
        code, _, err = run(cli, root)
        assert code == 0, (number, err)
        assert (root / "table.csv").read_bytes() == table, number
        after = kept(root)
        assert {path: after[path] for path in before} == before, "what was whole was not computed again"
