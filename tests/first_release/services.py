"""The first release's services as threads, each under a login of its own group role."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from tests.first_release import read_statements

Connection = psycopg.Connection[DictRow]
Values = dict[str, Any]

LISTENER = read_statements("listener")
WORKER = read_statements("worker")
DASHBOARD = read_statements("dashboard")

LIMITS = "-c lock_timeout=10000 -c statement_timeout=30000"  # as that release set them
LEASE = timedelta(seconds=60)
numbers = count(1)


class FirstRelease:
    """Threads that do what its services do, until told to stop; what went wrong is kept."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.received: list[str] = []  # SOP Instance UIDs that were committed: Success
        self.finished: list[int] = []
        self.read: list[int] = []
        self.slowest_s: dict[str, float] = {}  # by step; may be cleared at any time
        self._stopped = Event()
        self._threads: list[Thread] = []

    def start(self, address: str, step: Callable[[Connection], object]) -> None:
        """Repeat a step on a connection of its own."""

        name = step.__name__

        def repeat() -> None:
            with Connection.connect(address, row_factory=dict_row, options=LIMITS) as connection:
                while not self._stopped.is_set():
                    began = monotonic()
                    try:
                        if not step(connection):
                            self._stopped.wait(0.02)
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                        connection.rollback()
                        self.errors.append(error)
                    took_s = monotonic() - began
                    self.slowest_s[name] = max(self.slowest_s.get(name, 0.0), took_s)

        thread = Thread(target=repeat)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Let each end its step."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def receive(self, connection: Connection) -> bool:
        """Register a study of two images and set a revision of the second aside."""
        number = next(numbers)
        uid = f"2.25.77{number}"
        for image in (1, 2):
            values = _object(f"{uid}.1.{image}", uid, number)
            _register(connection, values)
            connection.commit()
            self.received.append(values["sop_instance_uid"])
        _one(connection, LISTENER["set_aside"], values | {"sha256": bytes(32)})
        connection.commit()
        return True

    def work(self, connection: Connection) -> bool:
        """Claim, renew and finish one analysis; every seventh has an error of its own first."""
        (model,) = connection.execute(WORKER["live_models"]).fetchall()
        claimed = _one(
            connection,
            WORKER["claim"],
            {"worker": "first", "lease": LEASE, "model_version_id": model["id"]},
        )
        connection.commit()
        if claimed is None:
            return False
        assert _one(connection, WORKER["renew"], claimed | {"lease": LEASE})
        connection.commit()
        # Without the time that a model takes, a reader who raises what was just queued could still
        # see it so while its result is being written, and the two would wait for each other.
        sleep(0.02)
        fails = claimed["id"] % 7 == 0 and claimed["attempt"] == 1
        ended = connection.execute(WORKER["fail" if fails else "finish"], claimed)
        assert ended.rowcount == 1
        _derive(connection, claimed)
        connection.commit()
        if not fails:
            self.finished.append(claimed["id"])
        return True

    def keep(self, connection: Connection) -> bool:
        """Do a round of upkeep."""
        for step in ("expire", "follow_live"):
            connection.execute(WORKER[step])
            connection.commit()
        for row in connection.execute(WORKER["unsettled"]).fetchall():
            connection.execute(WORKER["locked_item"], row)
            connection.execute(WORKER["settle"], row)
            connection.commit()
        for step in ("past_cap", "otherwise_ranked", "queued"):
            connection.execute(WORKER[step])
        connection.commit()
        return False

    def look_and_read(self, connection: Connection) -> bool:
        """Open the list, then claim, raise and read its first study, all of it audited."""
        connection.execute(DASHBOARD["pulse"])
        rows = connection.execute(DASHBOARD["page"]).fetchall()
        connection.commit()
        if not rows:
            return False
        study = rows[0]
        steps = {
            "study_opened": ("images",),
            "study_claimed": ("new_reading", "locked_reading", "claim"),
            "order_priority_changed": (
                "locked_reading",
                "raise",
                "locked_item",
                "place",
                "requeue",
            ),
            "study_read": ("locked_reading", "read", "locked_item", "off_the_list"),
        }
        for action, names in steps.items():
            for name in names:
                connection.execute(DASHBOARD[name], study)
            connection.execute(DASHBOARD["audit"], study | {"action": action})
            connection.commit()
        self.read.append(study["study_id"])
        return True


