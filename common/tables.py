"""The ledger: one row, one meaning. Names are DICOM keywords in snake case, instants UTC.

Who writes what: patient, study, series, instance and set_aside are the listener's; analysis and
model_version the worker's; reading and site the dashboard's; worklist_item follows from them.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from common.states import (
    AnalysisState,
    Lane,
    ModelState,
    OrderPriority,
    Outcome,
    PrioritySource,
    Purpose,
    ReadingState,
    SetAsideKind,
)


class Base(DeclarativeBase):
    """All tables, with names for every constraint so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _choice(kind: type[StrEnum]) -> Enum:
    """Store an enum as text with a CHECK, which a later migration can widen."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=kind.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


def _key() -> Any:  # noqa: ANN401 - the Mapped[] names the type
    return mapped_column(BigInteger, Identity(), primary_key=True)


def _instant(*, nullable: bool = False) -> Any:  # noqa: ANN401 - the Mapped[] names the type
    return mapped_column(DateTime(timezone=True), nullable=nullable)


class Patient(Base):
    """One person as one issuer names them. An object without PatientID is a person of its own."""

    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("issuer_of_patient_id", "patient_id"),)

    id: Mapped[int] = _key()
    issuer_of_patient_id: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64))  # the study's UID where none was sent
    patient_id_stated: Mapped[bool] = mapped_column(Boolean)
    patient_name: Mapped[str] = mapped_column(String, default="")
    patient_birth_date: Mapped[str] = mapped_column(String(8), default="")
    patient_sex: Mapped[str] = mapped_column(String(16), default="")


class Study(Base):
    """One study as received. Dates keep their text beside the instant read from them."""

    __tablename__ = "study"

    id: Mapped[int] = _key()
    patient_id: Mapped[int] = mapped_column(ForeignKey("patient.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_description: Mapped[str] = mapped_column(String, default="")
    study_date: Mapped[str] = mapped_column(String(32), default="")
    study_time: Mapped[str] = mapped_column(String(32), default="")
    patient_age: Mapped[str] = mapped_column(String(16), default="")
    acquired_at: Mapped[datetime | None] = _instant(nullable=True)
    requested_procedure_priority: Mapped[str] = mapped_column(String(32), default="")
    study_priority_id: Mapped[str] = mapped_column(String(32), default="")
    source_ae_title: Mapped[str] = mapped_column(String(16))
    first_received_at: Mapped[datetime] = _instant()
    last_received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)

    patient: Mapped[Patient] = relationship()
    series: Mapped[list["Series"]] = relationship(back_populates="study")


class Series(Base):
    """One series of a study."""

    __tablename__ = "series"

    id: Mapped[int] = _key()
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    modality: Mapped[str] = mapped_column(String(16), default="")
    body_part_examined: Mapped[str] = mapped_column(String, default="")
    series_description: Mapped[str] = mapped_column(String, default="")

    study: Mapped[Study] = relationship(back_populates="series")
    instances: Mapped[list["Instance"]] = relationship(back_populates="series")


class Instance(Base):
    """One stored DICOM object. Senders repeat themselves: the SOP Instance UID is unique."""

    __tablename__ = "instance"
    __table_args__ = (
        CheckConstraint("file_removed_at IS NULL OR deleted_at IS NOT NULL", name="was_deleted"),
        Index(
            "ix_instance_being_deleted",
            "id",
            postgresql_where=text("deleted_at IS NOT NULL AND file_removed_at IS NULL"),
        ),
    )

    id: Mapped[int] = _key()
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    instance_number: Mapped[int | None] = mapped_column(Integer)
    view_position: Mapped[str] = mapped_column(String(16), default="")
    path: Mapped[str] = mapped_column(String)  # below the archive's folder
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))  # of the data set as received
    source_ae_title: Mapped[str] = mapped_column(String(16))
    source_address: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    deleted_at: Mapped[datetime | None] = _instant(nullable=True)  # by retention; its file goes
    file_removed_at: Mapped[datetime | None] = _instant(nullable=True)
    archive_confirmed_at: Mapped[datetime | None] = _instant(nullable=True)  # the site's archive

    series: Mapped[Series] = relationship(back_populates="instances")
    analyses: Mapped[list["Analysis"]] = relationship(back_populates="instance")


class SetAside(Base):
    """One object that came under a UID already taken: kept once per content, never merged."""

    __tablename__ = "set_aside"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[int] = _key()
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    kind: Mapped[SetAsideKind] = mapped_column(_choice(SetAsideKind))
    path: Mapped[str] = mapped_column(String)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    source_ae_title: Mapped[str] = mapped_column(String(16))
    source_address: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime] = _instant()


class ModelVersion(Base):
    """One bundle that was registered; a pipeline has at most one live."""

    __tablename__ = "model_version"
    __table_args__ = (
        Index(
            "uq_model_version_live_pipeline",
            "pipeline",
            unique=True,
            postgresql_where=text("state = 'live'"),
        ),
    )

    id: Mapped[int] = _key()
    pipeline: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    bundle_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    folder: Mapped[str] = mapped_column(String)
    threshold: Mapped[float | None] = mapped_column(Float)  # probability; None: not complete
    state: Mapped[ModelState] = mapped_column(_choice(ModelState))
    registered_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    activated_at: Mapped[datetime | None] = _instant(nullable=True)


class Analysis(Base):
    """One unit of model work on one instance or one series, and what came of it."""

    __tablename__ = "analysis"
    __table_args__ = (
        UniqueConstraint(
            "instance_id",
            "series_id",
            "pipeline",
            "model_version_id",
            "inputs_sha256",
            "run",
            name="uq_analysis_unit",
            postgresql_nulls_not_distinct=True,
        ),
        CheckConstraint("num_nonnulls(instance_id, series_id) = 1", name="one_input"),
        CheckConstraint(
            "state <> 'done' OR (score IS NOT NULL AND probability IS NOT NULL AND outcome IN "
            "('flagged', 'not_flagged', 'abstained') AND model_version_id IS NOT NULL)",
            name="done_has_result",
        ),
        CheckConstraint("state = 'done' OR outcome IS NULL", name="result_is_done"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
        CheckConstraint(
            "state <> 'not_eligible' OR cardinality(reasons) > 0", name="not_eligible_says_why"
        ),
        CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name="running_has_lease"
        ),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability_in_range"),
        Index(
            "ix_analysis_queue",
            "lane",
            "band",
            "due_at",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_analysis_oldest", "queued_at", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_analysis_leases", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_analysis_finished_at", "finished_at"),
    )

    id: Mapped[int] = _key()
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"), index=True)
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"), index=True)
    pipeline: Mapped[str] = mapped_column(String(32))  # "none": no pipeline takes this class
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    inputs_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    run: Mapped[int] = mapped_column(Integer, default=0)
    purpose: Mapped[Purpose] = mapped_column(_choice(Purpose), default=Purpose.LIVE)
    state: Mapped[AnalysisState] = mapped_column(_choice(AnalysisState))

    # the queue
    lane: Mapped[int] = mapped_column(SmallInteger, default=Lane.CURRENT)
    band: Mapped[int] = mapped_column(SmallInteger, default=2)
    due_at: Mapped[datetime] = _instant()
    attempt: Mapped[int] = mapped_column(Integer, default=0)  # the fencing token
    worker: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = _instant(nullable=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    losses: Mapped[int] = mapped_column(Integer, default=0)
    late_results: Mapped[int] = mapped_column(Integer, default=0)  # discarded: lease was lost

    # the result
    error: Mapped[str | None] = mapped_column(String)
    score: Mapped[float | None] = mapped_column(Float)  # logit
    probability: Mapped[float | None] = mapped_column(Float)  # calibrated
    outcome: Mapped[Outcome | None] = mapped_column(_choice(Outcome))
    reasons: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    insight_probability: Mapped[float | None] = mapped_column(Float)
    heatmap: Mapped[bytes | None] = mapped_column(LargeBinary)  # float16, row by row
    heatmap_rows: Mapped[int | None] = mapped_column(SmallInteger)
    heatmap_columns: Mapped[int | None] = mapped_column(SmallInteger)
    heatmap_affine: Mapped[list[float] | None] = mapped_column(ARRAY(Float))  # to image pixels
    rows: Mapped[int | None] = mapped_column(Integer)
    columns: Mapped[int | None] = mapped_column(Integer)
    rendition: Mapped[str | None] = mapped_column(String)  # below the archive's folder

    # the instants that give each hop's latency
    received_at: Mapped[datetime] = _instant()
    queued_at: Mapped[datetime] = _instant()
    claimed_at: Mapped[datetime | None] = _instant(nullable=True)
    decoded_at: Mapped[datetime | None] = _instant(nullable=True)
    predicted_at: Mapped[datetime | None] = _instant(nullable=True)
    finished_at: Mapped[datetime | None] = _instant(nullable=True)

    instance: Mapped[Instance | None] = relationship(back_populates="analyses")


class WorklistItem(Base):
    """What the list shows and sorts by for one study; derived, and derived again at any time."""

    __tablename__ = "worklist_item"
    __table_args__ = (
        Index(
            "ix_worklist_item_rank", "band", "due_at", "study_id", postgresql_where=text("listed")
        ),
        Index("ix_worklist_item_unsettled", "study_id", postgresql_where=text("NOT settled")),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    listed: Mapped[bool] = mapped_column(Boolean)  # unread, not a prior
    prior: Mapped[bool] = mapped_column(Boolean)
    settled: Mapped[bool] = mapped_column(Boolean, default=False)
    final: Mapped[bool] = mapped_column(Boolean, default=False)  # settled, nothing in work
    outcome: Mapped[Outcome] = mapped_column(_choice(Outcome))
    leading_analysis_id: Mapped[int | None] = mapped_column(ForeignKey("analysis.id"))
    probability: Mapped[float | None] = mapped_column(Float)  # the leading image's
    images: Mapped[int] = mapped_column(Integer)  # analyses done: "highest of n images"
    new_image_since_read: Mapped[bool] = mapped_column(Boolean, default=False)
    ai_ranked: Mapped[bool] = mapped_column(Boolean)  # how Site.ai_ranking stood when derived
    band: Mapped[int] = mapped_column(SmallInteger)
    due_at: Mapped[datetime] = _instant()
    order_priority: Mapped[OrderPriority] = mapped_column(_choice(OrderPriority))
    order_priority_source: Mapped[PrioritySource] = mapped_column(_choice(PrioritySource))
    reason: Mapped[str] = mapped_column(String)


class Reading(Base):
    """What people did with one study: claimed, read, raised. Absent: nobody touched it."""

    __tablename__ = "reading"

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    state: Mapped[ReadingState] = mapped_column(_choice(ReadingState))
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None] = _instant(nullable=True)
    read_by: Mapped[str | None] = mapped_column(String(64))
    read_at: Mapped[datetime | None] = _instant(nullable=True)
    reported_elsewhere: Mapped[bool] = mapped_column(Boolean, default=False)
    instances_read: Mapped[int | None] = mapped_column(Integer)  # more than these: unread again
    order_priority: Mapped[OrderPriority | None] = mapped_column(_choice(OrderPriority))


class Site(Base):
    """The one row of what people may switch while the system runs."""

    __tablename__ = "site"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    ai_ranking: Mapped[bool] = mapped_column(Boolean)


class AuditChain(Base):
    """One process's run of audit events on this database, each sealed with the one before it."""

    __tablename__ = "audit_chain"

    chain_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16))  # of the key, which lies elsewhere
    service: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(255))
    process: Mapped[int] = mapped_column(Integer)
    began_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    sent_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    head_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # told last


class AuditEvent(Base):
    """One thing that somebody did or saw. Append-only: a trigger refuses anything else."""

    __tablename__ = "audit_event"
    __table_args__ = (
        UniqueConstraint("chain_id", "sequence"),
        CheckConstraint("num_nulls(chain_id, sequence, hmac) IN (0, 3)", name="wholly_sealed"),
    )

    id: Mapped[int] = _key()
    at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp(), index=True
    )
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    study_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    chain_id: Mapped[UUID | None] = mapped_column(ForeignKey("audit_chain.chain_id"))
    sequence: Mapped[int | None] = mapped_column(BigInteger)  # 1, 2, 3, …; None: older than chains
    hmac: Mapped[bytes | None] = mapped_column(LargeBinary(32))
