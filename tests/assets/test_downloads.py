"""Downloads over a real connection: cut, slow, wrong, redirected, resumed. No network is used."""

import hashlib
import json
import shutil
import socket

import pytest
import requests
from publishers import chunked, cut, drip, redirect, stall, status

from bench.assets import downloads
from bench.assets.downloads import (
    DiskFullError,
    NotThereError,
    Patience,
    ResumingDownloader,
    UnreachableError,
    WrongBytesError,
)
from bench.errors import DataError

URL = "https://publisher.example/weights/model.bin"
CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def get(tmp_path, publishers):
    """Return a function that downloads URL; what it waited and told is in its attributes."""
    publishers.add(URL, CONTENT)
    waited, told = [], []

    def run(sha256=SHA256, url=URL, size=0, **patience):
        downloader = ResumingDownloader(
            tmp_path / "model.bin.part",
            sha256,
            requests.Session(),
            lambda *step: told.append(step),
            Patience(**patience),
            waited.append,
            size,
        )
        downloader(url, str(tmp_path / "whole"), None)
        return (tmp_path / "whole").read_bytes()

    run.waited, run.told = waited, told
    return run


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_else(get, tmp_path, publishers):
    assert get() == CONTENT
    assert left(tmp_path) == ["whole"]
    assert publishers.asked(URL) == [""]
    assert get.told[0] == ("model.bin", 0, len(CONTENT))
    assert get.told[-1] == ("model.bin", len(CONTENT), len(CONTENT))
    assert get.waited == []


def test_a_cut_download_asks_for_the_rest_only(get, publishers):
    publishers.fault(URL, cut(100_000), cut(50_000))
    assert get() == CONTENT
    assert publishers.asked(URL) == ["", "bytes=100000-", "bytes=150000-"]
    assert get.waited == [0.5, 1.0]


def test_what_a_broken_command_left_is_gone_on_with(get, tmp_path, publishers):
    publishers.fault(URL, *[cut(70_000), *[cut(0)] * 9])
    with pytest.raises(
        DataError, match=r"cannot be had whole: .* 70,000 bytes are kept: the same command goes on"
    ):
        get()
    assert left(tmp_path) == ["model.bin.part", "model.bin.part.json"]
    publishers.faults.clear()
    publishers.seen.clear()
    assert get() == CONTENT
    assert publishers.asked(URL) == ["bytes=70000-"]
    assert left(tmp_path) == ["whole"]


def test_the_part_of_another_address_is_not_gone_on_with(get, tmp_path, publishers):
    (tmp_path / "model.bin.part").write_bytes(b"x" * 5000)
    (tmp_path / "model.bin.part.json").write_text(
        json.dumps({"url": "https://other.example/", "validator": ""})
    )
    assert get() == CONTENT
    assert publishers.asked(URL) == [""]


def test_a_file_that_changed_meanwhile_begins_anew(get, publishers):
    """The server sends the whole file for a range of another version (If-Range)."""
    publishers.fault(URL, *[cut(70_000)] * 2, *[cut(0)] * 9)
    with pytest.raises(DataError):
        get()
    publishers.faults.clear()
    publishers.add(URL, CONTENT[::-1])
    assert get(hashlib.sha256(CONTENT[::-1]).hexdigest()) == CONTENT[::-1]


def test_without_etag_a_mixed_file_is_told_by_its_digest_and_fetched_again(get, publishers):
    publishers.etags = False
    publishers.fault(URL, *[cut(70_000)] * 2, *[cut(0)] * 9)
    with pytest.raises(DataError):
        get()
    publishers.faults.clear()
    publishers.seen.clear()
    publishers.add(URL, CONTENT[::-1])
    assert get(hashlib.sha256(CONTENT[::-1]).hexdigest()) == CONTENT[::-1]
    assert publishers.asked(URL) == ["bytes=140000-", ""]


@pytest.mark.parametrize("sha256", ["", SHA256[:8]], ids=["no digest", "first digits"])
def test_what_nothing_could_tell_from_a_mix_begins_anew(get, tmp_path, publishers, sha256):
    """Neither ETag nor a whole digest: the rest might be another file's."""
    publishers.etags = False
    publishers.fault(URL, cut(70_000))
    assert get(sha256) == CONTENT
    assert publishers.asked(URL) == ["", ""]
    publishers.fault(URL, *[cut(70_000)] * 9)
    with pytest.raises(DataError, match=r"cannot be had whole: .* Try it again later"):
        get(sha256)
    assert left(tmp_path) == ["whole"]


def test_a_server_that_always_cuts_late_is_given_up(get, publishers):
    """More than a MiB each time is no progress where each attempt begins anew."""
    publishers.etags = False
    publishers.add(URL, CONTENT * 8)
    publishers.fault(URL, *[cut(2_000_000)] * 30)
    with pytest.raises(DataError, match="cannot be had whole"):
        get("")
    assert len(publishers.seen) == 6


