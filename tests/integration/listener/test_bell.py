"""The bell's rope on a real Redis: as many permits as there is use for, and no more."""

from common.queue import make_celery, waiting_rings
from dicom_listener.bell import Bell
from tests.own_broker import running_broker


def test_permits_that_nobody_takes_do_not_pile_up() -> None:
    with running_broker() as broker:
        app = make_celery(broker.url)
        bell = Bell(app)
        assert bell.ring(1, 3)
        assert waiting_rings(app) == 3
        assert bell.ring(2, 2)
        assert waiting_rings(app) == 5
        for analysis_id in range(3, 100):
            assert bell.ring(analysis_id, 40)
        assert waiting_rings(app) == 16
        bell.close()
        app.close()


def test_a_permit_that_was_taken_makes_room_for_another() -> None:
    with running_broker() as broker:
        app = make_celery(broker.url)
        bell = Bell(app)
        assert bell.ring(1, 1)
        with app.connection_for_read() as connection, connection.channel() as channel:
            assert channel.basic_get("firstread.analyse", no_ack=True) is not None
        assert waiting_rings(app) == 0
        assert bell.ring(2, 1)
        assert waiting_rings(app) == 1
        bell.close()
        app.close()
