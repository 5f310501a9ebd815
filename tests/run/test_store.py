import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.files import StoreError, write_atomically
from bench.integrity.consistency import UntouchedStore
from bench.run import store as stores
from bench.run.digest import digest
from bench.run.store import Store, default_folder

KEY = {"stage": "cloak", "seed": 0}
OTHER_KEY = {"stage": "cloak", "seed": 1}
ADDRESS = digest(KEY)
OTHER = digest(OTHER_KEY)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put(store, address=ADDRESS, payload=b"payload"):
    key = KEY if address == ADDRESS else OTHER_KEY
    return store.write("cloak", address, payload, key=key, seconds=1.23456, images=3)


def files(store):
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_back(store):
    assert store.read("cloak", ADDRESS) is None
    assert ("cloak", ADDRESS) not in store
    record = put(store)
    assert ("cloak", ADDRESS) in store
    assert store.read("cloak", ADDRESS) == b"payload"
    assert store.record("cloak", ADDRESS) == record
    assert (record.key, record.size, record.seconds, record.images) == (KEY, 7, 1.235, 3)
    assert store.read("embed", ADDRESS) is None
    assert store.read("cloak", OTHER) is None


def test_the_last_write_of_an_address_wins(store):
    put(store)
    put(store, payload=b"longer payload")
    assert store.read("cloak", ADDRESS) == b"longer payload"
    assert len(files(store)) == 2


@pytest.mark.parametrize("damage", [b"", b"paylOad", b"payload and more"])
def test_a_corrupt_payload_counts_as_absent_and_is_set_aside(store, caplog, damage):
    put(store)
    put(store, OTHER, b"other")
    payload, _ = store.paths("cloak", ADDRESS)
    payload.write_bytes(damage)
    assert store.read("cloak", ADDRESS) is None
    assert f"{payload} is corrupt" in caplog.text
    assert payload.with_suffix(".corrupt").read_bytes() == damage
    assert ("cloak", ADDRESS) not in store
    put(store)
    assert store.read("cloak", ADDRESS) == b"payload"
    assert store.read("cloak", OTHER) == b"other"


def test_a_payload_that_is_gone_counts_as_absent(store):
    put(store)
    store.paths("cloak", ADDRESS)[0].unlink()
    assert store.read("cloak", ADDRESS) is None
    assert ("cloak", ADDRESS) not in store


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": {}}', '{"unknown": 1}'])
def test_a_damaged_record_counts_as_absent(store, caplog, damage):
    put(store)
    record = store.paths("cloak", ADDRESS)[1]
    record.write_text(damage)
    assert store.read("cloak", ADDRESS) is None
    assert f"{record} is damaged" in caplog.text
    assert ("cloak", ADDRESS) not in store
    put(store)
    assert store.read("cloak", ADDRESS) == b"payload"


@pytest.mark.parametrize("ask", [Store.read, Store.record])
def test_an_artefact_under_the_address_of_another_counts_as_absent_and_is_set_aside(store, caplog, ask):
    put(store)
    put(store, OTHER, b"other")
    # Whole artefacts change places, so that every payload agrees with the record beside it.
    for one, other in zip(store.paths("cloak", ADDRESS), store.paths("cloak", OTHER), strict=True):
        mine, theirs = one.read_bytes(), other.read_bytes()
        one.write_bytes(theirs)
        other.write_bytes(mine)
    assert store.state("cloak", ADDRESS) == store.state("cloak", OTHER) == "corrupt"
    assert UntouchedStore(store.folder).read("cloak", ADDRESS) is None
    for address, payload in ((ADDRESS, b"other"), (OTHER, b"payload")):
        path = store.paths("cloak", address)[0]
        assert ask(store, "cloak", address) is None
        assert f"{path} is corrupt (it is another artefact's)" in caplog.text
        assert path.with_suffix(".corrupt").read_bytes() == payload
        assert ("cloak", address) not in store
    put(store)
    assert (store.read("cloak", ADDRESS), store.state("cloak", ADDRESS)) == (b"payload", "whole")


def test_a_record_that_is_not_text_counts_as_absent(store):
    put(store)
    store.paths("cloak", ADDRESS)[1].write_bytes(b"\xff\xfe\x00")
    assert store.read("cloak", ADDRESS) is None


def test_a_full_disk_is_reported_and_leaves_what_was_there(store, monkeypatch):
    put(store, OTHER, b"earlier")
    before = files(store)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        put(store)
    message = str(caught.value)
    assert str(store.paths("cloak", ADDRESS)[0]) in message
    assert "No space left on device" in message
    assert "What was computed before is kept; free some space or choose another place with --store" in message
    assert files(store) == before
    monkeypatch.undo()
    assert store.read("cloak", OTHER) == b"earlier"
    put(store)
    assert store.read("cloak", ADDRESS) == b"payload"


def test_a_disk_that_fills_between_payload_and_record_leaves_no_artefact(store, monkeypatch):
    calls = []

    def full_at_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores.os, "fsync", full_at_the_second)
    with pytest.raises(StoreError):
        put(store)
    assert ("cloak", ADDRESS) not in store
    assert store.read("cloak", ADDRESS) is None


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match=r"cannot write .*file"):
        put(store)
    assert store.read("cloak", ADDRESS) is None


@pytest.mark.parametrize("which", [0, 1])
def test_what_cannot_be_read_is_reported(store, which):
    put(store)
    path = store.paths("cloak", ADDRESS)[which]
    path.unlink()
    path.mkdir()  # stands for a file without permission, which the superuser may read
    with pytest.raises(StoreError, match=rf"cannot read .*{ADDRESS}.* Choose another folder with --store"):
        store.read("cloak", ADDRESS)


KILLED = """
import os, signal, sys
from pathlib import Path
from bench import files
from bench.run import store
real = os.fsync
calls = []
def dying(descriptor):
    calls.append(descriptor)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
files.os.fsync = dying
store.Store(Path(sys.argv[1])).write("cloak", sys.argv[3], b"payload", key={}, seconds=0, images=1)
"""


@pytest.mark.parametrize("sync", [1, 2])
def test_a_process_killed_while_it_writes_leaves_no_artefact(store, sync):
    put(store, OTHER, b"earlier")
    command = [sys.executable, "-c", KILLED, str(store.folder), str(sync), ADDRESS]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL
    assert ("cloak", ADDRESS) not in store
    assert store.read("cloak", ADDRESS) is None
    assert store.read("cloak", OTHER) == b"earlier"
    leftovers = [name for name in files(store) if name.endswith(".tmp")]
    assert len(leftovers) == 1
    assert store.sweep() == 0  # another run may be writing it
    assert store.sweep(older_than_s=-1) == 1
    put(store)
    assert store.read("cloak", ADDRESS) == b"payload"


def test_sweeping_takes_old_temporary_files_only(store):
    put(store)
    folder = store.folder / "cloak" / ADDRESS[:2]
    old, new = folder / ".x.json.0.tmp", folder / ".y.json.0.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert store.sweep() == 1
    assert (old.exists(), new.exists()) == (False, True)
    assert store.read("cloak", ADDRESS) == b"payload"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_atomically(path, b"first, and longer")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_record_is_readable_json_with_the_full_key(store):
    put(store)
    written = json.loads(store.paths("cloak", ADDRESS)[1].read_text())
    assert written["key"] == KEY
    assert set(written) == {"key", "sha256", "size", "seconds", "images"}


def test_the_default_folder_is_what_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv(stores.VARIABLE, str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv(stores.VARIABLE)
    assert default_folder().name == "store"
