"""Send DICOM files by C-STORE as they lie on disk, and try again where that makes sense."""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from common.errors import ConfigurationError, UnreachableError
from firstread.scanner.outgoing import Outgoing, with_meta
from firstread.scanner.send_log import Acknowledgement, SendLog

_MAX_CONTEXTS = 128  # PS3.8 table 9-18: context identifiers are the odd numbers up to 255
_DESTINATION = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")

# Files go out as they are, neither read whole nor encoded again; pynetdicom knows this only as a
# switch for the whole process. Our other use of it, the listener, sends no data sets.
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Destination:
    """A C-STORE receiver: AE title, host and port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Read ``AE@host:port``.

        Raises:
            ConfigurationError: it is not of that form.
        """
        match = _DESTINATION.fullmatch(text.strip())
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ConfigurationError(
                f"{text!r} is not AE@host:port, as in FIRSTREAD@127.0.0.1:11112"
            )
        return cls(match["ae"], match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist: waits double from the first to the longest, one before each retry."""

    attempts: int = 7
    first_wait_s: float = 0.25
    longest_wait_s: float = 8.0

    def wait_s(self, attempt: int) -> float:
        """Give the wait after a failed attempt, counted from 1."""
        return min(self.longest_wait_s, self.first_wait_s * 2 ** (attempt - 1))


def send(
    objects: Iterable[Outgoing],
    destination: Destination,
    *,
    log: SendLog | None = None,
    retry: RetryPolicy | None = None,
    on_answer: Callable[[Acknowledgement], None] | None = None,
    stop: threading.Event | None = None,
) -> list[Acknowledgement]:
    """Send objects in their order, over as many associations as callers and contexts ask for.

    An object is sent again when the receiver is out of resources (0xA7xx) or the association is
    lost; any other status is final. An object that gets no answer keeps status None and its
    reason, and the next is sent.

    Args:
        objects: what to send; those that follow one another with one calling AE share associations.
        destination: the receiver.
        log: where each answer is written as it comes.
        retry: how often and how patiently to try again.
        on_answer: called after each object.
        stop: set it to end before the next object or within a wait.

    Returns:
        One acknowledgement for each object that was tried.

    Raises:
        UnreachableError: no association could be had after all attempts; the log keeps what was
            acknowledged before.
    """
    sender = _Sender(destination, retry or RetryPolicy(), stop or threading.Event())
    answers: list[Acknowledgement] = []
    with tempfile.TemporaryDirectory(prefix="firstread-send-") as staging:
        for group in _group(objects):
            staged = [with_meta(one, Path(staging)) for one in group]
            for original, answer in zip(group, sender.send_group(staged), strict=False):
                final = answer.model_copy(update={"path": original.path})
                answers.append(final)
                if log is not None:
                    log.write(final)
                if on_answer is not None:
                    on_answer(final)
    return answers


def _group(objects: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Cut the stream where the caller changes or one more context would be too many."""
    group: list[Outgoing] = []
    contexts: set[tuple[str, str]] = set()
    for one in objects:
        other_caller = group and group[-1].calling_ae_title != one.calling_ae_title
        if other_caller or len(contexts | {one.context}) > _MAX_CONTEXTS:
            yield group
            group, contexts = [], set()
        group.append(one)
        contexts.add(one.context)
    if group:
        yield group


class _Sender:
    """One association at a time, opened again when it is lost."""

    def __init__(self, destination: Destination, retry: RetryPolicy, stop: threading.Event) -> None:
        self._destination = destination
        self._retry = retry
        self._stop = stop

    def send_group(self, group: list[Outgoing]) -> Iterator[Acknowledgement]:
        """Send objects of one caller whose contexts fit into one association."""
        association: Association | None = None
        try:
            for one in group:
                if self._stop.is_set():
                    return
                started = time.monotonic()
                status, reason, attempt = None, "", 0
                for attempt in range(1, self._retry.attempts + 1):
                    if association is None or not association.is_established:
                        association = self._associate(group)
                    status, reason = _store(association, one)
                    if not _worth_a_retry(status, reason):
                        break
                    if attempt < self._retry.attempts and self._stop.wait(
                        self._retry.wait_s(attempt)
                    ):
                        break
                yield Acknowledgement(
                    at=datetime.now(UTC),
                    sop_instance_uid=one.sop_instance_uid,
                    sop_class_uid=one.sop_class_uid,
                    transfer_syntax_uid=one.transfer_syntax_uid,
                    status=status,
                    attempts=attempt,
                    duration_s=round(time.monotonic() - started, 6),
                    calling_ae_title=one.calling_ae_title,
                    destination=str(self._destination),
                    path=one.path,
                    reason=reason,
                )
        finally:
            if association is not None and association.is_established:
                association.release()

    def _associate(self, group: list[Outgoing]) -> Association:
        entity = AE(ae_title=group[0].calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        entity.connection_timeout = 10
        contexts = [
            build_context(sop_class, [syntax])
            for sop_class, syntax in dict.fromkeys(one.context for one in group)
        ]
        for attempt in range(1, self._retry.attempts + 1):
            association = entity.associate(
                self._destination.host,
                self._destination.port,
                contexts=contexts,
                ae_title=self._destination.ae_title,
                evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)],
            )
            if association.is_established:
                return association
            if association.is_rejected and association.acceptor.primitive is not None:
                answer = association.acceptor.primitive
                if getattr(answer, "result", None) == 1:  # rejected-permanent, PS3.8 table 9-21
                    raise UnreachableError(
                        f"{self._destination} refuses {group[0].calling_ae_title}: "
                        f"{getattr(answer, 'reason_str', 'rejected')}"
                    )
            if attempt < self._retry.attempts and self._stop.wait(self._retry.wait_s(attempt)):
                break
        raise UnreachableError(
            f"no association with {self._destination}: is a listener running there?"
        )


_LOST = "association lost"


def _store(association: Association, one: Outgoing) -> tuple[int | None, str]:
    """Send one object; without a status comes the reason for that."""
    try:
        answer = association.send_c_store(one.path)
    except ValueError as error:  # no context was accepted for it, or a UID that cannot be sent
        return None, str(error)
    except RuntimeError:  # gone between two objects
        return None, _LOST
    if "Status" in answer:
        return int(answer.Status), ""
    return None, _LOST


def _worth_a_retry(status: int | None, reason: str) -> bool:
    return reason == _LOST or (status is not None and status & 0xFF00 == 0xA700)


def _send_at_once(event: Event) -> None:
    """Switch Nagle's algorithm off: a request's small PDUs would wait for acknowledgements."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
