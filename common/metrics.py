"""What the services count and measure, for Prometheus.

Names and labels are all here. A label's values come from code, never from a peer: they stay few,
and no patient, study or sender can be read from them. Figures are of one process since it
started; ``firstread_ledger_*`` are of the database, and beat alone gives them.
"""

from importlib.metadata import version
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from common.errors import FirstreadError

disable_created_metrics()  # a second series for each, which nobody asks for

# The library's own registry would also hold what Streamlit or a later library puts there.
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
    3600,
)
_DEVICE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)

BUILD = Gauge(
    "firstread_build_info",
    "1, with what runs",
    ["service", "version", "python"],
    registry=REGISTRY,
)

# Listener
RECEIVED = Counter(
    "firstread_objects_received",
    "Objects answered Success",
    ["outcome"],  # stored, repeated, revised; restored: retention had deleted it
    registry=REGISTRY,
)
RECEIVED_BYTES = Counter(
    "firstread_received_bytes", "Bytes of data sets answered Success", registry=REGISTRY
)
REFUSED = Counter(
    "firstread_objects_refused",
    "Objects answered with a failure, by status and by what stood behind it",
    ["status", "reason"],
    registry=REGISTRY,
)
REJECTED = Counter(
    "firstread_associations_rejected",
    "Requests to associate that were rejected, and connections turned away",
    ["reason"],
    registry=REGISTRY,
)
ASSOCIATIONS = Gauge(
    "firstread_associations_open", "Connections and associations that live", registry=REGISTRY
)
RINGS_DROPPED = Counter(
    "firstread_rings_dropped",
    "Rings that did not reach the broker; upkeep rings again",
    ["reason"],  # backlog, unheard
    registry=REGISTRY,
)
FREE_BYTES = Gauge("firstread_archive_free_bytes", "Space left for objects", registry=REGISTRY)
RESERVE_BYTES = Gauge(
    "firstread_archive_reserve_bytes",
    "Free space under which objects are refused",
    registry=REGISTRY,
)
CERTIFICATE_EXPIRY = Gauge(
    "firstread_certificate_expiry_timestamp_seconds",
    "When the listener's TLS certificate ends; 0 without one",
    registry=REGISTRY,
)
PRESSURE = Gauge(
    "firstread_backpressure",
    "1 while peers that are not urgent are refused for the queue's age",
    registry=REGISTRY,
)

COMMITMENTS_ASKED = Counter(
    "firstread_commitments_asked",
    "Requests for storage commitment, by the status that answered them",
    ["status"],  # success: kept, and the outcome will be told; else why not
    registry=REGISTRY,
)
COMMITMENT_OBJECTS = Counter(
    "firstread_commitment_objects",
    "Objects that were asked about, hashed from the disk, by what came of it",
    ["outcome"],  # committed, no_such_instance, processing_failure (unreadable, damaged), …
    registry=REGISTRY,
)
COMMITMENTS_TOLD = Counter(
    "firstread_commitments_told", "Outcomes that a peer was told and took", registry=REGISTRY
)
COMMITMENTS_UNTOLD = Counter(
    "firstread_commitments_untold",
    "Tries to tell an outcome that failed; it is told again",
    ["reason"],  # as the log has it, without what the peer said
    registry=REGISTRY,
)
COMMITMENTS_ABANDONED = Counter(
    "firstread_commitments_abandoned", "Outcomes that no peer took in time", registry=REGISTRY
)

# Listener and worker
HOP_SECONDS = Histogram(
    "firstread_hop_seconds",
    "Time of one object in one step; received_committed is the whole way",
    # received_queued, queued_claimed, claimed_decoded, decoded_scored, scored_committed,
    # received_committed
    ["hop"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

# Worker
BATCH_IMAGES = Histogram(
    "firstread_batch_images", "Images of a forward pass", buckets=_IMAGES, registry=REGISTRY
)
DEVICE_SECONDS = Histogram(
    "firstread_device_seconds",
    "Time of a forward pass on the device",
    buckets=_DEVICE_SECONDS,
    registry=REGISTRY,
)
BATCHES_HALVED = Counter(
    "firstread_batches_halved", "Batches that failed and were halved", registry=REGISTRY
)
ENDED = Counter(
    "firstread_analyses_ended",
    "Ends that this worker wrote; an error may be tried again",
    ["end"],  # done, not_eligible, error
    registry=REGISTRY,
)
FAILURES = Counter(
    "firstread_analysis_failures",
    "An image's own errors, by kind",
    ["reason"],  # the class of the error; defect for one that is none of ours
    registry=REGISTRY,
)
LOSSES = Counter(
    "firstread_analysis_losses",
    "Analyses given up by no fault of the image: others take them up",
    ["reason"],  # lease_expired, lease_lost, device, storage, stopped
    registry=REGISTRY,
)
LATE = Counter(
    "firstread_results_late",
    "Results discarded because the lease was lost and another had the row",
    registry=REGISTRY,
)
MODEL = Gauge(
    "firstread_model_info",
    "1 for each model version that this worker has loaded",
    ["pipeline", "name", "version"],
    registry=REGISTRY,
)

# Beat
UPKEEP_ROUND = Gauge(
    "firstread_upkeep_last_round_timestamp_seconds",
    "When upkeep last did all its steps",
    registry=REGISTRY,
)
UPKEEP_SECONDS = Histogram(
    "firstread_upkeep_round_seconds",
    "Time of a round of upkeep",
    buckets=_SECONDS,
    registry=REGISTRY,
)
UPKEEP_CHANGED = Counter(
    "firstread_upkeep_changed", "What each step of upkeep changed", ["step"], registry=REGISTRY
)
UPKEEP_FAILED = Counter(
    "firstread_upkeep_step_failures", "Steps of upkeep that failed", ["step"], registry=REGISTRY
)
LEDGER_READ = Gauge(
    "firstread_ledger_read_timestamp_seconds",
    "When the figures of the ledger were last read",
    registry=REGISTRY,
)
LEDGER_ITEMS = Gauge(
    "firstread_ledger_items",
    "Rows in a state, counted up to 10000",
    ["state"],  # queued, running, failed, unsettled
    registry=REGISTRY,
)
LEDGER_OLDEST = Gauge(
    "firstread_ledger_oldest_age_seconds",
    "Age of the oldest row in a state; 0 where there is none",
    ["state"],
    registry=REGISTRY,
)
LEDGER_OVERDUE = Gauge(
    "firstread_ledger_overdue_seconds",
    "How long the first study of a band is past its due time; negative: not yet due",
    ["band"],
    registry=REGISTRY,
)
LEDGER_RECEIVED = Gauge(
    "firstread_ledger_last_received_timestamp_seconds",
    "When the last object of any listener was committed",
    registry=REGISTRY,
)
LEDGER_RESULT = Gauge(
    "firstread_ledger_last_result_timestamp_seconds",
    "When the last result of any worker was committed",
    registry=REGISTRY,
)

# Dashboard
PAGE_SECONDS = Histogram(
    "firstread_page_seconds",
    "Time to make one page",
    ["page"],  # worklist, study, operations
    buckets=_SECONDS,
    registry=REGISTRY,
)


def state_build(service: str) -> None:
    """Say which service of which version this process is."""
    BUILD.labels(service, version("firstread"), python_version()).set(1)


def reason_of(error: Exception) -> str:
    """Name an error's kind for a label: one of our own classes, else a defect."""
    return type(error).__name__ if isinstance(error, FirstreadError) else "defect"
