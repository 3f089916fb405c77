"""Poison at a real listener process: a short part of what make faults sends."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.settings import Settings
from tests.faults.poison import Target, send_poisoned_objects, send_poisoned_streams


@pytest.mark.parametrize(
    ("direct", "count"), [(True, 110), (False, 50)], ids=["direct", "pynetdicom"]
)
def test_poisoned_objects_and_streams_harm_neither_the_listener_nor_its_neighbours(
    settings: Settings,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    direct: bool,
    count: int,
) -> None:
    with Target(settings, tmp_path, direct=direct) as target:
        send_poisoned_objects(target, 30, seed=0)
        target.mark()
        statuses = send_poisoned_objects(target, count, seed=1)
        assert statuses.total() == count
        assert len(statuses) >= 3, statuses
        ends = send_poisoned_streams(target, count, seed=2)
        assert ends.total() == count
        assert ends["hung up"] > 0
        target.check_unharmed()
        target.check_folders(sessions)
        target.tally("poison, short", sessions, {"mutated": 2 * count}).check()
