"""The words that rows are marked with: each state, outcome and priority, spelled once."""

from enum import IntEnum, StrEnum


class AnalysisState(StrEnum):
    """Where a unit of model work stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    NOT_ELIGIBLE = "not_eligible"


class Outcome(StrEnum):
    """What an analysis, or a study by its analyses, came to."""

    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    ABSTAINED = "abstained"
    PENDING = "pending"  # the rest only of studies
    INCOMPLETE = "incomplete"
    NOT_ELIGIBLE = "not_eligible"


class OrderPriority(StrEnum):
    """How urgent the order is, whatever the model thinks."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


class PrioritySource(StrEnum):
    """Who said how urgent the order is, in the order in which they are believed."""

    PERSON = "person"
    REQUESTED_PROCEDURE = "requested_procedure_priority"  # (0040,1003)
    STUDY_PRIORITY = "study_priority_id"  # (0032,000C)
    AE_TITLE = "ae_title"
    DEFAULT = "default"


class ModelState(StrEnum):
    """Where a model version stands; one version per pipeline is live."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    LIVE = "live"
    RETIRED = "retired"


class ReadingState(StrEnum):
    """What the radiologists have done with a study."""

    UNREAD = "unread"
    CLAIMED = "claimed"
    READ = "read"


class Purpose(StrEnum):
    """Whether a result counts (live) or is only compared (shadow); fixed at birth."""

    LIVE = "live"
    SHADOW = "shadow"


class Lane(IntEnum):
    """Which queue of work a row waits in; the smaller goes first."""

    CURRENT = 0
    BACKFILL = 1


class SetAsideKind(StrEnum):
    """Why a received object was kept beside the archive and not in it."""

    REVISION = "revision"  # same pixels: another syntax, or corrected text
    PIXELS_DIFFER = "pixels_differ"
    HIERARCHY_DIFFERS = "hierarchy_differs"  # the instance came before in another study or series
    PATIENT_DIFFERS = "patient_differs"  # the study came before with another patient
