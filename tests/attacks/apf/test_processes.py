"""APF as two processes: the same bytes as in one, and one sentence whenever something is wrong."""

import http.client
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from attacks.apf import wire
from attacks.apf.attack import APF
from attacks.apf.card import ApfCard
from attacks.apf.client import Server, outputs
from attacks.apf.cloud import CloudSide, Gradient, Perturbation
from attacks.apf.network import ApfNetwork, save_network
from attacks.apf.server import application
from bench.authoring.checks import training_faces
from bench.contracts import Binding, Context, Faces
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins import factory

IDLE = """
import asyncio
import sys

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from attacks.apf.connections import GuardedProtocol
from attacks.apf.server import serve


async def hello(_request):
    return PlainTextResponse("hello")


GuardedProtocol.header_timeout = float(sys.argv[1])
serve(Starlette(routes=[Route("/", hello)]), "127.0.0.1", 0, lambda url: print(url, flush=True))
"""
"""A server of the same connections that answers hello."""

PROBE, SERVER = "synthetic-mobilefacenet", "synthetic-iresnet"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Random weights with a card, for the synthetic backbones."""
    path = tmp_path_factory.mktemp("weights") / "apf.safetensors"
    network = ApfNetwork(2)
    network.draw(torch.Generator().manual_seed(0))
    save_network(network, path)
    quality = {"identities": 1, "photos": 1, "mean_change": {}}
    measures = ("dodging_server", "dodging_probe", "cosine_server", "cosine_probe")
    content = {
        "file": path.name, "sha256": sha256_of(path), "domain": "synthetic", "dataset": "synthetic",
        "dataset_fingerprint": "x", "training_identities": "synthetic/training", "probe": PROBE,
        "server": SERVER, "eps": 8, "width": 2, "parameters": 1, "steps": 1, "enhance_steps": 1, "batch": 1,
        "photos": 2, "trainer": "apf", "command": "bench train apf", "seed": 0, "wall_seconds": 0,
        "machine": "cpu", "quality": quality | {name: {} for name in measures},
    }  # fmt: skip
    path.with_suffix(".json").write_text(ApfCard.model_validate(content).model_dump_json())
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three aligned photos of one identity, and their pixels."""
    folder = tmp_path_factory.mktemp("photos")
    images = training_faces().images[:3]
    files = []
    for name, image in zip(("b.png", "a.png", "c.png"), images, strict=True):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / name)
        files.append(folder / name)
    return files, images


@contextmanager
def running(command, weights, *options):
    """Run `bench apf serve` as a process; gives its URL."""
    process = command("apf", "serve", "--weights", weights, "--port", 0, "--threads", 1, *options, wait=False)
    try:
        line = process.stdout.readline()
        assert line.startswith("APF server at http://127.0.0.1:"), line + process.stderr.read()
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err


@pytest.fixture(scope="module")
def server(command, weights):
    with running(command, weights) as url:
        yield url


def protect(command, files, url, out, *options):
    """Protect with `command`, a process of its own, or with `cli`, this one; gives exit code and errors."""
    done = command("apf", "protect", *files, "--server", url, "--out", out, "--threads", 1, *options)
    return (done[0], done[2]) if isinstance(done, tuple) else (done.returncode, done.stderr)


def pixels(file):
    return np.asarray(Image.open(file))