@pytest.mark.parametrize(("total", "etag"), [(len(CONTENT) + 1, '"one"'), (len(CONTENT), '"two"')])
def test_the_rest_of_another_file_is_refused_by_its_size_or_version(get, tmp_path, publishers, total, etag):
    """A server that heeds no If-Range says by itself that it has another file now."""
    (tmp_path / "model.bin.part").write_bytes(b"x" * 1000)
    note = {"url": URL, "validator": '"one"', "total": len(CONTENT)}
    (tmp_path / "model.bin.part.json").write_text(json.dumps(note))

    def heedless(handler, content, headers):
        span = {"Content-Range": f"bytes 1000-{total - 1}/{total}", "ETag": etag}
        handler.begin(206, {**span, "Content-Length": str(total - 1000)})
        handler.wfile.write(bytes(total - 1000))

    publishers.fault(URL, heedless)
    assert get("") == CONTENT
    assert publishers.asked(URL) == ["bytes=1000-", ""]


def test_a_part_that_ends_where_another_file_does_is_not_taken(get, tmp_path, publishers):
    (tmp_path / "model.bin.part").write_bytes(b"x" * len(CONTENT))
    note = {"url": URL, "validator": '"one"', "total": 2 * len(CONTENT)}
    (tmp_path / "model.bin.part.json").write_text(json.dumps(note))
    ends = status(416, Content_Range=f"bytes */{len(CONTENT)}")
    publishers.fault(URL, ends)
    assert get("") == CONTENT


def test_a_server_without_ranges_begins_anew(get, publishers):
    publishers.ranges = False
    publishers.fault(URL, cut(100_000))
    assert get() == CONTENT
    assert publishers.asked(URL) == ["", "bytes=100000-"]


