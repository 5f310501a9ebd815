"""Every performance bar of the project with what is measured for it: `benchmarks/run` prints them and writes a CSV.

    benchmarks/run                    all of them, some twenty minutes on two idle cores
    benchmarks/run start tables       some
    benchmarks/run loop --csv benchmarks/bars.csv   and put them into that table, in the place of what was there

A bar is met where the interval over rounds says so. What falls short stays in the table as short.
"""

import argparse
import csv
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.bars_table import read
from benchmarks.ratios import Measure, amount, interleaved, ratio, seconds

ROOT = Path(__file__).parents[1]

Bar = Callable[[], Iterator[Measure]]

_PEAK = "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))"
"""Peak memory of this program in kB; what getrusage says holds that of the process it was started from too."""


# -- attack loop ------------------------------------------------------------------------------------------------


def attack_loop() -> Iterator[Measure]:
    """Time an attack's stage against the forward and backward passes that it cannot do without."""
    for attack, steps, most in (("pgd", 40, 1.03), ("fawkes", 150, 1.2)):
        for surrogate in _surrogates():
            stage, bare = _cloak_and_bare(f"{attack}:steps={steps},surrogates={surrogate}", surrogate, steps)
            what = f"{attack}, {steps} steps, on {surrogate} / its forward and backward passes"
            note = (
                "8 photos, processor time of one thread; the pass that embeds the photos is among the passes"
            )
            yield ratio("attack loop", what, interleaved(stage, bare, 7), most=most, note=note)


def _surrogates() -> tuple[str, ...]:
    data = os.environ.get("CLOAKBENCH_DATA")
    if data and (Path(data) / "weights" / "fr").is_dir():
        return "mobilefacenet-relu6", "mobileface-v2"
    return "synthetic-iresnet", "synthetic-mobilefacenet-wide"


