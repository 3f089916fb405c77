"""Model versions for the command line: the list, a card, an activation."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.database import make_engine, make_sessions, storage_errors
from common.errors import BundleError
from common.settings import Settings
from common.tables import ModelVersion

if TYPE_CHECKING:
    from dashboard.status import ModelRow


def registered(settings: Settings) -> "tuple[ModelRow, ...]":
    """Give every registered version."""
    from dashboard.status import read_models

    engine = make_engine(settings.database_address(), pool_size=1)
    with storage_errors(), make_sessions(engine)() as session:
        rows = read_models(session)
    engine.dispose()
    return rows


def card(settings: Settings, reference: str) -> str:
    """Give a bundle's card; a folder or a shipped bundle needs no database.

    Raises:
        BundleError: nothing, or more than one, goes by this name.
    """
    from model.bundles import SHIPPED, find_bundles, read_bundle

    if Path(reference).is_dir():
        bundle = read_bundle(Path(reference))
    else:
        known = [
            item for item in find_bundles(SHIPPED) if _matches(item.name, item.version, reference)
        ]
        if len(known) == 1:
            bundle = known[0]
        else:
            from worker.models import locate_bundle

            engine = make_engine(settings.database_address(), pool_size=1)
            with storage_errors(), make_sessions(engine)() as session:
                bundle = locate_bundle(_find(session, reference))
            engine.dispose()
    head = f"{bundle.name}@{bundle.version} for {bundle.pipeline}, bundle {bundle.sha256}"
    missing = bundle.missing()
    state = f"incomplete, missing: {', '.join(missing)}" if missing else "complete"
    text = (bundle.folder / "card.md").read_text(encoding="utf-8").rstrip()
    return f"{head}\n{bundle.folder}\n{state}\n\n{text}"


def activate(settings: Settings, reference: str) -> str:
    """Make a version live; a folder is registered first. Returns a sentence for the operator.

    Raises:
        BundleError: the bundle is unknown, damaged or incomplete.
    """
    from worker.registration import activate_version, register_bundles

    actor = getpass.getuser()[:64]
    engine = make_engine(settings.database_address(), pool_size=1)
    with storage_errors(), make_sessions(engine).begin() as session:
        if Path(reference).is_dir():
            from model.bundles import read_bundle

            register_bundles(session, [Path(reference)], actor=actor)
            reference = read_bundle(Path(reference)).sha256
        version = _find(session, reference)
        count = activate_version(session, version, actor=actor)
        sentence = (
            f"{version.name}@{version.version} is live for {version.pipeline}; "
            f"{count} queued analyses moved to it"
        )
    engine.dispose()
    return sentence


def _find(session: Session, reference: str) -> ModelVersion:
    versions = session.scalars(select(ModelVersion).order_by(ModelVersion.id)).all()
    found = [
        version
        for version in versions
        if _matches(version.name, version.version, reference)
        or (len(reference) >= 6 and version.bundle_sha256.startswith(reference))
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{version.name}@{version.version}" for version in (found or versions))
    problem = "goes by several versions" if found else "is not registered"
    raise BundleError(f"{reference} {problem}: {names or 'run firstread migrate first'}")


def _matches(name: str, version: str, reference: str) -> bool:
    return reference in (name, f"{name}@{version}")
