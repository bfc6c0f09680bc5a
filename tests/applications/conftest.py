"""What applications and their workers find: a database in DATABASE_URL, and a broker."""

from collections.abc import Iterator

import pytest

from tests.support.redis_server import redis_server
from tests.support.wal import Log


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def log(log: Log, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setenv("DATABASE_URL", log.url)
    return log