@contextmanager
def working(addresses: dict[str, str]) -> Iterator[FirstRelease]:
    """Run two receivers, two workers, upkeep and a reader.

    Args:
        addresses: The database's, with each group role's login.
    """
    release = FirstRelease()
    try:
        for role, step in (
            ("listener", release.receive),
            ("listener", release.receive),
            ("worker", release.work),
            ("worker", release.work),
            ("worker", release.keep),
            ("dashboard", release.look_and_read),
        ):
            release.start(addresses[role], step)
        yield release
    finally:
        release.stop()


def _object(sop_instance_uid: str, study_instance_uid: str, number: int) -> Values:
    texts = (
        "accession_number", "study_description", "study_date", "study_time", "patient_age",
        "requested_procedure_priority", "study_priority_id", "patient_name",
        "patient_birth_date", "patient_sex", "view_position", "body_part_examined",
        "series_description", "issuer",
    )  # fmt: skip
    return dict.fromkeys(texts, "") | {
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": f"{study_instance_uid}.1",
        "sop_instance_uid": sop_instance_uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_id": f"P{number % 50}",  # studies of one patient meet
        "patient_id_stated": True,
        "acquired_at": None,
        "instance_number": 1,
        "modality": "DX",
        "path": f"objects/{sop_instance_uid}.dcm",
        "size_bytes": 1,
        "sha256": hashlib.sha256(sop_instance_uid.encode()).digest(),
        "source_ae_title": "CR1",
        "source_address": "192.0.2.1",
        "pipeline": "chest_xray",
        "analysis_state": "queued",
        "analysis_reasons": [],
        "finished_at": None,
        "lane": 0,
    }


def _register(connection: Connection, values: Values) -> None:
    for _ in range(5):
        with connection.pipeline():
            study = connection.execute(LISTENER["locked_study"], values, prepare=True)
            found = connection.execute(LISTENER["facts"], values, prepare=True)
        known, facts = study.fetchone(), found.fetchone()
        assert facts is not None
        values |= _place(facts["now"]) | {"model_version_id": facts["model_version_id"]}
        if known is not None:
            of_study = {"study_id": known["id"], "series_id": facts["series_id"]}
            _add(connection, values | of_study | {"last_received_at": facts["now"]})
            return
        if _one(connection, LISTENER["new_study"], values, prepare=True):
            return
        connection.rollback()  # another sender brought the patient: look again
    raise AssertionError("another sender was faster five times")


def _add(connection: Connection, values: Values) -> None:
    with connection.pipeline():
        connection.execute(LISTENER["followed_study"], values, prepare=True)
        instance = connection.execute(LISTENER["instance_of_series"], values, prepare=True)
        connection.execute(LISTENER["locked_item"], values, prepare=True)
        connection.execute(LISTENER["analyses"], values, prepare=True)
        connection.execute(LISTENER["reading"], values, prepare=True)
    added = instance.fetchone()
    assert added is not None
    values["instance_id"] = added["id"]
    with connection.pipeline():
        for step in ("new_analysis", "derived_item", "requeued"):
            connection.execute(LISTENER[step], values, prepare=True)


def _place(now: datetime) -> Values:
    return {
        "now": now, "due_at": now + timedelta(hours=24), "band": 2,
        "listed": True, "prior": False, "settled": False, "final": False, "outcome": "pending",
        "leading_analysis_id": None, "probability": None, "images": 0,
        "new_image_since_read": False, "ai_ranked": True,
        "order_priority": "routine", "order_priority_source": "default", "reason": "Routine order",
    }  # fmt: skip


def _derive(connection: Connection, claimed: Values) -> None:
    connection.execute(WORKER["locked_item"], claimed)
    connection.execute(WORKER["analyses"], claimed)
    connection.execute(WORKER["item"], claimed)
    connection.execute(WORKER["derive"], claimed)


def _one(
    connection: Connection, statement: bytes, values: Values, *, prepare: bool | None = None
) -> DictRow | None:
    return connection.execute(statement, values, prepare=prepare).fetchone()
