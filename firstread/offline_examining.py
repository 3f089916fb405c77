"""Examine files in decoding children, without archive, database or queue."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from common.errors import FirstreadError
from common.pixels.header import is_phantom, read_header, text
from common.pixels.image_files import is_image_file
from common.settings import Settings
from model.bundles import Bundle
from model.eligibility import Policy
from model.examination import Examined, examine
from worker.decoding import Decoder

DEFAULT_PIPELINE = "chest_xray"
PHANTOM_PIPELINE = "phantom"
_EPOCH = datetime.fromtimestamp(0, UTC)


class Seen(NamedTuple):
    """One file on its way: examined, or failed."""

    path: Path
    rendition: Path
    sop_instance_uid: str | None = None
    bundle: Bundle | None = None
    examined: Examined | None = None
    failure: str | None = None


class Examiner:
    """Examines files in decoding children, a bounded number ahead, in input order."""

    def __init__(
        self,
        settings: Settings,
        bundles: Mapping[str, Bundle],
        scratch: Path,
        *,
        with_renditions: bool,
    ) -> None:
        self._bundles = bundles
        self._scratch = scratch
        self._policy = Policy(settings.unknown_age, settings.accept_secondary_capture)
        self._ahead = 2 * settings.max_batch
        modules = ("cv2", "model.examination")
        job = examine if with_renditions else examine_alone
        self._decoder = Decoder(settings, examine=job, modules=modules)
        self._threads = ThreadPoolExecutor(settings.decode_processes)

    def __enter__(self) -> "Examiner":
        self._decoder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.stop()
        self._threads.shutdown(cancel_futures=True)

    def examine_all(self, paths: Iterable[Path]) -> Iterator[Seen]:
        """Give what became of each file, in order."""
        running: deque[Future[Seen]] = deque()
        for number, path in enumerate(paths):
            running.append(self._threads.submit(self._examine, number, path))
            if len(running) >= self._ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def _examine(self, number: int, path: Path) -> Seen:
        seen = Seen(path, self._scratch / f"{number}.png")
        try:
            header = None if is_image_file(path) else read_header(path)
            simulated = header is not None and is_phantom(header)
            bundle = self._bundles[DEFAULT_PIPELINE]
            if simulated:
                bundle = self._bundles.get(PHANTOM_PIPELINE, bundle)
            uid = text(header, "SOPInstanceUID") if header is not None else ""
            seen = seen._replace(sop_instance_uid=uid or None, bundle=bundle)
            urgency = (0, _EPOCH, number)
            examined = self._decoder.decode(path, bundle, self._policy, seen.rendition, urgency)
        except FirstreadError as error:
            return seen._replace(failure=str(error))
        except OSError as error:
            return seen._replace(failure=f"cannot be read: {error.strerror or error}")
        return seen._replace(examined=examined)


def examine_alone(
    path: Path, bundle: Bundle, policy: Policy, _rendition: Path, max_pixels: int
) -> Examined:
    """Examine a file whose picture nobody asked for; the job of a decoding child."""
    return examine(path, bundle, policy, None, max_pixels)
