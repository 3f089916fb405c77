"""Decode in child processes: off the GIL, under a deadline and a memory limit, urgent first.

Several decoders hold the GIL, and any of them may hang, crash or ask for terabytes on a damaged
object. A child returns the model-sized image and writes the page's rendition itself, so that
the full image never crosses a pipe. No child imports torch.
"""

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from common.errors import (
    DecodeCrashError,
    DecodeTimeoutError,
    OversizedImageError,
    StorageUnavailableError,
)
from common.settings import Settings
from worker.children import (
    Child,
    ChildDeadlineError,
    ChildDeathError,
    ChildMemoryError,
    ChildStartError,
    Upbringing,
)
from worker.urgency import Urgency

if TYPE_CHECKING:
    from model.bundles import Bundle
    from model.eligibility import Policy
    from model.examination import Examined

Examine = Callable[[Path, "Bundle", "Policy", Path, int], "Examined"]


def examine_object(
    path: Path, bundle: "Bundle", policy: "Policy", rendition: Path, max_pixels: int
) -> "Examined":
    """Judge, read and prepare one archived object; the job that a child does.

    Raises:
        ImageError: this object's fault.
        StorageUnavailableError: the archive's or the bundle's fault; another object would fare no
            better.
    """
    from common.errors import BundleError, UnreadablePixelsError
    from model.examination import examine

    try:
        rendition.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return examine(path, bundle, policy, rendition=rendition, max_pixels=max_pixels)
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise UnreadablePixelsError("the archive no longer holds the object") from error
        raise StorageUnavailableError(f"archive: {error.strerror}") from error
    except BundleError as error:  # its gate has gone or changed: no image's fault
        raise StorageUnavailableError(f"bundle: {error}") from error
    except OSError as error:
        if error.errno is None:  # a library's own error in OSError's clothes
            raise
        raise StorageUnavailableError(f"archive: {error.strerror}") from error


class Decoder:
    """A few children, given to whoever waits with the most urgent object."""

    def __init__(
        self,
        settings: Settings,
        examine: Examine = examine_object,
        modules: Sequence[str] = ("cv2", "model.examination"),
    ) -> None:
        self._examine = examine
        self._deadline_s = settings.decode_deadline_s
        self._max_pixels = settings.max_pixels
        modules = (*modules, examine.__module__)  # the first object shall find everything imported
        upbringing = Upbringing(modules, memory_bytes=settings.decode_memory_bytes)
        self._idle = [
            Child(f"decoder-{number}", upbringing) for number in range(settings.decode_processes)
        ]
        self._children = tuple(self._idle)
        self._waiting: list[tuple[Urgency, int, Future[Child]]] = []
        self._numbers = count()
        self._lock = Lock()
        self._stopped = False

    def start(self) -> None:
        """Start the children, so that the first image finds them warm."""
        for child in self._children:
            child.start()

    def pids(self) -> list[int]:
        """List the processes that run."""
        return [pid for child in self._children if (pid := child.pid) is not None]

    def warm(self) -> int:
        """Count the children that have everything imported."""
        return sum(child.is_ready() for child in self._children)

    def decode(
        self, path: Path, bundle: "Bundle", policy: "Policy", rendition: Path, urgency: Urgency
    ) -> "Examined":
        """Examine one object in a child, after what is more urgent.

        Raises:
            ImageError: this object's fault: unreadable, too large, too slow, or it crashed.
            StorageUnavailableError: the archive or the child's start; no object is to blame.
            CancelledError: the decoder was stopped.
        """
        child = self._borrow(urgency)
        try:
            return child.run(
                self._examine,
                path,
                bundle,
                policy,
                rendition,
                self._max_pixels,
                deadline_s=self._deadline_s,
            )
        except (ChildDeathError, ChildStartError) as error:
            if self._stopped:
                raise CancelledError from error
            if isinstance(error, ChildStartError):
                raise StorageUnavailableError(str(error)) from error
            raise DecodeCrashError(f"decoding crashed: {error}") from error
        except ChildMemoryError as error:
            raise OversizedImageError(f"decoding: {error}") from error
        except ChildDeadlineError as error:
            raise DecodeTimeoutError(f"decoding gave {error}") from error
        finally:
            self._give_back(child)

    def stop(self) -> None:
        """Kill the children; whoever waits for one gets CancelledError."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            waiting, self._waiting = self._waiting, []
        for *_, handed in waiting:
            handed.cancel()
        for child in self._children:
            if child in idle:
                child.kill()
            else:
                child.interrupt()

    def _borrow(self, urgency: Urgency) -> Child:
        """Take an idle child, or wait until it is one's turn to get the next."""
        handed: Future[Child] = Future()
        with self._lock:
            if self._stopped:
                raise CancelledError
            if self._idle:
                return self._idle.pop()
            heapq.heappush(self._waiting, (urgency, next(self._numbers), handed))
        return handed.result()

    def _give_back(self, child: Child) -> None:
        with self._lock:
            if self._stopped:
                child.kill()
            elif self._waiting:  # handed over directly: to wake all who wait costs more than SQL
                heapq.heappop(self._waiting)[-1].set_result(child)
            else:
                self._idle.append(child)
