"""Settings: read once, refused at start with the name of what is wrong."""

from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.settings import Peer, Settings, get_settings


def settings_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    try:
        return get_settings()
    finally:
        get_settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FIRSTREAD_DICOM_PORT", "none"),
        ("FIRSTREAD_DICOM_PORT", "70000"),
        ("FIRSTREAD_DICOM_PEERS", "CT1"),
        ("FIRSTREAD_DICOM_PEERS", "CT1@somewhere"),
        ("FIRSTREAD_AE_TITLE", "A TITLE THAT IS TOO LONG"),
        ("FIRSTREAD_SITE_TIMEZONE", "Middle/Earth"),
        ("FIRSTREAD_AE_PRIORITIES", "ED_CR=soon"),
        ("FIRSTREAD_UNKNOWN_AGE", "guess"),
    ],
)
def test_an_impossible_value_stops_the_process_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=name):
        settings_of(monkeypatch, **{name: value})


def test_a_flagged_study_may_never_be_due_before_a_stat_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="stat_allowance_min"):
        settings_of(monkeypatch, FIRSTREAD_AI_ALLOWANCE_LO_MIN="29")


def test_peers_and_priorities_are_lists_that_a_person_can_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(
        monkeypatch,
        FIRSTREAD_DICOM_PEERS="CT1@10.0.0.5, *@10.1.0.0/16",
        FIRSTREAD_AE_PRIORITIES="ED_CR=urgent,TRAUMA=STAT",
    )
    assert settings.ae_priorities == {"ED_CR": "urgent", "TRAUMA": "stat"}
    first, second = settings.dicom_peers
    assert first.admits("CT1", "10.0.0.5")
    assert not first.admits("CT2", "10.0.0.5")
    assert not first.admits("CT1", "10.0.0.6")
    assert second.admits("ANY", "10.1.200.7")


def test_an_empty_variable_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, FIRSTREAD_DATABASE_URL="").database_url is None


def test_a_missing_server_says_how_to_start_one(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    with pytest.raises(ConfigurationError, match="firstread up"):
        settings.database_address()


def test_a_password_is_never_printed() -> None:
    settings = Settings.model_validate({"database_url": "postgresql+psycopg://u:secret@db/f"})
    assert "secret" not in repr(settings)
    assert "secret" in settings.database_address()


def test_a_peer_of_the_other_address_family_is_not_admitted() -> None:
    assert not Peer.parse("*@10.0.0.0/8").admits("ANY", "::1")