def _cloak_and_bare(
    attack: str, surrogate: str, steps: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return two functions: the stage as a run computes it, and as many bare passes on the same network."""
    import torch

    from bench.contracts import MICRO_BATCH
    from bench.faces.pixels import decode_pixels
    from bench.run.graph import Executor
    from bench.run.planning import Options, prepare
    from bench.run.spec import RunSpec
    from bench.run.stages.cloak import Cloak

    tracker = "synthetic-mobilefacenet"
    spec = RunSpec(
        attacks=(attack,), backbones=(tracker,), dataset="synthetic:identities=8,photos=3", identities=8
    )
    prepared = prepare(spec, Options(threads=1, store=Path(tempfile.mkdtemp())))
    node = next(each for each in prepared.artefacts if isinstance(each, Cloak))
    executor = Executor(prepared.store, prepared.machine)
    payloads = {each.address: executor.fetch(each) for each in node.inputs}
    (backbone,) = node.attack.context(prepared.machine, payloads, lambda _n: None).backbones
    photos = decode_pixels(payloads[node.photos.address]).only(frozenset(node.chosen))
    images = photos.images[:MICRO_BATCH].float() / 255
    batches = -(-len(photos.ids) // MICRO_BATCH)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(batches):
                backbone.embed(images.to(memory_format=torch.channels_last))
        for _ in range(batches * steps):
            x = images.to(memory_format=torch.channels_last).requires_grad_()
            torch.autograd.grad(backbone.embed(x).square().sum(), x)

    return lambda: node.run(payloads, prepared.machine, lambda _n: None), bare


def other_libraries() -> Iterator[Measure]:
    """Time the PGD of other libraries beside the project's; see benchmarks/peers.py."""
    from benchmarks.peers import peers

    yield from peers()


# -- no work twice --------------------------------------------------------------------------------------------


def padding() -> Iterator[Measure]:
    """Count the empty places in batches of embedding, on the photos of a whole data set."""
    from bench.plugins import factory
    from bench.run.photo_sets import shards
    from bench.run.stages.embed import EMBED_BATCH

    data = os.environ.get("CLOAKBENCH_DATA")
    name = "lfw" if data and (Path(data) / "lfw").is_dir() else "synthetic:identities=100"
    split = factory.protocol("tracker").split(factory.dataset(name).identities(), 0)
    for role, photos in (("gallery", split.gallery), ("probes", split.probes)):
        counts = [len(shard) for shard in shards(photos)]
        places = sum(-(-count // EMBED_BATCH) * EMBED_BATCH for count in counts)
        share = 100 * (places / sum(counts) - 1)
        note = f"{sum(counts)} photos in {len(counts)} shards"
        yield amount(
            "no work twice", f"empty places in embedding, {role} of {name}", share, "%", most=5, note=note
        )


def tables() -> Iterator[Measure]:
    """Time the plan and the tables of a run of a thousand cells."""
    from benchmarks.drawn_run import draw, matrix, plan

    with tempfile.TemporaryDirectory() as folder:
        spec = matrix(24, 40, 24)
        first = plan(spec, Path(folder) / "run")
        took = median(seconds(lambda: plan(spec, Path(folder) / "none")) for _ in range(3))
        cells = len(first.run.cells)
        yield amount("no work twice", f"plan of {cells:,} cells", took, "s", most=2, rounds=3)
        draw(first)
        code = (
            "import time\nfrom pathlib import Path\nfrom bench.leaderboard.table import build\n"
            "from bench.run.folder import RunFolder\nstart = time.perf_counter()\n"
            f"build(RunFolder(Path({str(first.folder.path)!r})))\n"
            f"took = time.perf_counter() - start\n{_PEAK}\nprint(took, peak / 1024)"
        )
        found = [_numbers(code) for _ in range(3)]
        what = f"leaderboard of {cells:,} cells, 24 identities"
        yield amount("no work twice", what, median(f[0] for f in found), "s", most=5, rounds=3)
        yield amount(
            "no work twice", f"{what}: memory", median(f[1] for f in found), "MB", most=500, rounds=3
        )
        page = str(Path(folder) / "report.html")
        words = ("-m", "bench", "report", str(first.folder.path), "--no-photos", "--out", page, "--quiet")
        took = median(_took(*words) for _ in range(3))
        note = "whole command, start included"
        yield amount("no work twice", f"report of {cells:,} cells", took, "s", most=20, rounds=3, note=note)


_OF_A_RUN = "import bench.cli.run, bench.run.runner, bench.leaderboard.as_csv, pandas, torch"
"""Imports what every run imports that computes."""


def adding() -> Iterator[Measure]:
    """Time what one more defence costs a finished matrix, besides its cells and the start of the program."""
    defenses = [f"jpeg:quality={10 * n}" for n in range(1, 7)]
    over: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        known = _run_defenses(Path(folder), defenses)[1]
        for quality in (71, 72, 73):
            defenses.append(f"jpeg:quality={quality}")
            took, stages = _run_defenses(Path(folder), defenses)
            over.append(took - (stages - known) - _took("-c", _OF_A_RUN))
            known = stages
        again = _run_defenses(Path(folder), defenses)[0]
    note = (
        "the command, less the seconds its stages say they took (timings.csv) and an import of what a run imports; "
        f"4 new cells beside 28 to 36, 24 drawn identities; the command again, nothing to compute: {again:.2f} s"
    )
    what = "adding a defence to a finished matrix, besides its cells"
    yield amount("no work twice", what, median(over), "s", most=1, rounds=len(over), note=note)


def _run_defenses(folder: Path, defenses: list[str]) -> tuple[float, float]:
    """Run a small matrix on one store; returns what the command took, and what its artefacts once took, in seconds."""
    out = folder / str(len(defenses))
    given = shlex.split(
        "--attack pgd:steps=2 --attack pgd:steps=3 --attack pgd:steps=4 --dataset synthetic:identities=24 "
        "--backbone synthetic-mobilefacenet --threads 1 --quiet"
    )
    words = [*given, *(word for text in defenses for word in ("--defense", text))]
    took = _took("-m", "bench", "run", *words, "--store", str(folder / "store"), "--out", str(out))
    with (out / "timings.csv").open(encoding="utf-8") as file:
        return took, sum(float(row["seconds"]) for row in csv.DictReader(file))


def _numbers(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return [float(word) for word in done.stdout.split()]


# -- deciding by blocks ----------------------------------------------------------------------------------------


_SEARCH = (
    """
import sys, time
import numpy as np
from threadpoolctl import threadpool_limits
from bench.contracts import Embedded, Split
from bench.protocols._answers import answers_by_fold
from bench.protocols._rotation import Gallery, Probes
from bench.protocols.heads import make_head

probes, photos, each = map(int, sys.argv[1:4])
identities = photos // each
rng = np.random.default_rng(0)
names = [f"i{k:06d}" for k in range(identities)]
gallery = {name: tuple(f"{name}g{k}" for k in range(each)) for name in names}
asked = {name: (f"{name}p",) for name in names[:probes]} | {name: () for name in names[probes:]}
split = Split(gallery=gallery, probes=asked, fold={n: k % 10 for k, n in enumerate(names)}, cloaked=gallery)
def embedded(photos):
    ids = [(i, n) for n, images in photos.items() for i in images]
    vectors = rng.normal(size=(len(ids), 128)).astype(np.float32)
    return Embedded(vectors, tuple(i for i, _ in ids), tuple(n for _, n in ids))
natural, cloaked, shown = embedded(gallery), embedded(gallery), embedded(asked)
found = Gallery.of(natural, cloaked, split)
who = Probes.of(shown, shown, split, found.identities)
start = time.perf_counter()
with threadpool_limits(int(sys.argv[4])):
    count = sum(1 for _ in answers_by_fold(make_head("nn"), found, who))
took = time.perf_counter() - start
"""
    + f"{_PEAK}\nprint(took, peak / 1024)"
)


def answers() -> Iterator[Measure]:
    """Time nearest neighbours over a large gallery, natural and cloaked, in all ten rotations."""
    cores = len(os.sched_getaffinity(0))
    small = _search(4_000, 50_000, cores)
    double = _search(4_000, 100_000, cores)
    large = _search(40_000, 100_000, cores)
    million = _search(4_000, 1_000_000, cores)
    note = f"128 numbers a photo, 2.5 photos an identity, {cores} threads"
    yield amount("decide", "40,000 probes × 100,000 photos: memory", large[1], "MB", most=2000, note=note)
    yield amount("decide", "40,000 probes × 100,000 photos", large[0], "s", note=note)
    yield amount("decide", "4,000 probes × 1,000,000 photos", million[0], "s", note=note)
    yield amount("decide", "4,000 probes × 1,000,000 photos: memory", million[1], "MB", note=note)
    for what, ratio_of in (
        ("twice the gallery / half of it: time", double[0] / small[0]),
        ("ten times the gallery / a tenth: time", million[0] / double[0]),
        ("ten times the probes / a tenth: time", large[0] / double[0]),
    ):
        yield amount("decide", what, ratio_of, "×", most=2.2 if what.startswith("twice") else 11, note=note)
    yield from _against_faiss()


def _against_faiss() -> Iterator[Measure]:
    """Time the search for the best of each rotation's group against faiss' exact search for the best of all.

    faiss finds less: the best photo of all, the probe's own identity included, where a rotation needs the best of each
    group without it, and it finds it in float32.
    """
    try:
        import faiss
    except ImportError as error:
        print(f"decide: faiss is left out: {error}")
        return
    import numpy as np
    from threadpoolctl import threadpool_limits

    from bench.protocols._answers import BLOCK_BYTES
    from bench.protocols._nearest import NearestPoints
    from bench.protocols.heads import Points

    rng = np.random.default_rng(0)
    gallery, probes = (rng.normal(size=(n, 128)).astype(np.float32) for n in (100_000, 2_000))
    whose, asked = np.repeat(np.arange(50_000), 2), rng.integers(0, 50_000, len(probes))
    group = np.arange(50_000) % 10
    faiss.omp_set_num_threads(1)

    def theirs() -> None:
        kept, given = gallery.copy(), probes.copy()
        faiss.normalize_L2(kept)
        faiss.normalize_L2(given)
        index = faiss.IndexFlatIP(128)
        index.add(kept)
        index.search(given, 1)

    def ours() -> None:
        NearestPoints(Points(gallery, whose), group, BLOCK_BYTES).best(probes, asked)

    note = "2,000 probes × 100,000 photos, processor time of one thread; faiss finds one answer, in float32"
    with threadpool_limits(1):
        values = interleaved(ours, theirs, 7)
    yield ratio("decide", "exact search / faiss IndexFlatIP", values, most=1.0, note=note)


def _search(probes: int, photos: int, threads: int) -> list[float]:
    words = [str(probes), str(photos), "2", str(threads)]
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH, *words], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return [float(word) for word in done.stdout.split()]


# -- purifier -----------------------------------------------------------------------------------------------------


def purifier() -> Iterator[Measure]:
    """Time `puface` against its convolutions alone, and in 8 bits against itself; see benchmarks/purifier.py."""
    import torch
    from threadpoolctl import threadpool_limits

    from bench.contracts import MICRO_BATCH
    from benchmarks.puface_int8 import quantised, run
    from benchmarks.purifier import bare, pictures, purified, shipped, stage

    network, images = shipped(), pictures(32)
    model = quantised(network, images)
    whole = purified(network, images)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for size in (2, MICRO_BATCH):
            what = f"puface / its convolutions alone, {size} images at a time"
            note = "32 images, processor time of one thread; puface takes 2 at a time"
            yield ratio(
                "purifier", what, interleaved(whole, bare(network, images, size), 15), most=1.1, note=note
            )
        values = interleaved(stage(images), whole, 9)
        note = "stored images read, checked, purified, rounded and written"
        yield ratio("purifier", "its stage / puface", values, note=note)
        values = interleaved(lambda: run(model, images), whole, 9)
        note = "onnxruntime, convolutions between the outer layers in 8 bits"
        yield ratio("purifier", "puface in 8 bits / in float32", values, note=note)


# -- start ----------------------------------------------------------------------------------------------------


def start() -> Iterator[Measure]:
    """Time commands that compute nothing, beside an empty Python."""
    for words, most in ((("--help",), 0.2), (("list",), 0.3), (("list", "fawkes"), 0.6)):
        values = [_took("-m", "bench", *words) for _ in range(9)]
        empty = median(_took("-c", "pass") for _ in range(5))
        note = f"an empty Python takes {empty:.3f} s"
        yield amount("start", f"bench {' '.join(words)}", median(values), "s", most=most, rounds=9, note=note)
    yield from _runs_again()


def _runs_again() -> Iterator[Measure]:
    """Time a small run that has nothing to compute, what it imports alone, and both where torch is imported."""
    rounds = 5
    words = shlex.split(
        "run --attack pgd:steps=2 --defense jpeg --identities 6 --backbone synthetic-iresnet --threads 1 --quiet"
    )
    with tempfile.TemporaryDirectory() as folder:
        words += ["--store", f"{folder}/store", "--out", f"{folder}/run"]
        _took("-m", "bench", *words)
        _took("-m", "bench", *words)
        imports = [_imports("-m", "bench", *words) for _ in range(rounds)]
        whole = median(_took("-m", "bench", *words) for _ in range(rounds))
        with_torch = [_imports("-c", _WITH_TORCH, *words) for _ in range(rounds)]
        normally = median(_took("-c", _WITH_TORCH, *words) for _ in range(rounds))
    note = (
        f"{rounds} rounds of -X importtime; where torch is imported as well, {median(with_torch):.2f} s; "
        f"whole commands: {whole:.2f} s, and {normally:.2f} s with torch"
    )
    what = "imports of a run that has nothing to compute"
    yield amount("start", what, median(imports), "s", most=1, rounds=rounds, note=note)


_WITH_TORCH = """
from bench.run import again
again.recall = lambda of: None
from bench.cli import main
main()
"""
"""The command, blind to what is known of runs that were made before."""


def _imports(*words: str) -> float:
    """Return the seconds that a command imports, by the interpreter's own account."""
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    lines = (line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:"))
    return sum(int(line[0].split()[-1]) for line in lines if line[0].split()[-1].isdigit()) / 1e6


def _took(*words: str) -> float:
    command = [sys.executable, *words]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True, cwd=ROOT))


# -- memory ---------------------------------------------------------------------------------------------------


_STREAM = (
    """
import sys, time
from pathlib import Path
import bench.leaderboard.table, bench.run.runner, scipy.stats
from bench.api import Options, run
photos, folder = int(sys.argv[1]), Path(sys.argv[2])
file = "benchmarks/stream_of_faces.py"
began = time.process_time()
table = run(
    f"{file}:DrawnCells", backbones=f"{file}:CellMeans", protocol="tracker:gallery_fraction=0.9",
    dataset=f"{file}:StreamOfFaces:identities={photos // 10},photos=12",
    options=Options(threads=1, store=folder / "store", out=folder / "run"),
)
assert set(table["status"]) == {"ok"}, table["reason"]
took = time.process_time() - began
"""
    + f"{_PEAK}\nprint(took, peak / 1024)"
)


def memory() -> Iterator[Measure]:
    """Run a stream of drawn faces of growing length through attack, backbone and tables that cost next to nothing."""
    few = [_stream(1_000) for _ in range(3)]
    some, many = _stream(10_000), _stream(100_000)
    note = (
        "gallery photos, 10 and 2 probes an identity, natural and cloaked; faces, attack and backbone of "
        "benchmarks/stream_of_faces.py, leaderboard included"
    )
    peaks = [many["peak"] / each["peak"] for each in few]
    yield ratio("memory", "peak, 100,000 photos / 1,000", peaks, most=1.3, note=note)
    for photos, peak in (("1,000", median(each["peak"] for each in few)), ("100,000", many["peak"])):
        yield amount("memory", f"peak, {photos} photos", peak, "MB", note=note)
    grown = (many["peak"] - median(each["peak"] for each in few)) * 2**20 / 99_000
    yield amount("memory", "of memory for one more gallery photo", grown, "B", note=note)
    linear = [many["seconds"] / (10 * some["seconds"])]
    note = "processor time of one thread, imports left out"
    yield ratio("memory", "time a photo, 100,000 photos / 10,000", linear, most=1.1, note=note)
    yield amount("memory", "time, 100,000 photos", many["seconds"], "s", note=note)
    for what in ("a crop", "a cloak", "an embedding", "a decision", "a cell besides its decisions"):
        yield amount(
            "memory",
            f"on disk: {what}",
            many[what],
            "B",
            note="of the run of 100,000 photos, records included",
        )


def _stream(photos: int) -> dict[str, float]:
    """Return what a run of so many gallery photos took: seconds, its peak in MB, bytes on disk of what it made."""
    with tempfile.TemporaryDirectory() as named:
        words = [sys.executable, "-c", _STREAM, str(photos), named]
        done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
        took, peak = map(float, done.stdout.split())
        store, run = Path(named) / "store", Path(named) / "run"
        probes = photos // 5
        entries = _bytes(run / "cells.json") + _bytes(*(store / "decide").rglob("*.json"))
        return {
            "seconds": took,
            "peak": peak,
            "a crop": _bytes(*(store / "faces").rglob("*.*")) / (photos + probes),
            "a cloak": _bytes(*(store / "cloak").rglob("*.*")) / photos,
            "an embedding": _bytes(*(store / "embed").rglob("*.*")) / (2 * photos + probes),
            "a decision": _bytes(*(run / "decisions").iterdir()) / (2 * 10 * probes),
            "a cell besides its decisions": entries / 2,
        }


def _bytes(*files: Path) -> int:
    return sum(file.stat().st_size for file in files)


# -- engines --------------------------------------------------------------------------------------------------


def engines() -> Iterator[Measure]:
    """Time a matrix that is all cloaks in one process, in one worker and in two.

    Its photos are dealt into units that two workers share evenly: with three units one worker would wait.
    """
    rounds = 2
    took: dict[str, list[float]] = {name: [] for name in ("inline", "processes:1", "processes:2")}
    for _ in range(rounds):
        for name, values in took.items():
            values.append(seconds(lambda name=name: _run_cloaks(name)))
    note = "whole commands, start included; pgd of 150 steps on 64 photos of 16 identities, four units, --threads 1"
    two = [one / other for one, other in zip(took["processes:1"], took["processes:2"], strict=True)]
    over = [one / other for one, other in zip(took["processes:1"], took["inline"], strict=True)]
    yield ratio("engines", "one worker / two workers", two, least=1.8, note=note)
    yield ratio("engines", "one worker / inline", over, most=1.1, note=note)
    yield amount("engines", "inline", median(took["inline"]), "s", rounds=rounds, note=note)


def _run_cloaks(engine: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *(
                "run",
                "--dataset",
                "synthetic:identities=16,photos=6",
                "--attack",
                "pgd:steps=150",
                "--threads",
                "1",
            ),
            *("--engine", engine, "--store", f"{folder}/store", "--out", f"{folder}/run", "--quiet"),
        ]
        subprocess.run([sys.executable, "-m", "bench", *words], check=True, capture_output=True, cwd=ROOT)


_PASSES = """
import sys, time
import torch
from bench.plugins import factory
torch.set_num_threads(1)
backbone = factory.backbone("synthetic-iresnet")
backbone.load(torch.device("cpu"))
images = torch.rand(8, 3, 112, 112).to(memory_format=torch.channels_last)
def step():
    x = images.detach().requires_grad_()
    torch.autograd.grad(backbone.embed(x).square().sum(), x)
for _ in range(5):
    step()
print("ready", flush=True)
input()
start = time.perf_counter()
for _ in range(150):
    step()
print(time.perf_counter() - start)
"""


def cores() -> Iterator[Measure]:
    """Time passes in two processes at once that share nothing, against one: no engine can gain more."""
    gains = []
    for _ in range(3):
        (alone,), both = _passes(1), _passes(2)
        gains.append(2 * alone / max(both))
    note = "passes forward and back of one network, one thread a process; what the machine's two cores give"
    yield ratio("engines", "two processes that share nothing / one: throughput", gains, note=note)


def _passes(processes: int) -> list[float]:
    """Return the seconds that each of some processes takes for the same passes, begun at once."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _PASSES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(processes)
    ]
    for each in started:
        assert each.stdout is not None, "it was asked for"
        each.stdout.readline()
    return [float(each.communicate()[0]) for each in _released(started)]


def _released(started: list["subprocess.Popen[str]"]) -> list["subprocess.Popen[str]"]:
    """Let all of them begin before any is waited for."""
    for each in started:
        assert each.stdin is not None, "it was asked for"
        each.stdin.write("\n")
        each.stdin.flush()
    return started


BARS: dict[str, Bar] = {
    "start": start,
    "loop": attack_loop,
    "peers": other_libraries,
    "padding": padding,
    "tables": tables,
    "adding": adding,
    "answers": answers,
    "memory": memory,
    "engines": engines,
    "cores": cores,
    "purifier": purifier,
}


COLUMNS = ("name", *(field.name for field in fields(Measure)), "verdict", "machine", "date")
"""Columns of the table; `name` is that of the bar in `BARS`."""


# -- printing -------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure what is asked for, print a line a bar, and write all of it as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], metavar="|".join(BARS))
    parser.add_argument("--csv", type=Path)
    asked = parser.parse_args()
    for name in asked.bars or BARS:
        found: list[Measure] = []
        for one in BARS[name]():
            found.append(one)
            print(_line(one), flush=True)
        if asked.csv:
            keep(asked.csv, name, found)


def _line(one: Measure) -> str:
    between = "" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]"
    wanted = (
        f"≤ {one.most:g}" if one.most is not None else f"≥ {one.least:g}" if one.least is not None else ""
    )
    return (
        f"{one.verdict:6}{one.bar:14} {one.what}: {one.value:.3f}{between} {one.unit} (bar {wanted or '—'})"
    )


def keep(path: Path, name: str, found: list[Measure]) -> None:
    """Put what was measured of one bar into a table, in the place of what it had of it."""
    machine = {"machine": _machine(), "date": datetime.now(UTC).date().isoformat()}
    rows = [{"name": name, **asdict(one), "verdict": one.verdict, **machine} for one in found]
    kept = [row for row in read(path) if row["name"] != name] if path.exists() else []
    order = {each: place for place, each in enumerate(BARS)}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted([*kept, *rows], key=lambda row: order[str(row["name"])]))


def _machine() -> str:
    import torch

    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return (
        f"{cores} cores of {platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), {memory} GB, {gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