# -- the same as in one process ------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(command, server, weights, photos, tmp_path):
    files, images = photos
    assert protect(command, files, server, tmp_path / "out", "--seed", 5) == (0, "")
    names = tuple(file.name for file in files)
    faces = Faces(images, names, ("p",) * 3)
    method = APF(APF.Params(weights=str(weights)))
    backbones = tuple(factory.backbone(name) for name in sorted((PROBE, SERVER)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for backbone in backbones:
            backbone.load(torch.device("cpu"))
        bound = Binding("synthetic", "synthetic", tuple(sorted((PROBE, SERVER))), "another")
        edits = method.cloak(faces, Context(seed=5, backbones=backbones, files=method.files(bound)))
    finally:
        torch.set_num_threads(threads)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    for file, name, image in zip(files, names, images, strict=True):
        expected = (edits[name] * 255).round().byte().permute(1, 2, 0).numpy()
        protected = pixels(tmp_path / "out" / file.name)
        assert np.array_equal(protected, expected)
        change = protected.astype(int) - (image * 255).round().byte().permute(1, 2, 0).numpy()
        assert 1 <= np.abs(change).max() <= 8


# -- what crosses the wire -----------------------------------------------------------------------------------


def some_gradient(count=2, eps=8):
    values = torch.randint(-eps, eps + 1, (count, 3, 112, 112), generator=torch.Generator().manual_seed(0))
    return Gradient._checked(values.to(torch.int8), eps)


def test_the_messages_hold_int8_values_eps_and_version_and_nothing_else():
    gradient = some_gradient()
    for kind, message in (
        ("gradient", wire.encode_gradient(gradient)),
        ("perturbation", wire.encode_perturbation(Perturbation._checked(gradient.values, 8))),
    ):
        length = int.from_bytes(message[:8], "little")
        header = json.loads(message[8 : 8 + length])
        assert set(header) == {"__metadata__", kind}
        assert header[kind]["dtype"] == "I8"
        assert json.loads(header["__metadata__"].pop("apf")) == {"eps": 8, "version": 1}
        assert header["__metadata__"] == {}
        assert len(message) == 8 + length + 2 * 3 * 112 * 112
    assert torch.equal(wire.decode_gradient(wire.encode_gradient(gradient)).values, gradient.values)


def message(tensors, facts, **metadata):
    return safetensors.torch.save(tensors, metadata={"apf": json.dumps(facts)} | metadata)


PHOTO = torch.randint(0, 256, (1, 3, 112, 112), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
VALUES = some_gradient(1).values
GOOD = {"version": 1, "eps": 8}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "truncated or no APF message"),
        (wire.encode_gradient(some_gradient())[:-1], "truncated or no APF message"),
        (safetensors.torch.save({"gradient": VALUES}), "truncated or no APF message"),
        (message({"gradient": VALUES}, GOOD, name="somebody"), "not that of an APF message"),
        (message({"gradient": VALUES}, {"version": 2, "eps": 8}), "has version 2, this program speaks 1"),
        (message({"gradient": VALUES, "photo": PHOTO}, GOOD), "and nothing else, got"),
        (message({"gradient": VALUES}, GOOD | {"name": "x"}), "and nothing else, got"),
        (message({"photo": VALUES}, GOOD), "and nothing else, got"),
        (message({"gradient": PHOTO}, GOOD), r"holds int8 grey levels, got torch\.uint8"),
        (message({"gradient": PHOTO.to(torch.int8)}, GOOD), "within ±8 grey levels has a value of"),
        (message({"gradient": VALUES}, {"version": 1, "eps": 255}), "eps of a Gradient is a whole number"),
        (message({"gradient": VALUES}, {"version": 1, "eps": "8"}), "eps of a Gradient is a whole number"),
        (message({"gradient": VALUES[0]}, GOOD), "is N×3×H×W"),
    ],
)
def test_a_message_that_is_anything_else_is_refused(payload, reason):
    with pytest.raises(DataError, match=reason):
        wire.decode_gradient(payload)


