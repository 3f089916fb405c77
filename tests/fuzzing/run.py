"""Fuzz by coverage: ``python -m tests.fuzzing.run TARGET SECONDS`` (make fuzz).

Needs atheris, which only this needs: ``pip install -c constraints.txt -e '.[fuzz]'``. What was
found interesting stays below build/fuzz and is where the next run begins; a finding is written
there too, and ends the run with a status that is not 0.
"""

import sys
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

_OURS = ["common", "dicom_listener", "pydicom"]
with atheris.instrument_imports(include=_OURS):  # pyright: ignore[reportAttributeAccessIssue]
    from tests.fuzzing.corpus import make_corpus
    from tests.fuzzing.targets import TARGETS

FOLDER = Path("build") / "fuzz"


def main(name: str, seconds: str) -> None:
    """Run one target for so long."""
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(make_corpus()[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={FOLDER}/finding-{name}-",
            *("-timeout=20", "-rss_limit_mb=2048", "-max_len=20000", "-print_final_stats=1"),
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:3])
