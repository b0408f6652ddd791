"""Each study, run once a session and shared: its own tests and the page of claims read the same folder.

What is shared is read only: a test that resumes a study, damages its files or runs it otherwise takes a copy of the
folder or a run of its own. A test that uses a finished study is marked `study`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.models.studies import DirectionStudy, HeadsStudy, SafetyStudy, TransferStudy

FINISHED = {"direction_study", "heads_study", "safety_study", "transfer_study"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FINISHED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.study)


@pytest.fixture(scope="session")
def direction_study(tmp_path_factory: pytest.TempPathFactory) -> DirectionStudy:
    from tests.support.models import studies
    from tests.support.threads import one_torch_thread

    folder = tmp_path_factory.mktemp("direction")
    with one_torch_thread():
        chat = studies.chat_with_adapters(tmp_path_factory.mktemp("adapters"))
        return studies.DirectionStudy(folder, chat, studies.run_the_direction_study(chat, folder))


@pytest.fixture(scope="session")
def heads_study(tmp_path_factory: pytest.TempPathFactory) -> HeadsStudy:
    from tests.support.models import planted_head, studies
    from tests.support.threads import one_torch_thread

    folder, chat = tmp_path_factory.mktemp("heads"), planted_head.planted_chat(0)
    with one_torch_thread():
        return studies.HeadsStudy(folder, chat, studies.run_the_heads_study(folder, chat))


@pytest.fixture(scope="session")
def safety_study(tmp_path_factory: pytest.TempPathFactory) -> SafetyStudy:
    from tests.support.models import studies
    from tests.support.threads import one_torch_thread

    with one_torch_thread():
        return studies.run_the_safety_study(tmp_path_factory.mktemp("safety"))


@pytest.fixture(scope="session")
def transfer_study(tmp_path_factory: pytest.TempPathFactory) -> TransferStudy:
    from tests.support.models import studies
    from tests.support.threads import one_torch_thread

    with one_torch_thread():
        return studies.run_the_transfer_study(tmp_path_factory.mktemp("transfer"), tmp_path_factory.mktemp("no-state"))
