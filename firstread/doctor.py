"""Look at everything that Firstread needs and say, for each, whether it is well or what to do."""

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from common.database import durability_problems, make_engine, make_sessions
from common.errors import BundleError, ConfigurationError
from common.schema import NEEDED_REVISION
from common.settings import Settings
from common.tables import ModelState, ModelVersion
from common.worklist import database_now
from firstread.certificate_validity import judge_tls
from firstread.commitment_backlog import undelivered
from firstread.migrate import current_revision

START_HINT = "start the stack with `firstread up`"
CLOCK_SKEW_S = 2.0  # leases live on the database's clock; logs and DICOM times on this one


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    ok: bool
    says: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Check one thing after another; it changes nothing and works on a stopped stack too."""
    yield Finding("home", True, str(settings.home))
    yield from _archive(settings)
    yield from _database(settings)
    yield _broker(settings)
    yield from _doors(settings)
    yield _peers(settings)
    yield from (Finding("tls", verdict.ok, verdict.says) for verdict in judge_tls(settings))
    yield _time_zone(settings)


def _archive(settings: Settings) -> Iterator[Finding]:
    folder = settings.archive_path
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    reserve = settings.archive_reserve_bytes
    enough = free > reserve
    says = f"{free / 1e9:.1f} GB free, objects are refused under {reserve / 1e9:.1f} GB"
    if not enough:
        says += ": make room, or lower FIRSTREAD_ARCHIVE_RESERVE_BYTES"
    yield Finding("archive space", enough, says)
    if not folder.exists():
        writable = os.access(existing, os.W_OK)
        says = f"{folder} is made at the first start"
        if not writable:
            says = f"{folder} cannot be made: {existing} is not writable for this account"
        yield Finding("archive", writable, says)
        return
    trial = folder / f".doctor-{os.getpid()}"
    try:
        with trial.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        yield Finding("archive", True, f"{folder} takes writes and syncs them")
    except OSError as error:
        yield Finding("archive", False, f"{folder}: {error.strerror}; check owner and mount")
    finally:
        trial.unlink(missing_ok=True)
    from firstread.retaining import open_folders

    loose = open_folders(settings)
    yield Finding("archive privacy", not loose, "; ".join(loose) or "its owner alone can enter")


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        address = settings.database_address()
    except ConfigurationError:
        yield Finding("database", False, f"the embedded server is not running: {START_HINT}")
        return
    engine = make_engine(address, pool_size=1)
    try:
        with engine.connect() as connection:
            yield Finding("database", True, "answers")
            found = current_revision(connection)
        current = found is not None and found >= NEEDED_REVISION
        says = f"at revision {found or 'none'}"
        if not current:
            says += f", this version needs {NEEDED_REVISION}: run `firstread migrate`"
        elif found != NEEDED_REVISION:
            says += f": newer than this version, which needs {NEEDED_REVISION} and works with it"
        yield Finding("migrations", current, says)
        with make_sessions(engine)() as session:
            problems = durability_problems(session)
            yield Finding(
                "durability",
                not problems,
                "; ".join(problems) or "a committed row survives a power cut",
            )
            skew = (datetime.now(UTC) - database_now(session)).total_seconds()
            ok = abs(skew) <= CLOCK_SKEW_S
            says = f"{abs(skew):.1f} s from the database's"
            yield Finding("clock", ok, says if ok else f"{says}: synchronise both hosts (NTP)")
            if current:
                yield from _models(session)
                yield from (
                    Finding("storage commitment", False, says) for says in undelivered(session)
                )
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        hint = START_HINT if settings.database_url is None else "check FIRSTREAD_DATABASE_URL"
        yield Finding("database", False, f"{reason}: {hint}")
    finally:
        engine.dispose()


def _models(session: Session) -> Iterator[Finding]:
    from worker.models import locate_bundle

    live = session.scalars(
        select(ModelVersion)
        .where(ModelVersion.state == ModelState.LIVE)
        .order_by(ModelVersion.pipeline)
    ).all()
    if "chest_xray" not in {version.pipeline for version in live}:
        yield Finding(
            "model chest_xray",
            False,
            "none is live, so real radiographs wait: run `firstread models activate NAME`",
        )
    for version in live:
        name = f"{version.name}@{version.version}"
        try:
            locate_bundle(version)
            yield Finding(f"model {version.pipeline}", True, f"{name} is live, its files intact")
        except BundleError as error:
            yield Finding(
                f"model {version.pipeline}",
                False,
                f"{name}: {error}; restore its folder or activate another version",
            )


def _broker(settings: Settings) -> Finding:
    try:
        address = settings.broker_address()
    except ConfigurationError:
        return Finding("broker", False, f"the embedded server is not running: {START_HINT}")
    try:
        with Redis.from_url(address, socket_timeout=3, socket_connect_timeout=3) as client:
            client.ping()
    except (RedisError, OSError) as error:
        hint = START_HINT if settings.broker_url is None else "check FIRSTREAD_BROKER_URL"
        return Finding("broker", False, f"{error}: {hint}")
    return Finding("broker", True, "answers")


def _doors(settings: Settings) -> Iterator[Finding]:
    for subject, host, port in (
        ("listener", settings.dicom_host, settings.dicom_port),
        ("listener, TLS", settings.dicom_host, settings.dicom_tls_port),
        ("dashboard", settings.dashboard_host, settings.dashboard_port),
    ):
        if port is None:
            continue
        try:
            socket.create_connection((host, port), timeout=2).close()
            yield Finding(subject, True, f"accepts connections on {host} port {port}")
        except OSError as error:
            says = f"{host} port {port}: {error.strerror or error}: {START_HINT}"
            yield Finding(subject, False, says)


def _peers(settings: Settings) -> Finding:
    if not settings.peers:
        return Finding("peers", True, "none is named: nobody beyond loopback may send")
    asking = sum(peer.storage_commitment for peer in settings.peers)
    proven = sum(peer.needs_certificate for peer in settings.peers)
    says = f"{len(settings.peers)} rules, {asking} with storage commitment, {proven} by certificate"
    return Finding("peers", True, says)


def _time_zone(settings: Settings) -> Finding:
    now = datetime.now(settings.zone)
    return Finding(
        "time zone", True, f"{settings.site_timezone}: it is {now:%H:%M} there (study times)"
    )
