"""Claims on commitment requests: whose turn it is to answer one, for how long, and how it ended.

Every change is guarded by ``tries``, which each claim raises: who lost the lease changes nothing.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.commitment_tables import CommitmentItem, CommitmentRequest
from common.database import storage_errors
from common.settings import Settings

LEASE_S = 10.0
_LONGEST_WAIT_S = 3600.0
_CHECK_AGAIN_AFTER_S = 600.0  # an outcome told later than this is found anew
_ITEMS_AT_A_TIME = 16


class LostLeaseError(Exception):
    """Another listener has the request by now, or somebody answered it."""


class Claims:
    """Claim requests of one peer and change what is claimed.

    Every method raises StorageUnavailableError when the database is away.
    """

    def __init__(
        self, sessions: sessionmaker[Session], settings: Settings, calling_ae_title: str
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._calling_ae_title = calling_ae_title

    def claim(self, request_id: int | None = None) -> CommitmentRequest | None:
        """Claim this request, or the one that waits longest for its time; None: there is none."""
        now = func.clock_timestamp()
        due = (
            CommitmentRequest.next_try_at <= now
            if request_id is None
            else CommitmentRequest.id == request_id
        )
        with storage_errors(), self._sessions.begin() as session:
            request = session.scalars(
                select(CommitmentRequest)
                .where(
                    CommitmentRequest.state == "pending",
                    CommitmentRequest.calling_ae_title == self._calling_ae_title,
                    or_(
                        CommitmentRequest.lease_until.is_(None),
                        CommitmentRequest.lease_until < now,
                    ),
                    due,
                )
                .order_by(CommitmentRequest.next_try_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if request is not None:
                session.execute(
                    update(CommitmentRequest)
                    .where(CommitmentRequest.id == request.id)
                    .values(tries=CommitmentRequest.tries + 1, lease_until=_in(LEASE_S))
                )
                session.refresh(request)
        return request

    def unchecked(self, request: CommitmentRequest) -> list[CommitmentItem]:
        """Give the next objects that were not checked lately; none: all are."""
        with storage_errors(), self._sessions() as session:
            return list(
                session.scalars(
                    select(CommitmentItem)
                    .where(
                        CommitmentItem.request_id == request.id,
                        or_(
                            CommitmentItem.checked_at.is_(None),
                            CommitmentItem.checked_at < _in(-_CHECK_AGAIN_AFTER_S),
                        ),
                    )
                    .order_by(CommitmentItem.position)
                    .limit(_ITEMS_AT_A_TIME)
                )
            )

    def items(self, request: CommitmentRequest) -> list[CommitmentItem]:
        """Give all objects of a request in the peer's order."""
        with storage_errors(), self._sessions() as session:
            return list(
                session.scalars(
                    select(CommitmentItem)
                    .where(CommitmentItem.request_id == request.id)
                    .order_by(CommitmentItem.position)
                )
            )

    def renew(self, request: CommitmentRequest, lease_s: float = LEASE_S) -> None:
        """Keep the lease for so long from now.

        Raises:
            LostLeaseError: it is lost.
        """
        self._change(request, lease_until=_in(lease_s))

    def deliver(self, request: CommitmentRequest) -> None:
        """Note that the peer was told and said so.

        Raises:
            LostLeaseError: another told it too.
        """
        self._change(
            request,
            state="delivered",
            ended_at=func.clock_timestamp(),
            lease_until=None,
            last_error="",
        )

    def put_off(self, request: CommitmentRequest, reason: str) -> bool:
        """Note why the peer was not told, and when to try again. False: it is given up.

        Raises:
            LostLeaseError: another has it.
        """
        wait_s = min(
            self._settings.commitment_retry_s * 2 ** min(request.failures, 20), _LONGEST_WAIT_S
        )
        age = request.next_try_at - request.requested_at
        keeps_on = age < timedelta(hours=self._settings.commitment_give_up_h)
        ending = {} if keeps_on else {"state": "abandoned", "ended_at": func.clock_timestamp()}
        self._change(
            request,
            failures=request.failures + 1,
            last_error=reason[:200],
            next_try_at=_in(wait_s),
            lease_until=None,
            **ending,
        )
        return keeps_on

    def _change(self, request: CommitmentRequest, **values: object) -> None:
        with storage_errors(), self._sessions.begin() as session:
            changed = session.execute(
                update(CommitmentRequest)
                .where(
                    CommitmentRequest.id == request.id,
                    CommitmentRequest.state == "pending",
                    CommitmentRequest.tries == request.tries,
                )
                .values(**values)
                .returning(CommitmentRequest.id)
            ).one_or_none()
        if changed is None:
            raise LostLeaseError


def _in(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() + timedelta(seconds=seconds)
