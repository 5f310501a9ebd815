"""Tasks of a developer, each in an environment of its own: ``nox -l`` lists them. ``tests/run.sh`` needs no nox."""

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, extras: str) -> None:
    """Install the project with the pinned versions."""
    session.install("--constraint", "constraints.txt", "--editable", f".[{extras}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and import directions."""
    install(session, "test")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


def run_tests(session: nox.Session, tiers: str) -> None:
    """Run the tests of some tiers as tests/run.sh does; arguments go to pytest."""
    install(session, "test,detector")
    workers = (
        "--numprocesses",
        "logical",
        "--maxprocesses",
        "8",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
    )
    session.run("pytest", *workers, "-m", tiers, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need nothing but one process."""
    run_tests(session, "unit")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that are not slow; ``-- --cov`` measures line coverage."""
    run_tests(session, "not slow")


@nox.session
def full(session: nox.Session) -> None:
    """Run every test."""
    run_tests(session, "slow or not slow")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/site."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/site")
