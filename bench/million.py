"""Ask a ledger of a million studies what the services ask: python -m bench.million

First the questions of pages and of upkeep, then what receiving an object costs, on the full ledger
and on an empty one in turns: a table that grows must not make the next object dearer. The first
run fills the ledger (minutes); with --data it is kept for the next.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from bench.dicom_servers import Stores, firstread
from bench.ingest import measure
from bench.ledger import kept_postgres
from bench.million_rows import fill
from bench.sent_objects import SentObjects
from common.database import make_engine, make_sessions
from common.queue import make_celery
from common.settings import Settings
from common.tables import Study
from dashboard.queries import Filters, pulse, worklist_page
from dashboard.status import read_failures, read_hops, read_refusals, read_status
from dashboard.worklist_row import RankKey
from tests.own_broker import running_broker
from worker.ledger_watch import LedgerWatch
from worker.upkeep import Upkeep

ASKED = 15
SOON_MS = 50.0
SOON = ("first page", "page behind the middle", "a round of upkeep")
CPU_RATIO = 1.2
SIDE = 160  # 51 kB: what an object costs beside its bytes


def main() -> None:
    """Fill, ask, receive; status 1 if something costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the full ledger in this folder")
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=200, help="per round")
    parser.add_argument("--only", choices=["questions", "receiving"])
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="firstread-million-", dir="/tmp"))
    root.chmod(0o755)
    is_well = True
    try:
        with ExitStack() as stack:
            full = stack.enter_context(kept_postgres(options.data or root / "full"))
            fill(full, options.studies)
            broker = stack.enter_context(running_broker())
            if options.only != "receiving":
                is_well &= ask(full, broker.url)
            if options.only != "questions":
                empty = stack.enter_context(kept_postgres(root / "empty"))
                urls = {"empty": empty, "full": full}
                is_well &= receive(urls, broker.url, root, options.rounds, options.objects)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(0 if is_well else 1)


def ask(url: str, broker_url: str) -> bool:
    """Time each question several times; the first, with cold caches, counts too."""
    engine = make_engine(url, statement_timeout_s=120)
    sessions = make_sessions(engine)
    values = {"database_url": url, "broker_url": broker_url}
    upkeep = Upkeep(engine, sessions, make_celery(broker_url), Settings.model_validate(values))
    watch = LedgerWatch(sessions)
    with sessions() as session:
        middle = _middle(session)
        accession = session.scalars(select(Study.accession_number).offset(777_777).limit(1)).first()

    def asked(question: Callable[[Session], object]) -> Callable[[], object]:
        def once() -> object:
            with sessions() as session:
                return question(session)

        return once

    def searched(words: str) -> Callable[[], object]:
        return asked(lambda session: worklist_page(session, Filters(text=words)))

    questions: dict[str, Callable[[], object]] = {
        "first page": asked(worklist_page),
        "page behind the middle": asked(lambda session: worklist_page(session, after=middle)),
        "search, nothing found": searched("no such text"),
        "search, an accession number": searched(accession or "A"),
        "search, a part of a name": searched("erna"),
        "pulse": asked(pulse),
        "operations: failures": asked(read_failures),
        "operations: refusals": asked(read_refusals),
        "operations: hops": asked(read_hops),
        "operations: counts (whole tables)": asked(read_status),
        "a round of upkeep": upkeep.run,
        "beat's figures": watch.read,
    }
    print(f"{'question':<36}{'first ms':>10}{'p50 ms':>10}{'p95 ms':>10}")
    medians = {}
    for name, question in questions.items():
        times = []
        for _ in range(3 if "whole tables" in name else ASKED):
            started = time.perf_counter()
            question()
            times.append((time.perf_counter() - started) * 1000)
        medians[name] = statistics.median(times)
        p95 = sorted(times)[int(0.95 * (len(times) - 1))]
        print(f"{name:<36}{times[0]:>10.1f}{medians[name]:>10.1f}{p95:>10.1f}", flush=True)
    engine.dispose()
    return all(medians[name] < SOON_MS for name in SOON)


def receive(urls: dict[str, str], broker_url: str, root: Path, rounds: int, objects: int) -> bool:
    """Send objects to a listener on each ledger in turns; give CPU per object and the ratio."""
    sent = SentObjects(root / "sent", senders=2, count=objects, side=SIDE, one_study=False)
    with ExitStack() as stack:
        servers = []
        for name, url in urls.items():
            home = root / f"home-{name}"
            home.mkdir()
            used = Stores(url, broker_url, _postmaster(url))
            server = stack.enter_context(firstread(home, used))
            server.name = name
            servers.append(server)
        measure(sent, servers, None, 1)  # to warm up
        for url in urls.values():
            _checkpoint(url)  # not while we measure
        measured = measure(sent, servers, None, rounds)
    print(f"{rounds} rounds of {len(sent)} objects of {sent.size_bytes / 1000:.0f} kB, in turns")
    whole = {}
    for name, each in measured.items():
        costs = [sum(pair) for pair in zip(each.cpu_ms, each.helpers_ms, strict=True)]
        whole[name] = statistics.median(costs)
        print(
            f"{name:<6} CPU ms/object: {whole[name]:.2f} ({min(costs):.2f}-{max(costs):.2f}), of "
            f"Postgres {statistics.median(each.helpers_ms):.2f}; {each.rate:.0f} objects/s"
        )
    ratio = whole["full"] / whole["empty"]
    print(f"full / empty: {ratio:.2f} x the CPU per object (at most {CPU_RATIO})")
    return ratio <= CPU_RATIO


def _postmaster(url: str) -> int:
    with create_engine(url).connect() as connection:
        folder = connection.execute(text("SHOW data_directory")).scalar_one()
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])


def _checkpoint(url: str) -> None:
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CHECKPOINT"))


def _middle(session: Session) -> RankKey:
    found = session.execute(
        text(
            "SELECT band, due_at, study_id FROM worklist_item WHERE listed "
            "ORDER BY band, due_at, study_id OFFSET "
            "(SELECT count(*) / 2 FROM worklist_item WHERE listed) LIMIT 1"
        )
    ).one()
    return RankKey(found.band, found.due_at, found.study_id)


if __name__ == "__main__":
    main()