def ask(url, verb, path, body=b"", headers=None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request(verb, path, body, {wire.VERSION_HEADER: "1"} | (headers or {}))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_the_server_says_what_it_is_and_refuses_in_one_sentence(server):
    status, content = ask(server, "GET", wire.ABOUT_PATH)
    about = wire.About.model_validate_json(content)
    assert (status, about.probe, about.server, about.modules, about.size) == (200, PROBE, SERVER, 3, 112)
    photo = message({"gradient": PHOTO}, GOOD)
    small = wire.encode_gradient(Gradient._checked(torch.zeros(1, 3, 96, 96, dtype=torch.int8), 8))
    for expected, reason, arguments in (
        (404, "There is only", ("GET", "/")),
        (404, "There is only", ("GET", wire.TRANSFER_PATH)),
        (400, "speaks version 1", ("POST", wire.TRANSFER_PATH, b"", {wire.VERSION_HEADER: "7"})),
        (400, "truncated", ("POST", wire.TRANSFER_PATH, b"nonsense")),
        (400, "holds int8 grey levels", ("POST", wire.TRANSFER_PATH, photo)),
        (400, "112×112 pixels, got 96×96", ("POST", wire.TRANSFER_PATH, small)),
    ):
        status, content = ask(server, *arguments)
        answer = json.loads(content)
        assert (status, answer["version"]) == (expected, 1)
        assert reason in answer["error"]
        assert "Traceback" not in answer["error"]
    status, content = ask(server, "POST", wire.TRANSFER_PATH, wire.encode_gradient(some_gradient()))
    assert status == 200
    assert len(wire.decode_perturbation(content, some_gradient())) == 2


def test_a_client_that_never_finishes_is_turned_away(weights):
    import asyncio

    from attacks.apf.attack import cloud_side

    about = wire.About(
        version=1, probe="p", server="s", domain="d", modules=3, size=112, weights_sha256="", max_bytes=1000
    )
    application_ = application(cloud_side(weights, 3, torch.device("cpu")), about, read_timeout=0.05)
    sent = []

    async def never():
        await asyncio.sleep(30)

    async def send(event):
        sent.append(event)

    scope = {
        "type": "http", "method": "POST", "path": wire.TRANSFER_PATH, "query_string": b"",
        "headers": [(b"x-apf-version", b"1")],
    }  # fmt: skip
    asyncio.run(application_(scope, never, send))
    assert sent[0]["status"] == 408
    assert "did not arrive within" in json.loads(sent[1]["body"])["error"]


# -- whatever goes wrong is one sentence, and nothing is written ---------------------------------------------


def refused(done, out, reason):
    code, err = done
    assert code == 2, err
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    assert reason in err
    assert not out.exists() or not list(out.iterdir())


@contextmanager
def lying(answer, headers=None, status=200, cut=0, probe=PROBE):
    """Run a server that says the right things of itself and answers gradients with `answer`."""
    about = {
        "version": 1, "probe": probe, "server": SERVER, "domain": "synthetic", "modules": 3, "size": 112,
        "weights_sha256": "", "max_bytes": 10**9,
    }  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.say(200, json.dumps(about).encode(), {wire.VERSION_HEADER: "1"}, 0)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(status, answer, {wire.VERSION_HEADER: "1"} | (headers or {}), cut)

        def say(self, status, body, headers, cut):
            self.send_response(status)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + cut))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def perturbation(count=2, eps=8, side=112):
    return wire.encode_perturbation(
        Perturbation._checked(torch.zeros(count, 3, side, side, dtype=torch.int8), eps)
    )


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        (perturbation(), {"cut": 5}, "truncated"),
        (perturbation()[:-9], {}, "truncated"),
        (perturbation(), {"headers": {wire.VERSION_HEADER: "2"}}, "speaks version '2'"),
        (message({"perturbation": VALUES}, {"version": 2, "eps": 8}), {}, "has version 2"),
        (perturbation(count=1), {}, "The server's answer is for (1, 3, 112, 112)"),
        (perturbation(side=96), {}, "The server's answer is for (2, 3, 96, 96)"),
        (perturbation(eps=16), {}, "within ±16 grey levels"),
        (message({"perturbation": PHOTO.to(torch.int8)}, GOOD), {}, "The server's answer is not valid"),
        (json.dumps({"error": "No, not today."}).encode(), {"status": 503}, "refused: No, not today."),
        (b"<html>", {"status": 500}, "it gave no reason"),
        (b"busy", {"status": 503, "headers": {wire.VERSION_HEADER: None}}, "has too much to do"),
        (b"<html>", {"headers": {wire.VERSION_HEADER: None}}, "does not answer as an APF server does"),
    ],
)
def test_an_answer_that_is_not_whole_and_valid_is_refused(answer, options, reason):
    with lying(answer, **options) as url:
        server = Server(url, timeout=20)
        assert server.about().probe == PROBE
        with pytest.raises(DataError) as refusal:
            server.transfer(some_gradient(), 10**9)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_truncated_answer_leaves_no_file(cli, photos, tmp_path):
    with lying(perturbation(count=3), cut=7) as url:
        refused(protect(cli, photos[0], url, tmp_path / "out"), tmp_path / "out", "truncated")


