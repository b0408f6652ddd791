from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.threads import one_torch_thread


@pytest.fixture(autouse=True, scope="module")
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    with one_torch_thread(unless=request.node.get_closest_marker("model") is not None):
        yield
