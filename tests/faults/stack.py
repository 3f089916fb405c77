"""A whole pipeline of real processes for fault cases: kill any of them, start it again, count.

Postgres and Redis from the wheels, listeners, workers with a model that echoes, and beat, each in
a session of its own, over one folder below /tmp; DCMTK's storescu sends. A case reads:

    with Stack(listeners=1, workers=1) as stack:
        sending = stack.send(at_least=500)             # 8 storescu at a time, from now on
        stack.listeners[0].kill()                      # SIGKILL, seen to be what it died of
        stack.listeners[0].start()
        sending.finish()                               # until all are acknowledged
        stack.drain()                                  # until nothing is queued or running
        stack.tally("my case", sending).check()        # lost 0, duplicates 0, or it fails

``stack.postgres`` (kill, kill_backend, restart), ``stack.redis`` (kill, start, keeps),
``stack.beat``, ``stack.workers`` and ``stack.listeners`` are the processes. Every fault that they
are made to suffer counts itself; others are named in ``stack.more_faults``. For hosts in network
namespaces give ``prefixes``, one for each role, and the servers' addresses.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.database import make_engine, make_sessions
from common.states import AnalysisState
from common.tables import Analysis, Instance
from firstread.migrate import upgrade
from tests.conftest import REPOSITORY
from tests.e2e.running import free_port
from tests.faults.objects import Objects, data_set
from tests.faults.postgres import Postgres
from tests.faults.process import Process
from tests.faults.sending import Sending
from tests.faults.tally import Tally
from tests.own_broker import Broker
from tests.waiting import eventually
from tests.worker_parts import make_bundle
from worker.registration import register

LISTEN = "from common.settings import get_settings as s; from dicom_listener.service import serve; "
LISTEN += "serve(s())"
WORK = "from common.settings import get_settings; from worker.service import work; "
WORK += "from tests.faults.parts import {load}, examine_number; "
WORK += "raise SystemExit(work(get_settings(), load={load}, examine=examine_number))"
BEAT = "from common.settings import get_settings; from worker.service import beat; "
BEAT += "raise SystemExit(beat(get_settings()))"

IMPATIENT = {
    "FIRSTREAD_LEASE_S": "3",
    "FIRSTREAD_UPKEEP_INTERVAL_S": "0.5",
    "FIRSTREAD_SETTLE_AFTER_S": "2",
    "FIRSTREAD_MAX_LOSSES": "1000",  # whoever was at work when a worker was killed is no suspect
    "FIRSTREAD_WORKER_THREADS": "8",
    "FIRSTREAD_DECODE_PROCESSES": "1",
    "FIRSTREAD_MAX_BATCH": "8",
    "FIRSTREAD_ARCHIVE_RESERVE_BYTES": "0",
}


class Stack:
    """The processes, their folder, and the questions that a case asks of the ledger."""

    def __init__(
        self,
        *,
        listeners: int = 1,
        workers: int = 1,
        load: str = "load_number",
        pipelines: Sequence[str] = ("chest_xray",),
        archive: Path | None = None,
        prefixes: Mapping[str, Sequence[str]] | None = None,
        postgres_address: str = "",
        redis_address: str = "",
        listener_host: str = "127.0.0.1",
        postgres_options: Sequence[str] = (),
        postgres_folder: Path | None = None,
        **variables: str,
    ) -> None:
        """Describe it; entering it starts everything.

        Args:
            listeners: How many, each on a port of its own.
            workers: How many.
            load: The worker's loader, by its name in ``tests.faults.parts``.
            pipelines: A live bundle is registered for each.
            archive: The archive's folder, if it is not to lie beside the rest.
            prefixes: By role (postgres, redis, listener, worker, beat, sender): what is put before
                the command. Postgres' must not change the account.
            postgres_address: Postgres listens there on TCP port 5432.
            redis_address: Redis listens there on TCP port 6379.
            listener_host: Where the listeners bind, and storescu sends.
            postgres_options: More of what follows ``postgres``.
            postgres_folder: Where Postgres keeps its data, if not beside the rest.
            variables: FIRSTREAD_ settings of every service, over those of IMPATIENT.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="firstread-faults-", dir="/tmp"))
        self.folder.chmod(0o755)
        before = dict(prefixes or {})
        self._sender_prefix = before.get("sender", ())
        self.pipelines = pipelines
        self.host = listener_host
        self.more_faults: Counter[str] = Counter()
        self.postgres = Postgres(
            postgres_folder or self.folder,
            address=postgres_address,
            prefix=before.get("postgres", ()),
            options=postgres_options,
            logs=self.folder / "logs",
        )
        (self.folder / "redis").mkdir()
        self.redis = Broker(
            self.folder / "redis", address=redis_address, prefix=before.get("redis", ())
        )
        self.environment = {
            **IMPATIENT,
            "FIRSTREAD_HOME": str(self.folder / "home"),
            "FIRSTREAD_ARCHIVE": str(archive or self.folder / "archive"),
            "FIRSTREAD_DATABASE_URL": self.postgres.url(),
            "FIRSTREAD_BROKER_URL": self.redis.url,
            "FIRSTREAD_DICOM_HOST": listener_host,
            **variables,
        }
        self.ports = [free_port() for _ in range(listeners)]
        listen = "listener_started"
        self.listeners = [
            self._service(
                "the listener", LISTEN, listen, before.get("listener", ()), str(number), port
            )
            for number, port in enumerate(self.ports)
        ]
        code = WORK.format(load=load)
        self.workers = [
            self._service("a worker", code, "worker_started", before.get("worker", ()), str(number))
            for number in range(workers)
        ]
        self.beat = self._service("beat", BEAT, "beat_started", before.get("beat", ()))
        self._engine: Engine | None = None
        self._number = 0

    def _service(
        self,
        name: str,
        code: str,
        ready_word: str,
        prefix: Sequence[str],
        number: str = "",
        port: int | None = None,
    ) -> Process:
        environment = dict(self.environment)
        if port is not None:
            environment["FIRSTREAD_DICOM_PORT"] = str(port)
        log = self.folder / "logs" / f"{name.split()[-1]}{number}.log"
        command = [sys.executable, "-c", code]
        return Process(name, command, log, environment, prefix=prefix, ready_word=ready_word)

    @property
    def services(self) -> list[Process]:
        """List our own processes, without the two servers."""
        return [*self.listeners, *self.workers, self.beat]

    @property
    def engine(self) -> Engine:
        """Connect to the database through its socket, wherever the services connect to it."""
        if self._engine is None:
            url = self.postgres.url()
            if self.postgres.address:
                url = (
                    f"{url.replace(f'@{self.postgres.address}', '@')}?host={self.postgres.sockets}"
                )
            self._engine = make_engine(url, pool_size=2)
        return self._engine

    @property
    def sessions(self) -> sessionmaker[Session]:
        """Make sessions on the ledger."""
        return make_sessions(self.engine)

    @property
    def archive(self) -> Archive:
        """Look into the archive."""
        return Archive(Path(self.environment["FIRSTREAD_ARCHIVE"]))

    def __enter__(self) -> Self:
        try:
            self.postgres.prepare()
            self.redis.start()
            upgrade(self.engine)
            with self.sessions.begin() as session:
                register(session, [self._bundle(name) for name in self.pipelines], actor="test")
            for service in self.services:
                service.start()
            for service in self.services:
                service.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for service in self.services:
            service.clear()
        if self._engine is not None:
            self._engine.dispose()
        self.redis.kill()
        self.postgres.clear()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            sys.stdout.write(self._last_words())
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(
        self, *, objects: Objects | None = None, images_per_study: int = 1, **how: object
    ) -> Sending:
        """Start senders to the listeners; ``how`` goes to Sending."""
        self._number += 1
        if objects is None:
            folder = self.folder / f"sent-{self._number}"
            objects = Objects(folder, images_per_study=images_per_study)
        return Sending(
            objects,
            self.ports,
            host=self.host,
            prefix=self._sender_prefix,
            **how,  # pyright: ignore[reportArgumentType]
        ).start()

    def revive(self) -> None:
        """Start whatever of ours has ended, as a supervisor does; safe to repeat."""
        for service in self.services:
            if not service.running:
                service.start()

    def revive_all(self, within_s: float = 120) -> None:
        """Start again what ends, until all of ours serve at once."""

        def all_serve() -> bool:
            self.revive()
            return all(one.running and one.ready_word in one.told() for one in self.services)

        assert eventually(all_serve, within_s, 0.5), self._last_words()

    def held_by(self, worker: Process) -> int:
        """Count the analyses that a worker has claimed and not ended."""
        name = f"{socket.gethostname()}:{worker.pid}"
        with self.sessions() as session:
            held = select(func.count()).where(
                Analysis.state == AnalysisState.RUNNING, Analysis.worker == name
            )
            return session.execute(held).scalar_one()

    def late_results(self) -> int:
        """Count the results that came after their lease was lost, and were discarded."""
        with self.sessions() as session:
            return session.execute(select(func.sum(Analysis.late_results))).scalar_one() or 0

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command of ``firstread`` on this stack. Returns its status and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "firstread", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            cwd=REPOSITORY,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def losses(self) -> int:
        """Count the leases that were lost."""
        with self.sessions() as session:
            return session.execute(select(func.sum(Analysis.losses))).scalar_one() or 0

    def done_of(self, pipeline: str) -> int:
        """Count a pipeline's analyses that are done."""
        with self.sessions() as session:
            done = select(func.count()).where(
                Analysis.pipeline == pipeline, Analysis.state == AnalysisState.DONE
            )
            return session.execute(done).scalar_one()

    def states(self) -> Counter[AnalysisState]:
        """Count the analyses in each state."""
        with self.sessions() as session:
            rows = session.execute(select(Analysis.state, func.count()).group_by(Analysis.state))
            return Counter({state: number for state, number in rows})

    def drain(self, within_s: float = 300) -> None:
        """Wait until nothing is queued or at work."""

        def is_drained() -> bool:
            try:
                states = self.states()
            except OperationalError:
                return False  # the database is on its way back from the last fault
            return not states[AnalysisState.QUEUED] + states[AnalysisState.RUNNING]

        assert eventually(is_drained, within_s, 0.3), f"left behind: {self.states()}"

    def faults(self) -> dict[str, int]:
        """Say what was really done, and how often."""
        processes = [*self.listeners, *self.workers, self.beat, self.postgres]
        return dict(sum((one.faults for one in processes), self.redis.faults + self.more_faults))

    def tally(
        self, case: str, *sendings: Sending, failed: Sequence[str] = (), analysed: bool = True
    ) -> Tally:
        """Count what the senders were told against ledger and archive.

        Args:
            case: Its name in the table.
            sendings: All that was sent in it.
            failed: SOP Instance UIDs whose analysis must have failed; all others must be done,
                with the number that stands in their pixels.
            analysed: Whether every acknowledged object must have its one final analysis.
        """
        made = {uid: one for some in sendings for uid, one in some.objects.made.items()}
        acknowledged = {uid for some in sendings for uid in some.acknowledged}
        with self.sessions() as session:
            instances = session.execute(
                select(Instance.id, Instance.sop_instance_uid, Instance.path, Instance.sha256)
            ).all()
            analyses = session.execute(
                select(Analysis.instance_id, Analysis.state, Analysis.score)
            ).all()
        ended: dict[int | None, int] = Counter()
        done: Counter[int] = Counter()
        uids = {row.id: row.sop_instance_uid for row in instances}
        for row in analyses:
            uid = uids.get(row.instance_id or 0, "")
            if uid not in made:
                continue
            is_right = (
                row.state is AnalysisState.FAILED
                if uid in failed
                else row.state is AnalysisState.DONE and row.score == made[uid].number
            )
            ended[row.instance_id] += is_right
            done[row.instance_id or 0] += row.state is AnalysisState.DONE
        whole, per_uid, duplicates = set(), Counter[str](), 0
        for row in instances:
            uid = row.sop_instance_uid
            if uid not in made:
                continue
            per_uid[uid] += 1
            duplicates += max(0, done[row.id] - 1)
            if self._is_intact(row.path, row.sha256, made[uid].sha256):
                whole.add(uid)
        duplicates += sum(number - 1 for number in per_uid.values())
        finals = {uids[key] for key, number in ended.items() if key and number == 1}
        kept = whole & finals if analysed else whole
        return Tally(
            case=case,
            sent=len(made),
            acknowledged=len(acknowledged),
            stored=len(whole),
            done=sum(done.values()),
            duplicates=duplicates,
            lost=len(acknowledged - kept),
            faults=self.faults(),
        )

    def _is_intact(self, name: str, of_row: bytes, as_sent: bytes) -> bool:
        try:
            content = self.archive.path(name).read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(data_set(content)).digest() == of_row == as_sent

    def _bundle(self, pipeline: str):  # noqa: ANN202 - model.bundles.Bundle
        return make_bundle(self.folder / "bundles" / pipeline, pipeline=pipeline)

    def _last_words(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "".join(f"--- {log.name}\n{log.read_text()[-2500:]}\n" for log in logs)
