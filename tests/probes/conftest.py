import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread(request):
    """Tiny matrices gain nothing from a second thread and wait for it on a busy machine."""
    if request.node.get_closest_marker("model"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
