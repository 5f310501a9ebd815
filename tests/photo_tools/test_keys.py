"""Key files: made once, read by their owner, never shown."""

import base64
import os
import stat
import traceback
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.contracts import Context
from bench.errors import BenchError, DataError, UsageError
from bench.photo_tools import keys
from bench.photo_tools.keys import Key


def test_a_new_key_is_read_back_and_only_its_owner_can_read_the_file(tmp_path):
    path = tmp_path / "my.key"
    before = os.umask(0)
    try:
        made = keys.create(path)
    finally:
        os.umask(before)
    assert keys.read(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().splitlines() == [
        "cloakbench-key 1", f"secret {made.secret.hex()}", f"fingerprint {made.fingerprint}",
    ]  # fmt: skip
    assert keys.create(tmp_path / "other.key").secret != made.secret


def test_a_key_file_is_never_overwritten_not_even_through_a_link(tmp_path):
    path = tmp_path / "my.key"
    path.write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("my.key", "link"):
        with pytest.raises(UsageError, match="exists, and a key is never overwritten"):
            keys.create(tmp_path / name)
    assert path.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_cannot_be_created_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent/my\.key cannot be created: No such file"):
        keys.create(tmp_path / "absent" / "my.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_file_that_others_can_read_is_refused_with_the_mend(tmp_path, mode):
    path = tmp_path / "my.key"
    keys.create(path)
    path.chmod(mode)
    with pytest.raises(DataError, match=rf"mode {mode:03o}.* Run: chmod 600 .*my\.key"):
        keys.read(path)
    path.chmod(0o400)
    keys.read(path)


SECRET = bytes(range(32))
FINGERPRINT = sha256(b"cloakbench-key fingerprint\n" + SECRET).hexdigest()[:16]
WHOLE = f"cloakbench-key 1\nsecret {SECRET.hex()}\nfingerprint {FINGERPRINT}\n"


def written(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no key file"),
        ("hello\n", "is no key file"),
        (b"\x89PNG\r\n\xff", "is no key file: it is not text"),
        (SECRET.hex(), "is no key file"),
        (WHOLE.replace("key 1", "key 2"), "another version than 1"),
        (WHOLE.replace("key 1", "key"), "another version than 1"),
        (WHOLE[:40], "truncated or was changed"),
        (WHOLE[: WHOLE.index("fingerprint")], "truncated or was changed"),
        (WHOLE.replace("0001", "0002"), "truncated or was changed"),
        (WHOLE.replace("secret 00", "secret zz"), "truncated or was changed"),
    ],
)
def test_what_is_no_whole_key_file_is_refused_and_not_shown(tmp_path, text, reason):
    path = written(tmp_path / "my.key", text)
    with pytest.raises(DataError, match=reason) as caught:
        keys.read(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET.hex()[8:] not in shown


def test_the_documented_example_is_read(tmp_path):
    assert keys.read(written(tmp_path / "my.key", WHOLE)).secret == SECRET


@given(cut=st.integers(0, len(WHOLE) - 2))
def test_no_truncated_file_is_read(tmp_path_factory, cut):
    path = written(tmp_path_factory.mktemp("cut") / "my.key", WHOLE[:cut])
    with pytest.raises(DataError):
        keys.read(path)


def test_missing_folders_and_pipes_are_named_without_waiting(tmp_path):
    with pytest.raises(DataError, match=r"gone\.key does not exist.*nobody can erase"):
        keys.read(tmp_path / "gone.key")
    with pytest.raises(DataError, match="is no key file"):
        keys.read(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DataError, match="is no key file: it is not a file"):
        keys.read(tmp_path / "pipe")


def test_a_key_shows_its_fingerprint_only():
    key = Key(SECRET)
    assert repr(key) == str(key) == f"{key}" == f"Key(fingerprint='{FINGERPRINT}')"
    assert SECRET.hex() not in repr([key])
    assert Key(bytes(32)).fingerprint != key.fingerprint
    with pytest.raises(ValueError, match="32 bytes, not 3") as caught:
        Key(b"abc")
    assert "abc" not in str(caught.value)


def test_a_printed_context_or_argument_does_not_show_the_secret():
    secret = Key(SECRET).secret
    assert secret == SECRET
    shown = f"{secret} {secret!r} {Context(key=secret)} {[secret]} {(secret,)!s} %s %r" % (secret, secret)
    assert shown.count("Secret(not shown)") == 7
    assert Key(SECRET).hidden_in(shown) == shown


@pytest.mark.parametrize(
    "shown",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        repr(SECRET),
        repr(bytearray(SECRET)),
        str(list(SECRET)),
        str(int.from_bytes(SECRET)),
        base64.b64encode(SECRET).decode(),
        SECRET.decode("latin-1"),
    ],
)
def test_a_secret_in_somebody_elses_text_is_hidden(shown):
    hidden = Key(SECRET).hidden_in(f"It failed on {shown} at 0.")
    assert hidden.startswith("It failed on ")
    assert hidden.endswith(" at 0.")
    assert "[secret]" in hidden
    assert len(hidden) < 50


def test_a_disk_that_is_full_leaves_no_half_key(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="No space left on device"):
        keys.create(tmp_path / "my.key")
    assert list(tmp_path.iterdir()) == []
