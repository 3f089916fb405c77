"""Who reaches the dashboard, and how it is started."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigurationError
from common.settings import Settings
from dashboard.access import NAME_LENGTH, clean_name, require_loopback
from dashboard.serving import command


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_served(host: str) -> None:
    require_loopback(host)
    settings = Settings.model_validate({"dashboard_host": host, "dashboard_port": 8611})
    arguments = command(settings)
    assert f"--server.address={host}" in arguments
    assert "--server.port=8611" in arguments


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.4", "10.0.0.1", "firstread.example", "", None],  # noqa: S104
)
def test_any_other_address_is_refused_and_the_setting_named(host: str | None) -> None:
    with pytest.raises(ConfigurationError, match="FIRSTREAD_DASHBOARD_HOST"):
        require_loopback(host)


@given(st.text())
def test_a_name_is_short_and_visible(name: str) -> None:
    cleaned = clean_name(name)
    assert len(cleaned) <= NAME_LENGTH
    assert cleaned == cleaned.strip()
    assert cleaned.isprintable()
