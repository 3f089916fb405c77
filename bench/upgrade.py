"""Migrate a large ledger while the first release's services write to it: python -m bench.upgrade

Takes the tables back to those of the first release, lets its receivers, workers, upkeep and a
reader work, and migrates one revision after the other: how long each takes, and how long the
longest step of each service took meanwhile, beside its longest with nothing being migrated.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url

from bench.ledger import kept_postgres
from bench.million_rows import fill
from common.database import make_engine
from common.grants import DASHBOARD, LISTENER, WORKER
from common.settings import Settings
from firstread.migrate import upgrade
from tests.conftest import alembic_config
from tests.first_release.services import working
from tests.logins import as_member

FIRST = "0001"
UNDISTURBED_S = 10.0
LONGEST_S = 10.0  # then a service of ours would give up and tell its sender to come again


def main() -> None:
    """Fill, go back, migrate; status 1 if a service failed or waited too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the ledger in this folder")
    parser.add_argument("--studies", type=int, default=1_000_000)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="firstread-upgrade-", dir="/tmp"))
    root.chmod(0o755)
    try:
        with kept_postgres(options.data or root) as url:
            fill(url, options.studies)
            engine = make_engine(url, statement_timeout_s=600)
            is_well = migrate_while_working(engine, root)
            engine.dispose()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(0 if is_well else 1)


def migrate_while_working(engine: Engine, home: Path) -> bool:
    """Go back to the first revision and forward again under load; True if nobody suffered."""
    config = alembic_config()
    config.attributes["engine"] = engine
    command.downgrade(config, FIRST)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    revisions = [script.revision for script in reversed(list(scripts))][1:]
    with working(_logins(engine, home)) as release:
        time.sleep(UNDISTURBED_S / 2)
        release.slowest_s.clear()
        time.sleep(UNDISTURBED_S)
        _say("nothing", UNDISTURBED_S, release.slowest_s)
        waits = []
        for revision in revisions:
            release.slowest_s.clear()
            began = time.monotonic()
            upgrade(engine, revision)
            took_s = time.monotonic() - began
            time.sleep(1)  # whoever waited ends its step
            _say(revision, took_s, release.slowest_s)
            waits.append(max(release.slowest_s.values()))
        received = len(release.received)
        time.sleep(2)
    goes_on = len(release.received) > received
    done = f"{len(release.received)} received, {len(release.finished)} analysed"
    print(f"{done}, {len(release.read)} read, {len(release.errors)} errors", *release.errors[:3])
    return goes_on and not release.errors and max(waits) < LONGEST_S


def _say(what: str, took_s: float, slowest_s: dict[str, float]) -> None:
    longest = ", ".join(f"{step} {slowest_s[step]:.2f}" for step in sorted(slowest_s))
    print(f"{what:<8} migrated in {took_s:6.2f} s; longest step, s: {longest}", flush=True)


def _logins(engine: Engine, home: Path) -> dict[str, str]:
    owner = Settings.model_validate(
        {"home": home, "database_url": engine.url.render_as_string(hide_password=False)}
    )
    groups = {"listener": LISTENER, "worker": WORKER, "dashboard": DASHBOARD}
    return {
        service: make_url(as_member(owner, group).database_address())
        .set(drivername="postgresql")
        .render_as_string(hide_password=False)
        for service, group in groups.items()
    }


if __name__ == "__main__":
    main()
