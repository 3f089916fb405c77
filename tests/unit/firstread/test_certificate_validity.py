"""The doctor's look at the certificates of TLS."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.settings import Settings
from dicom_listener.certificate_expiry import valid_until
from firstread.certificate_validity import judge_tls
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority."""
    return Authority(tmp_path_factory.mktemp("site"), "authority")


@pytest.fixture
def settings(authority: Authority, tmp_path: Path) -> Iterator[Settings]:
    """Give settings with a certificate of a year, and its key as it should be."""
    identity = authority.sign("server")
    yield Settings.model_validate(
        {
            "home": tmp_path,
            "dicom_tls_certificate": identity.certificate,
            "dicom_tls_key": identity.key,
            "dicom_tls_ca": authority.certificate,
        }
    )
    identity.key.chmod(0o600)


def bad(settings: Settings, now: datetime | None = None) -> list[str]:
    """Give what the doctor finds wrong."""
    return [verdict.says for verdict in judge_tls(settings, now) if not verdict.ok]


def test_the_end_of_validity_is_read_in_both_notations_of_time(authority: Authority) -> None:
    now = datetime.now(UTC)
    for days in (365, 365 * 40):  # from 2050 on a certificate writes years in four digits
        (ends,) = valid_until(authority.sign(f"valid-{days}", days=days).certificate)
        assert abs(ends - now - timedelta(days=days)) < timedelta(minutes=5)


def test_a_good_certificate_and_key_are_well(settings: Settings) -> None:
    assert bad(settings) == []
    assert len(list(judge_tls(settings))) == 3


def test_a_certificate_is_told_of_before_and_after_it_expires(settings: Settings) -> None:
    now = datetime.now(UTC)
    (soon,) = bad(settings, now + timedelta(days=340))
    assert "in 24 days" in soon or "in 25 days" in soon
    (gone,) = bad(settings, now + timedelta(days=366))
    assert "expired on" in gone


def test_a_key_that_others_can_read_is_told_of(settings: Settings) -> None:
    assert settings.dicom_tls_key is not None
    settings.dicom_tls_key.chmod(0o640)
    (says,) = bad(settings)
    assert "chmod 600" in says


def test_files_that_are_missing_foreign_or_no_pem_are_told_of(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for changes, says in (
        ({"dicom_tls_key": tmp_path / "gone.key"}, "No such file"),
        ({"dicom_tls_key": authority.sign("other").key}, "key values mismatch"),
        ({"dicom_tls_certificate": nothing}, "not a certificate"),
        ({"dicom_tls_ca": nothing}, "no certificates in PEM"),
    ):
        (found,) = bad(settings.model_copy(update=changes))
        assert says.lower() in found.lower().replace("_", " ")


def test_half_of_the_settings_are_refused(authority: Authority) -> None:
    with pytest.raises(ValueError, match="go together"):
        Settings.model_validate({"dicom_tls_ca": authority.certificate})
    with pytest.raises(ValueError, match="needs"):
        Settings.model_validate({"dicom_tls_port": 2762})
