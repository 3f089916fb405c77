"""Settings: read once, refused at start with the name of what is wrong."""

from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.secret_files import is_secret
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


def test_a_secret_comes_from_a_file_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, field in Settings.model_fields.items():
        if not is_secret(field):
            continue
        path = tmp_path / name
        path.write_text(f"scheme://user:in-{name}@host/x\n")
        settings = settings_of(monkeypatch, **{f"FIRSTREAD_{name.upper()}_FILE": str(path)})
        assert getattr(settings, name).get_secret_value() == f"scheme://user:in-{name}@host/x"
        assert f"in-{name}" not in repr(settings)
    assert {"database_url", "broker_url"} <= {
        name for name, field in Settings.model_fields.items() if is_secret(field)
    }


def test_a_secret_named_twice_is_refused_without_being_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("postgresql+psycopg://u:from-file@db/f")
    with pytest.raises(ConfigurationError, match="keep one") as refused:
        settings_of(
            monkeypatch,
            FIRSTREAD_DATABASE_URL="postgresql+psycopg://u:from-variable@db/f",
            FIRSTREAD_DATABASE_URL_FILE=str(tmp_path / "url"),
        )
    assert "from-" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_secrets_file_that_holds_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"FIRSTREAD_BROKER_URL_FILE: .*url"):
        settings_of(monkeypatch, FIRSTREAD_BROKER_URL_FILE=str(path))


@pytest.mark.parametrize("password", ["se/cret", "secret:x/", "[secret", "secret?"])
def test_an_address_that_cannot_be_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    url = f"postgresql+psycopg://u:{password}@db:5432/f"
    with pytest.raises(ConfigurationError, match="FIRSTREAD_DATABASE_URL") as refused:
        settings_of(monkeypatch, FIRSTREAD_DATABASE_URL=url)
    assert "cret" not in str(refused.value)
