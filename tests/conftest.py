"""What all tests share: a real PostgreSQL, the state folder, and outside programs that say how to install them.

`engine` is a database of its own at head, gone after the test; `module_engine` is one for all tests of a module, for
property tests. `state` is where the built-in model lives (PYTEST_STATE_DIR, else awry's default). A test that needs an
outside program calls `needs_program`: without it the test skips, says so at the end of the run, and fails in CI.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from sqlalchemy import Engine

pytest_plugins = ["tests.support.stream.kafka_fixtures", "tests.support.models.study_fixtures"]

# Several processes share the cores: with two threads each they wait for one another (three times as slow, measured).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Not AWRY_...: awry refuses variables of that prefix that are no setting.
_STATE_DIR = os.environ.get("PYTEST_STATE_DIR")
_missing_programs: dict[str, str] = {}

# No examples are kept on disk: what is found belongs into the test as an @example.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "awry-hypothesis")
hypothesis.settings.register_profile("awry", database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("awry")


def needs_program(name: str, install_line: str) -> str:
    """The path of an outside program; without it the test skips (fails where CI=true), naming how to install it."""
    found = shutil.which(name)
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing in CI, where nothing may be skipped: {install_line}", pytrace=False)
    _missing_programs[name] = install_line
    pytest.skip(f"needs {name}: {install_line}", allow_module_level=True)


# Tests that share what is made once a session and is dear: with pytest-xdist one process runs all of them.
_TOGETHER = ("kafka", "study")
# Fixtures that take minutes the first time on a slow machine, all of them on whoever asks first.
_SLOW_TO_MAKE = {"loader", "posted", "state"}


# First, since pytest-xdist reads the groups in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes, each file stays in one: its fixtures are made once."""
    _leave_out_gemma3(config, items)
    for item in items:
        if _SLOW_TO_MAKE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(900))
        shared = next((name for name in _TOGETHER if item.get_closest_marker(name)), None)
        item.add_marker(pytest.mark.xdist_group(shared or item.path.as_posix()))


def _leave_out_gemma3(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Its terms have to be accepted by who runs the tests, so that neither a skip nor a failure is right without it."""
    from monitor.settings import default_state_dir

    without = [item for item in items if item.get_closest_marker("gemma3")]
    if without and not (default_state_dir() / "models" / "gemma3-270m" / "config.json").is_file():
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run in several processes (pytest-xdist), each one sends what it missed."""
    sent = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent["missing_programs"] = _missing_programs


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The process that prints the summary takes what another one missed."""
    _missing_programs.update(getattr(node, "workeroutput", {}).get("missing_programs", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _missing_programs:
        terminalreporter.section("outside programs that were missing")
        for name, install_line in sorted(_missing_programs.items()):
            terminalreporter.write_line(f"{name}: {install_line}")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's leaks in: no AWRY_* variable, no awry.toml of the current folder."""
    for name in [n for n in os.environ if n.startswith("AWRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def state() -> Path:
    """The state folder, with SmolLM2 made (about a minute the first time)."""
    from monitor.settings import default_state_dir
    from probes.model.builtin import SMOLLM2, ensure

    folder = Path(_STATE_DIR) if _STATE_DIR else default_state_dir()
    ensure(SMOLLM2, folder)
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real embedded PostgreSQL for the session."""
    from sqlalchemy import text

    from storage.database import connect
    from tests.support.embedded import embedded_postgres

    with embedded_postgres() as url:
        engine = connect(url)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Nothing outlives the session, so nothing needs to survive a power cut.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield url


@pytest.fixture(scope="session")
def _template(postgres_url: str) -> str:
    """Name of a database at head, from which tests get their copies."""
    from storage.database import upgrade

    name = "awry_template"
    with _database(postgres_url, name, drop=False) as engine:
        upgrade(engine)
    return name


@contextmanager
def _database(server_url: str, name: str, template: str | None = None, *, drop: bool = True) -> Iterator[Engine]:
    from sqlalchemy import make_url, text

    from storage.database import connect

    def run(statement: str) -> None:
        server = connect(server_url)
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        server.dispose()

    run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else ""))
    engine = connect(make_url(server_url).set(database=name).render_as_string(hide_password=False))
    try:
        yield engine
    finally:
        engine.dispose()
        if drop:
            run(f"DROP DATABASE {name} WITH (FORCE)")


def _fresh_name() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def engine(postgres_url: str, _template: str) -> Iterator[Engine]:
    """A database of this test's own, at head."""
    with _database(postgres_url, _fresh_name(), _template) as made:
        yield made


@pytest.fixture(scope="module")
def module_engine(postgres_url: str, _template: str) -> Iterator[Engine]:
    """One database at head for the tests of a module that use it; rows of other tests are in it."""
    with _database(postgres_url, _fresh_name(), _template) as made:
        yield made


@pytest.fixture
def empty_engine(postgres_url: str) -> Iterator[Engine]:
    """A database of this test's own with nothing in it."""
    with _database(postgres_url, _fresh_name()) as made:
        yield made


@pytest.fixture
def postgres_database(engine: Engine) -> str:
    """URL of the database behind `engine`, for programs that are started."""
    return url_of(engine)


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)
