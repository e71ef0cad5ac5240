import pytest

from tests.support.world import close_all


@pytest.fixture(scope="session", autouse=True)
def _worlds():
    yield
    close_all()
