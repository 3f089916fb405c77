"""What a site may change, read once from the environment; no other module reads it."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from common.errors import ConfigurationError
from common.peers import ANY, Peer, read_peers
from common.secret_files import SecretFiles

OrderPriority = Literal["stat", "urgent", "routine"]


def _login(service: str) -> Any:  # noqa: ANN401 - as pydantic types its fields
    return Field(
        default=None,
        description=f"Set: `migrate` makes the database login firstread_{service}_service with it",
    )


class Settings(BaseSettings):
    """What a site may change. A missing or impossible value stops the process at start."""

    model_config = SettingsConfigDict(env_prefix="FIRSTREAD_", frozen=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the environment, secrets from files that it names, too."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    # Where things are
    home: Path = Field(
        default=user_data_path("firstread"), description="Folder of everything that is kept"
    )
    archive: Path | None = Field(default=None, description="Received objects; default HOME/archive")
    database_url: SecretStr | None = Field(
        default=None, description="postgresql+psycopg://…; unset: the embedded server of HOME"
    )
    broker_url: SecretStr | None = Field(
        default=None, description="redis://…; unset: the embedded server of HOME"
    )
    listener_password: SecretStr | None = _login("listener")
    worker_password: SecretStr | None = _login("worker")
    beat_password: SecretStr | None = _login("beat")
    dashboard_password: SecretStr | None = _login("dashboard")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is printed"
    )

    # Watching
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65000,
        description="First port of /metrics, /healthz, /readyz; listener +0, worker +1, beat +2, "
        "dashboard +3; unset: none",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address that they bind to")
    metrics_beyond_loopback: bool = Field(
        default=False, description="Let metrics_host be more than loopback: there is no sign-in"
    )

    # Listener
    ae_title: str = Field(default="FIRSTREAD", min_length=1, max_length=16, description="Our AE")
    dicom_host: str = Field(default="127.0.0.1", description="Address that the listener binds to")
    dicom_port: int = Field(default=11112, ge=1, le=65535, description="Port of the listener")
    dicom_peers: Annotated[tuple[Peer, ...], NoDecode] = Field(
        default=(), description="Senders beyond loopback: AE@address[/bits],…; * is any AE"
    )
    dicom_peers_file: Path | None = Field(
        default=None, description="Peers with rules of their own, TOML; see docs/operations.md"
    )
    dicom_tls_certificate: Path | None = Field(
        default=None, description="Our certificate and its chain, PEM; set: senders must use TLS"
    )
    dicom_tls_key: Path | None = Field(default=None, description="Its private key, PEM")
    dicom_tls_ca: Path | None = Field(
        default=None, description="Authorities that senders' certificates must come from, PEM"
    )
    dicom_tls_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of TLS, beside the plain one; unset: the listener's port speaks TLS",
    )
    dicom_max_pdu_bytes: int = Field(default=131072, ge=4096, description="Largest PDU received")
    dicom_max_associations: int = Field(default=25, ge=1, description="Associations at a time")
    dicom_processes: int = Field(
        default=1, ge=1, le=16, description="Listener processes on the port, each with all limits"
    )
    dicom_acse_timeout_s: float = Field(default=30, gt=0, description="Wait for negotiation")
    dicom_dimse_timeout_s: float = Field(default=30, gt=0, description="Wait within a message")
    dicom_network_timeout_s: float = Field(default=60, gt=0, description="Idle association's life")
    commitment_retry_s: float = Field(
        default=30, gt=0, description="First wait before an undelivered commitment is told again"
    )
    commitment_give_up_h: float = Field(
        default=72, gt=0, description="An undelivered commitment is given up after"
    )
    archive_reserve_bytes: int = Field(
        default=1 << 30, ge=0, description="Free space under which objects are refused (0xA700)"
    )
    refuse_when_queue_older_s: float | None = Field(
        default=None,
        gt=0,
        description="While work waits longer, peers not marked urgent get 0xA700; unset: never",
    )
    default_issuer: str = Field(
        default="", max_length=64, description="Issuer of patient IDs that name none"
    )

    # Audit and retention
    audit_key_file: Path | None = Field(
        default=None,
        description="Key of the audit chains; default HOME/run/audit.key, made at need",
    )
    audit_syslog: str = Field(
        default="",
        pattern=r"^$|^(tls|tcp|udp)://\S+:\d+$",
        description="Where audit messages go: tls://host:6514, tcp://host:port or udp://host:514",
    )
    audit_syslog_ca: Path | None = Field(
        default=None,
        description="Who vouches for the syslog server (PEM); unset: the system's authorities",
    )
    audit_syslog_certificate: Path | None = Field(
        default=None, description="Our certificate and its key, for a syslog server that asks (PEM)"
    )
    audit_patient_id: bool = Field(
        default=False, description="Name the patient's ID in audit messages, as PS3.15 asks"
    )
    retain_days: float = Field(
        default=0, ge=0, description="Objects read longer ago than this may be deleted; 0: never"
    )
    retain_free_bytes: int = Field(
        default=0, ge=0, description="Read objects go, oldest first, until this is free; 0: never"
    )
    retain_by_itself: bool = Field(
        default=False,
        description="Upkeep deletes too; off: only `firstread retain --delete` does",
    )

    # Dashboard
    dashboard_host: str = Field(default="127.0.0.1", description="Loopback until sign-in exists")
    dashboard_port: int = Field(default=8501, ge=1, le=65535, description="Port of the dashboard")
    pacs_viewer_url: str = Field(
        default="", description="Link to a viewer; {study_instance_uid} and {accession_number}"
    )
    site_timezone: str = Field(default="UTC", description="Time zone of dates that name none")

    # Ranking
    ae_priorities: Annotated[dict[str, OrderPriority], NoDecode] = Field(
        default={}, description="Order priority by calling AE: ED_CR=urgent,TRAUMA=stat"
    )
    stat_allowance_min: float = Field(default=30, gt=0, description="STAT orders are due after")
    urgent_allowance_min: float = Field(default=120, gt=0, description="Urgent orders, due after")
    routine_allowance_min: float = Field(default=1440, gt=0, description="Routine, due after")
    ai_allowance_lo_min: float = Field(
        default=30, gt=0, description="A flagged study of probability 1 is due after"
    )
    ai_allowance_hi_min: float = Field(
        default=480, gt=0, description="A study flagged at the operating point is due after"
    )
    hard_cap_h: float = Field(default=72, gt=0, description="No study waits behind longer")
    claim_min: float = Field(default=30, gt=0, description="A reader's claim lasts this long")
    prior_after_days: float = Field(
        default=7, gt=0, description="Acquired longer ago than this: a prior, off the list"
    )
    settle_after_s: float = Field(default=120, gt=0, description="Quiet time that ends a study")

    # Worker
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    execution: Literal["eager", "compiled"] = Field(
        default="eager", description="compiled: torch.compile at fixed batch sizes; slow to start"
    )
    max_batch: int = Field(default=16, ge=1, description="Images per forward pass, at most")
    batch_wait_ms: float = Field(default=10, gt=0, description="Longest wait for a fuller batch")
    worker_threads: int = Field(default=16, ge=1, description="Analyses in flight per worker")
    decode_processes: int = Field(
        default=min(8, os.cpu_count() or 1), ge=1, description="Decoding processes per worker"
    )
    decode_deadline_s: float = Field(default=30, gt=0, description="Longest decoding of an image")
    decode_memory_bytes: int = Field(
        default=3 << 30, ge=1 << 29, description="Address space of a decoding process"
    )
    max_pixels: int = Field(
        default=64_000_000, ge=1, description="Larger images are refused before decoding"
    )
    lease_s: float = Field(default=60, gt=0, description="A claim unrenewed for this long is lost")
    max_failures: int = Field(default=3, ge=1, description="An image's own errors before failed")
    max_losses: int = Field(default=2, ge=0, description="Lost leases before it must run alone")
    upkeep_interval_s: float = Field(default=5, gt=0, description="Pace of periodic upkeep")
    unknown_age: Literal["refuse", "accept", "by_pixels"] = Field(
        default="refuse",
        description="Images that state no age; by_pixels: refuse what looks like a child's",
    )
    accept_secondary_capture: bool = Field(
        default=False, description="Analyse radiographs sent as Secondary Capture"
    )

    @field_validator("database_url", "broker_url", mode="after")
    @classmethod
    def _parse_address(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse here what others would refuse with the address, and its password, in the text."""
        try:
            if value is not None and urlsplit(value.get_secret_value()).port == 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                "not an address; write @ : / ? # of a password as %40 %3A %2F %3F %23"
            ) from None
        return value

    @field_validator("dicom_peers", mode="before")
    @classmethod
    def _parse_peers(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Peer.parse(part) for part in value.split(",") if part.strip())
        return value

    @field_validator("ae_priorities", mode="before")
    @classmethod
    def _parse_priorities(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = (part.partition("=") for part in value.split(",") if part.strip())
            return {ae.strip(): priority.strip().lower() for ae, _, priority in pairs}
        return value

    @field_validator("site_timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone, e.g. Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _ordered_allowances(self) -> Self:
        if self.ai_allowance_lo_min < self.stat_allowance_min:
            raise ValueError("ai_allowance_lo_min must not be below stat_allowance_min")
        if self.ai_allowance_hi_min < self.ai_allowance_lo_min:
            raise ValueError("ai_allowance_hi_min must not be below ai_allowance_lo_min")
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        files = (self.dicom_tls_certificate, self.dicom_tls_key, self.dicom_tls_ca)
        if any(files) and not all(files):
            raise ValueError(
                "FIRSTREAD_DICOM_TLS_CERTIFICATE, _KEY and _CA go together: set all or none"
            )
        if self.dicom_tls_port is not None and not any(files):
            raise ValueError("FIRSTREAD_DICOM_TLS_PORT needs FIRSTREAD_DICOM_TLS_CERTIFICATE")
        if self.dicom_tls_port == self.dicom_port:
            raise ValueError("FIRSTREAD_DICOM_TLS_PORT is FIRSTREAD_DICOM_PORT: leave it unset")
        return self

    @model_validator(mode="after")
    def _readable_peers(self) -> Self:
        try:
            peers = self.peers
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        if self.dicom_tls_certificate is None and any(peer.call_back_tls for peer in peers):
            raise ValueError("call_back_tls needs FIRSTREAD_DICOM_TLS_CERTIFICATE")
        return self

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Every peer, the file's first; the first that fits a caller counts."""
        named = () if self.dicom_peers_file is None else read_peers(self.dicom_peers_file)
        return named + self.dicom_peers

    def order_priority_of(self, ae_title: str) -> str | None:
        """Give the priority of a sender's orders by the site's rules, if it has one."""
        named = self.ae_priorities.get(ae_title)
        if named is not None:
            return named
        rules = (peer.order_priority for peer in self.peers if peer.ae_title in (ANY, ae_title))
        return next((rule for rule in rules if rule is not None), None)

    def login_passwords(self) -> dict[str, str]:
        """Give the passwords of the services' database logins that the site wants made."""
        wanted = {
            "listener": self.listener_password,
            "worker": self.worker_password,
            "beat": self.beat_password,
            "dashboard": self.dashboard_password,
        }
        return {name: each.get_secret_value() for name, each in wanted.items() if each is not None}

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.site_timezone)

    @property
    def archive_path(self) -> Path:
        """Folder of the archive."""
        return self.archive or self.home / "archive"

    @property
    def endpoints_file(self) -> Path:
        """Where the one-machine stack writes the addresses of its embedded servers (0600)."""
        return self.home / "run" / "endpoints.json"

    def database_address(self) -> str:
        """Give the SQLAlchemy URL: the configured one, else the embedded server's."""
        return self._address("database_url", self.database_url)

    def broker_address(self) -> str:
        """Give the Redis URL: the configured one, else the embedded server's."""
        return self._address("broker_url", self.broker_url)

    def _address(self, name: str, configured: SecretStr | None) -> str:
        if configured is not None:
            return configured.get_secret_value()
        try:
            return json.loads(self.endpoints_file.read_text())[name]
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"No server known: set FIRSTREAD_{name.upper()}, or start the embedded one with "
                f"`firstread up` (FIRSTREAD_HOME is {self.home})"
            ) from error


@lru_cache
def get_settings() -> Settings:
    """Read the settings once.

    Raises:
        ConfigurationError: a value is impossible; the message names the variable.
    """
    try:
        return Settings.model_validate({})
    except ValidationError as error:
        lines = (
            f"FIRSTREAD_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            if item["loc"]
            else item["msg"]
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError("; ".join(lines)) from None
