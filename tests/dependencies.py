"""Check offline what Firstread stands on: python -m tests.dependencies.

Every distribution that the project needs, directly or through another, is installed in the version
that constraints.txt pins, and states a licence that is on the list. Known weaknesses need the
internet: make audit.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent
PROJECT = "firstread"
EXTRAS = ("", "dev")

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Historical Permission|Zlib|"
    r"Unlicense|MPL|Mozilla Public License 2\.0|CC0|0BSD|MIT-CMU)\b"
)
# Not permissive, and why it may stand here all the same.
REVIEWED = {
    "psycopg": "LGPL-3.0, used unchanged through its public interface and replaceable by the user",
    "psycopg-binary": "as psycopg",
}


def pins() -> dict[str, str]:
    """Read what is pinned."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    stated = (line.partition("#")[0].strip() for line in lines)
    pairs = (line.split("==") for line in stated if "==" in line)
    return {canonicalize_name(name): version.split(";")[0].strip() for name, version in pairs}


def needed() -> dict[str, Distribution]:
    """Walk from the project through every requirement that holds on this machine.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(PROJECT, frozenset(EXTRAS))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = distribution(name)
        for text in found[name].requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            wanted = extras | {""}
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
                own = frozenset(requirement.extras)
                waiting.append((canonicalize_name(requirement.name), own))
    del found[PROJECT]
    return found


def licence(found: Distribution) -> str:
    """Give what a distribution says of its licence."""
    metadata = found.metadata
    classifiers = [
        line.rpartition("::")[2].strip()
        for line in metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    stated = (metadata["License-Expression"] or "") if "License-Expression" in metadata else ""
    free = (metadata["License"] or "").splitlines()[:1] if "License" in metadata else []
    return stated or "; ".join(classifiers) or "".join(free)


def problems() -> Iterator[str]:
    """Say what is not as it should be."""
    pinned = pins()
    try:
        found = needed()
    except PackageNotFoundError as error:
        yield f"{error}: run make env"
        return
    for name, one in sorted(found.items()):
        version = one.version.partition("+")[0]  # torch names its build behind a plus
        if pinned.get(name) is None:
            yield f"{name} {version} is needed and constraints.txt does not pin it"
        elif pinned[name].partition("+")[0] != version:
            yield f"{name} is {version}, constraints.txt says {pinned[name]}: run make env"
        if not PERMISSIVE.search(licence(one)) and name not in REVIEWED:
            yield f"{name}: licence {licence(one) or 'not stated'!r} is not on the list"


def main() -> int:
    """Print the problems. Returns the exit status."""
    found = list(problems())
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    if not found:
        sys.stdout.write(f"{len(needed())} distributions are pinned, and their licences allowed\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
