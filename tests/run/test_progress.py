"""How far work is: lines that fit, lines that come, and what a Python user gets."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.run import progress
from bench.run.planning import Options, prepare
from bench.run.progress import LEAST_BAR, Display, Step, Task, line, lines, short_labels
from bench.run.runner import execute
from bench.run.spec import make_spec

LONG = "cloak adaptive:attack=[pgd:eps=15,steps=20],defense=[jpeg:quality=75 & median]"


def running(label=LONG, done=16, total=120):
    return Task(label, total, started=0.0, done=done)


def test_at_eighty_and_sixty_columns_all_is_there():
    for width in (80, 60):
        text = line(running(), 32.0, width)
        assert len(text) <= width
        assert "16/120" in text
        assert "3:28 left" in text
        assert text.startswith("cloak adaptive")
        assert "…" in text
        assert len(re.findall("[━─]", text)) >= LEAST_BAR


def test_the_bar_is_the_last_to_go():
    kept = {width: line(running(), 32.0, width) for width in range(1, 81)}
    has = {
        what: min(width for width, text in kept.items() if what in text)
        for what in ("left", "16/120", "cloak a", "─")
    }
    assert has["─"] == 1
    assert has["─"] < has["cloak a"] <= has["16/120"] < has["left"] <= 60


@given(
    label=st.text(max_size=90),
    done=st.integers(0, 9630),
    total=st.none() | st.integers(1, 9630),
    width=st.integers(1, 200),
    now=st.floats(0, 1e6),
)
def test_a_line_is_never_wider_than_the_terminal(label, done, total, width, now):
    assert len(line(Task(label, total, started=0.0, done=done), now, width)) <= width


def test_times_are_of_the_pace_of_the_plan_or_of_the_clock():
    task = Task("cloak fawkes", 40, expected=60.0)
    assert task.time(0.0) == ""
    task.move(0, 0.0)
    assert task.time(12.0) == "~0:48 left"
    assert task.time(72.0) == "for 1:12"
    task.move(10, 20.0)
    assert task.time(20.0) == "1:00 left"
    task.move(40, 90.0)
    assert task.time(500.0) == "in 1:30"


def test_helpers_are_named_only_where_they_tell_groups_apart():
    one, two, three = ("cloak", "fawkes (a|b)"), ("cloak", "fawkes (a|c)"), ("cloak", "pgd (a|b)")
    assert short_labels([one, three]) == {one: "cloak fawkes", three: "cloak pgd"}
    assert short_labels([one, two]) == {one: "cloak fawkes (a|b)", two: "cloak fawkes (a|c)"}


def test_what_does_not_fit_on_a_terminal_is_counted():
    shown = Display(now=lambda: 0.0)
    for number in range(30):
        shown.add(f"task {number:02}", 4)
    for number in range(20):
        shown.advance(f"task {number:02}", 4)
    text = list(shown.shown(80, 12))
    assert len(text) <= 12
    assert text[-1] == "10 more to come"
    assert "task 19" in text[-2]


def test_without_a_terminal_a_stage_is_announced_and_what_runs_is_repeated():
    out = io.StringIO()
    shown = Display()
    shown.add("cloak one", 8, expected=90.0, stage="cloak")
    shown.add("cloak two", 8, stage="cloak")
    with lines(shown, out, seconds=0.05):
        shown.advance("cloak one", 0)
        assert out.getvalue() == "cloak one: 0/8, ~1:30 left\n"
        shown.advance("cloak one", 8)
        shown.advance("cloak two", 4)  # the same stage: no line of its own
        assert out.getvalue().count("\n") == 1
        end = time.monotonic() + 10
        while "cloak two: 4/8" not in out.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    said = out.getvalue().splitlines()
    assert said[1].startswith("cloak two: 4/8, ")
    assert not any(text.startswith("cloak one: 8") for text in said)


def test_lines_suit_any_stream():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    shown = Display()
    shown.add("cloak é × b", 8)
    with lines(shown, out):
        shown.advance("cloak é × b", 0)
    assert out.buffer.getvalue().startswith(b"cloak ? ? b: 0/8")
    out.close()
    with lines(shown, out):
        shown.report("later", 1, 2)  # to nobody


@pytest.fixture
def planned(tiny, tmp_path):
    def plan(**options):
        spec = make_spec({"dataset": "tiny", "attacks": ("tiny-noise",), "backbones": ("tiny-a",)})
        places = {"store": tmp_path / "store", "out": tmp_path / "run"}
        return prepare(spec, Options(threads=1, **places, **options))

    return plan


def test_a_callback_gets_every_step(planned):
    steps: list[Step] = []
    prepared = planned(progress=steps.append)
    execute(prepared)
    assert {step.stage for step in steps} == {node.stage for node in prepared.missing}
    last = {(step.stage, step.method): step for step in steps}
    assert all(step.done == step.total for step in last.values())
    assert steps[0].done == 0, "a group is heard of as it begins"


def test_from_python_nothing_is_printed_unless_wanted(planned, capsys):
    execute(planned())
    assert capsys.readouterr() == ("", "")


def test_from_python_lines_are_printed_where_wanted_and_a_finished_run_says_so(planned, capsys):
    execute(planned(progress=True))
    said = capsys.readouterr().err
    assert re.search(r"^cloak tiny-noise: 0/24", said, re.MULTILINE)
    assert "All " not in said
    execute(planned(progress=True))
    said = capsys.readouterr().err
    assert re.fullmatch(r"All \d+ artefacts were in the store; nothing was computed\.\n", said)


DEMO = """
import time
from bench.run.progress import display
with display() as shown:
    shown.add("cloak fawkes:mode=high,steps=150,surrogates=a-long-name-of-one", 40)
    for _ in range(5):
        shown.advance("cloak fawkes:mode=high,steps=150,surrogates=a-long-name-of-one", 8)
        time.sleep(0.4)
"""


@pytest.mark.parametrize("columns", [80, 60])
def test_on_a_terminal_a_task_takes_one_line(columns):
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24", "NO_COLOR": "1"}
    process = subprocess.Popen([sys.executable, "-c", DEMO], stderr=theirs, env=env)
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            text += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode()))
    drawn = [frame for frame in frames if "━" in frame]
    assert any("16/40" in frame and "left" in frame for frame in drawn)
    assert all(len(frame.rstrip()) <= columns and frame.startswith("cloak fawkes") for frame in drawn)


def test_half_a_minute_is_what_a_pipe_waits_at_most():
    assert progress.LINE_SECONDS <= 30