def test_a_part_that_is_whole_already_is_taken(get, tmp_path, publishers):
    (tmp_path / "model.bin.part").write_bytes(CONTENT)
    (tmp_path / "model.bin.part.json").write_text(json.dumps({"url": URL, "validator": ""}))
    assert get() == CONTENT
    assert publishers.asked(URL) == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_dropped(get, tmp_path, publishers):
    (tmp_path / "model.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "model.bin.part.json").write_text(json.dumps({"url": URL, "validator": ""}))
    assert get() == CONTENT
    assert publishers.asked(URL)[-1] == ""


def test_a_wrong_digest_says_both_and_keeps_nothing(get, tmp_path, publishers):
    publishers.add(URL, b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(WrongBytesError, match=rf"SHA-256 {found}, expected {SHA256}\. Nothing was kept"):
        get()
    assert left(tmp_path) == []
    assert publishers.asked(URL) == [""]


def test_the_first_digits_of_a_digest_will_do(get, publishers):
    assert get(SHA256[:8]) == CONTENT
    with pytest.raises(WrongBytesError, match="expected one that begins 00000000"):
        get("00000000")


@pytest.mark.parametrize("code", [404, 410])
def test_a_file_that_is_not_there_is_not_asked_for_again(get, publishers, code):
    publishers.fault(URL, status(code))
    with pytest.raises(NotThereError, match=rf"{URL} answers {code}: there is no such file\. .*--from"):
        get()
    assert len(publishers.seen) == 1


def test_a_refusal_is_not_asked_again(get, publishers):
    publishers.fault(URL, status(403))
    with pytest.raises(DataError, match="answers 403"):
        get()
    assert len(publishers.seen) == 1


def test_a_busy_server_is_asked_again_when_it_says(get, publishers):
    publishers.fault(URL, status(503), status(429, Retry_After="7"), status(429, Retry_After="9999"))
    assert get() == CONTENT
    assert get.waited == [0.5, 7.0, 30.0]


def test_a_busy_server_is_given_up(get, publishers):
    publishers.fault(URL, *[status(500)] * 20)
    with pytest.raises(DataError, match=r"cannot be had whole: the server answers 500\. Try it again later"):
        get()
    assert len(publishers.seen) == 6


def test_another_host_may_have_the_file(get, publishers):
    elsewhere = "https://objects.elsewhere.example/a/b?token=1"
    publishers.fault(URL, redirect(elsewhere))
    publishers.add(elsewhere, CONTENT)
    assert get() == CONTENT
    assert publishers.asked(elsewhere) == [""]


def test_a_cut_at_another_host_is_gone_on_with(get, publishers):
    elsewhere = "https://objects.elsewhere.example/a"
    publishers.fault(URL, redirect(elsewhere), redirect(elsewhere))
    publishers.add(elsewhere, CONTENT)
    publishers.fault(elsewhere, cut(90_000))
    assert get() == CONTENT
    assert publishers.asked(elsewhere) == ["", "bytes=90000-"]


def test_no_way_leads_out_of_encryption(get, publishers):
    publishers.fault(URL, redirect("http://plain.example/model.bin"))
    publishers.add("http://plain.example/model.bin", CONTENT)
    with pytest.raises(DataError, match=r"leads to http://plain\.example/model\.bin, which is not encrypted"):
        get()


def test_a_circle_of_redirects_ends(get, publishers):
    publishers.fault(URL, *[redirect(URL)] * 40)
    with pytest.raises(DataError, match=r"cannot be asked for: .*30 redirects"):
        get()


def test_a_server_that_falls_silent_is_left_and_asked_again(get, publishers):
    publishers.fault(URL, stall(100_000))
    assert get(read_s=0.3) == CONTENT
    assert publishers.asked(URL) == ["", "bytes=100000-"]


def test_a_server_that_drips_is_left(get, publishers):
    publishers.fault(URL, *[drip(0.05)] * 9)
    with pytest.raises(DataError, match=r"only \d+ bytes came in"):
        get(read_s=0.2, least_rate=1000.0)


def test_an_answer_without_a_length_is_taken_and_its_break_seen(get, publishers):
    publishers.ranges = False
    publishers.fault(URL, chunked(broken=True), chunked())
    assert get() == CONTENT
    assert get.told[-1] == ("model.bin", len(CONTENT), 0)


def test_more_than_was_stated_is_a_cut(get, publishers):
    def lies(handler, content, headers):
        handler.begin(200, {**headers, "Content-Range": "bytes 0-9/10", "Content-Length": str(len(content))})
        handler.wfile.write(content)

    publishers.fault(URL, lies)
    assert get() == CONTENT


@pytest.mark.parametrize("stated", [True, False], ids=["length stated", "no length"])
def test_more_than_the_file_has_is_left(get, tmp_path, publishers, stated):
    if not stated:
        publishers.fault(URL, chunked())
    with pytest.raises(WrongBytesError, match=r"gives more bytes than the 100,000 that the file has"):
        get(size=100_000)
    assert left(tmp_path) == []
    assert get(size=len(CONTENT)) == CONTENT


def test_a_stream_without_end_is_left_where_no_size_is_known(get, tmp_path, publishers, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST", 100_000)
    publishers.fault(URL, chunked())
    with pytest.raises(WrongBytesError, match=r"gives more bytes than the 100,000 that are taken"):
        get("")
    assert left(tmp_path) == []


def test_no_network_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/model.bin"
        waited = []
        downloader = ResumingDownloader(tmp_path / "a.part", "", requests.Session(), sleep=waited.append)
        with pytest.raises(UnreachableError) as error:
            downloader(url, str(tmp_path / "a"), None)
    assert str(error.value) == (
        f"{url.split('/')[2]} cannot be reached (the connection is refused). Check the network, name a proxy "
        "(HTTPS_PROXY), or give a copy with --from URL_OR_FOLDER."
    )
    assert waited == [0.5, 1.0]
    assert left(tmp_path) == []


def test_a_proxy_of_the_environment_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    downloader = ResumingDownloader(tmp_path / "a.part", "", requests.Session(), sleep=lambda _s: None)
    with pytest.raises(
        UnreachableError, match=r"publisher\.example cannot be reached \(the proxy does not answer\)"
    ):
        downloader("http://publisher.example/a", str(tmp_path / "a"), None)


def test_a_name_nobody_knows_is_an_unreachable_host(tmp_path):
    downloader = ResumingDownloader(tmp_path / "a.part", "", requests.Session(), sleep=lambda _s: None)
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid cannot be reached"):
        downloader("https://nowhere.invalid/a", str(tmp_path / "a"), None)


def test_a_disk_that_is_too_small_is_told_before_a_byte_is_written(get, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(
        DiskFullError, match=rf"has 1,000 bytes free, model\.bin needs {len(CONTENT):,}\. Free some"
    ):
        get()
    assert left(tmp_path) == []


def test_an_interrupt_keeps_what_arrived(get, tmp_path, publishers):
    """Ctrl-C is raised wherever the program is: here as the first bytes are reported."""

    def interrupt(_name, done, _total):
        if done > 0:
            raise KeyboardInterrupt

    downloader = ResumingDownloader(tmp_path / "model.bin.part", SHA256, requests.Session(), interrupt)
    with pytest.raises(KeyboardInterrupt):
        downloader(URL, str(tmp_path / "whole"), None)
    kept = (tmp_path / "model.bin.part").stat().st_size
    assert 0 < kept <= len(CONTENT)
    publishers.seen.clear()
    assert get() == CONTENT
    assert publishers.asked(URL) == [f"bytes={kept}-"]


def test_a_pause_grows_and_has_an_end():
    patience = Patience()
    assert [patience.pause(k, 0) for k in (1, 2, 3, 9)] == [0.5, 1.0, 2.0, 30.0]
    assert patience.pause(1, 12.0) == 12.0
