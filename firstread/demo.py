"""`firstread demo`: the stack, a simulated scanner, and the studies going through it."""

import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from common.database import make_engine, make_sessions, storage_errors
from common.errors import StorageUnavailableError
from common.settings import Settings
from dashboard.address import dashboard_address
from firstread.demo_ledger import Seen
from firstread.demo_screen import Screen, print_verdict
from firstread.demo_sender import DemoSender, OwnFiles, SimulatedScanner
from firstread.foreground import Narrator
from firstread.stack import Stack, StopRequestedError, stop_on_signals

SETTLE_S = 4.0
LOOK_EVERY_S = 0.5
QUIET_LIMIT_S = 180.0  # nothing moved for so long: the demo has failed
KEPT_RUNS = 5


def run_demo(
    settings: Settings, *, once: bool, sources: Sequence[Path], count: int, seed: int
) -> int:
    """Run the stack and send to it; see ``firstread demo --help``. Returns the exit status."""
    narrator = Narrator()
    folder = _new_folder(settings.home / "demo")
    run_id = folder.name
    environment = demo_environment(settings, own_files=bool(sources))
    with stop_on_signals() as stop:
        stack = Stack(settings, say=narrator.say, stop=stop, environment=environment)
        try:
            with stack:
                narrator.say(
                    "for the demo: "
                    + ", ".join(f"{name}={value}" for name, value in environment.items())
                )
                sender: DemoSender = (
                    OwnFiles(settings, folder, sources)
                    if sources
                    else SimulatedScanner(settings, folder, run_id, count=count, seed=seed)
                )
                status = _watch(stack, sender, narrator, once=once)
        except StopRequestedError:
            status = 0
            narrator.say("stopped while starting")
    shutil.rmtree(folder / "objects", ignore_errors=True)
    narrator.say(f"stopped; what was sent and expected: {folder}")
    return 1 if stack.killed else status


def demo_environment(settings: Settings, *, own_files: bool) -> dict[str, str]:
    """Give what the demo sets for its services beside the site's own settings."""
    environment = {"FIRSTREAD_SETTLE_AFTER_S": f"{min(SETTLE_S, settings.settle_after_s):g}"}
    if own_files:
        environment["FIRSTREAD_UNKNOWN_AGE"] = "accept"
        return environment
    from firstread.scanner.plans import AE_PRIORITIES

    rules = {**settings.ae_priorities, **AE_PRIORITIES}
    environment["FIRSTREAD_AE_PRIORITIES"] = ",".join(
        f"{ae}={priority}" for ae, priority in rules.items()
    )
    return environment


def _watch(stack: Stack, sender: DemoSender, narrator: Narrator, *, once: bool) -> int:
    """Show the studies until they are through (``once``) or somebody stops the demo."""
    settings, stop = stack.settings, stack.stop_requested
    engine = make_engine(settings.database_address(), pool_size=1)
    sessions = make_sessions(engine)
    thread = threading.Thread(target=sender.run, args=(stop,), name="scanner", daemon=True)
    thread.start()
    status = 1 if once else 0
    judged = False
    try:
        with Screen(narrator.console, dashboard_address(settings)) as screen:
            stack.say = screen.say
            last_change_s, last = time.monotonic(), None
            while not stop.wait(LOOK_EVERY_S):
                stack.tend()
                seen = _look(sessions, sender)
                if seen is None:
                    continue
                screen.show(sender, seen)
                moved = (len(sender.answers), [one.state for one in seen.objects])
                if moved != last:
                    last_change_s, last = time.monotonic(), moved
                finished = not thread.is_alive() and _settled(seen)
                stuck = time.monotonic() - last_change_s > QUIET_LIMIT_S
                if judged or not (finished or (once and stuck)):
                    continue
                judged = True
                checks = sender.judge(seen)
                passed = sender.error is None and all(check.passed for check in checks)
                status = 0 if passed or not once else 1
                screen.rest(sender, seen)
                print_verdict(narrator.console, checks, sender.error)
                if once:
                    break
    finally:
        stack.say = narrator.say
        stop_sending = stop.is_set()
        stop.set()
        thread.join(timeout=15)
        engine.dispose()
    return 0 if stop_sending and not judged else status


def _settled(seen: Seen) -> bool:
    return seen.in_work == 0 and all(study.final for study in seen.studies.values())


def _look(sessions: sessionmaker[Session], sender: DemoSender) -> Seen | None:
    """Read the run's rows; None while the database is restarting."""
    try:
        with storage_errors(), sessions() as session:
            return sender.read(session)
    except StorageUnavailableError:
        return None


def _new_folder(demos: Path) -> Path:
    """Make the run's folder and forget the oldest runs' files; the ledger forgets nothing."""
    demos.mkdir(mode=0o700, parents=True, exist_ok=True)
    earlier = sorted((path for path in demos.iterdir() if path.is_dir()), key=lambda p: p.name)
    for folder in earlier[: max(0, len(earlier) - KEPT_RUNS + 1)]:
        shutil.rmtree(folder, ignore_errors=True)
    folder = demos / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    return folder