def test_a_server_that_is_down_or_silent_is_said_so(cli, photos, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        refused(protect(cli, photos[0], url, tmp_path / "out"), tmp_path / "out", "cannot be reached")
        listener.listen(5)
        with pytest.raises(DataError, match=r"did not answer within 0\.2 seconds"):
            Server(url, timeout=0.2).about()


@pytest.mark.slow
def test_a_request_that_is_too_large_is_refused(command, weights, photos, tmp_path):
    with running(command, weights, "--max-bytes", 50_000) as url:
        done = protect(command, photos[0], url, tmp_path / "out")
        refused(done, tmp_path / "out", "larger than the 50,000 bytes http://127")
        status, content = ask(url, "POST", wire.TRANSFER_PATH, b"x" * 60_000)
        assert status == 413
        assert "larger than the 50,000 bytes this server takes" in json.loads(content)["error"]
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        chunks = (b"x" * 10_000 for _ in range(20))
        connection.request(
            "POST", wire.TRANSFER_PATH, chunks, {wire.VERSION_HEADER: "1"}, encode_chunked=True
        )
        assert connection.getresponse().status in (400, 413)
        connection.close()


def test_bad_input_is_said_before_any_server_is_asked(cli, photos, tmp_path):
    files, _ = photos
    nowhere = "http://127.0.0.1:9"
    out = tmp_path / "out"
    refused(protect(cli, [tmp_path / "none.png"], nowhere, out), out, "none.png is missing")
    (tmp_path / "text.png").write_text("no image")
    refused(protect(cli, [tmp_path / "text.png"], nowhere, out), out, "is not an image")
    done = protect(cli, files, nowhere, files[0].parent)
    assert done[0] == 2
    assert "is one of the photos to protect, and is not overwritten" in done[1]


def test_outputs_never_overwrite(tmp_path):
    one, other = tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.png"
    assert outputs([one], tmp_path) == (tmp_path / "a.png",)
    with pytest.raises(UsageError, match="would both be written"):
        outputs([one, other], tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        outputs([one], tmp_path)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://x", "http://", "http://x:99999", "http://x/y", "http://u@x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UsageError, match="is not the address of a server"):
        Server(url)


def test_another_probe_than_the_servers_is_refused(cli, photos, tmp_path):
    with lying(b"") as url:
        code, _, err = cli(
            "apf", "protect", *photos[0], "--server", url, "--out", tmp_path / "o", "--backbone", SERVER
        )
    assert code == 2
    assert f"are for gradients of '{PROBE}', not of '{SERVER}'" in err


def test_an_answer_that_changes_nothing_is_not_written_as_protected(cli, photos, tmp_path):
    files, _ = photos
    out = tmp_path / "out"
    with lying(perturbation(count=3)) as url:
        refused(protect(cli, files, url, out), out, f"changes nothing in {', '.join(map(str, files))}, so")
    one = torch.zeros(3, 3, 112, 112, dtype=torch.int8)
    one[0, 0, 50, 50] = 1
    with lying(wire.encode_perturbation(Perturbation._checked(one, 8))) as url:
        refused(protect(cli, files, url, out), out, f"changes nothing in {files[1]}, {files[2]}, so")


def test_a_server_does_not_choose_what_is_run_here(cli, photos, tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(ran)!r}, 'w')")
    out = tmp_path / "out"
    for probe in (f"{tmp_path}/mine.py:Mine", f"{tmp_path}/mine.onnx", f"{PROBE}:x=1"):
        with lying(perturbation(count=3), probe=probe) as url:
            refused(protect(cli, photos[0], url, out), out, f"'{probe}', which is no registered backbone")
    assert not ran.exists()


def test_a_port_that_is_taken_is_one_sentence(cli, weights):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        code, _, err = cli("apf", "serve", "--weights", weights, "--port", port, "--threads", 1)
    assert code == 2
    assert "cannot listen on 127.0.0.1" in err


def test_serving_weights_that_are_not_there_is_one_sentence(cli, tmp_path):
    code, _, err = cli("apf", "serve", "--weights", tmp_path / "x.safetensors")
    assert code == 2
    assert "has no card" in err


def test_the_cloud_side_behind_the_server_is_the_attacks(weights):
    from attacks.apf.attack import cloud_side

    assert type(cloud_side(weights, 3, torch.device("cpu"))) is CloudSide


# -- connections that only wait ------------------------------------------------------------------------------------


@contextmanager
def greeting(header_timeout):
    command = [sys.executable, "-c", IDLE, str(header_timeout)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = urlsplit(process.stdout.readline().strip())
            yield (url.hostname, url.port)
        finally:
            process.kill()


def says_hello(place):
    connection = http.client.HTTPConnection(*place, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return (answer.status, text) == (200, b"hello")


@pytest.mark.system
def test_sixty_connections_that_send_nothing_shut_nobody_out():
    with greeting(60) as place, ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(closing(socket.create_connection(place, timeout=10)))
        assert says_hello(place)


@pytest.mark.system
def test_those_within_the_limit_stay_open():
    with greeting(60) as place, ExitStack() as opened:
        several = [
            opened.enter_context(closing(socket.create_connection(place, timeout=10))) for _ in range(12)
        ]
        assert says_hello(place)
        for one in several:
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(100).startswith(b"HTTP/1.1 200")


def closed_within(connection, seconds):
    """Say whether the server closes a connection in that time, and has sent nothing."""
    connection.settimeout(seconds)
    try:
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.system
@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_sends_no_whole_head_is_closed(begun):
    with greeting(0.5) as place, closing(socket.create_connection(place, timeout=10)) as slow:
        slow.sendall(begun)
        assert closed_within(slow, 20)
        assert says_hello(place)


@pytest.mark.system
def test_who_sends_no_second_head_is_closed_too():
    with greeting(0.5) as place, closing(socket.create_connection(place, timeout=10)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            answer += slow.recv(10_000)
        slow.sendall(b"GET / HTTP")
        assert closed_within(slow, 20)
