"""Tasks: ``nox -s lint``, ``tests``, ``full``, ``docs``. Each runs in an environment of its own; ``-R`` keeps it."""

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


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that are not slow; arguments go to pytest."""
    install(session, "test,detector")
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """Run every test."""
    install(session, "test,detector")
    session.run("pytest", "-m", "slow or not slow", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/site."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/site")
