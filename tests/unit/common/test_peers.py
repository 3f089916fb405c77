"""The site's file of peers: what it may say, and what is said of what it may not."""

from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.peers import Peer, read_peers
from common.ranking import order_priority
from common.settings import Settings
from common.states import OrderPriority, PrioritySource

WHOLE = """
[[peer]]
ae_title = "CR1"
addresses = ["192.0.2.10", "2001:db8::/32"]
storage_commitment = true
call_back = "CR1@[2001:db8::7]:11104"
order_priority = "urgent"
urgent = true
certificate_name = "cr1.site"
max_associations = 4
objects_per_s = 20
bytes_per_s = 10_000_000

[[peer]]
ae_title = "*"
addresses = ["192.0.2.0/24"]
store = false
"""


def write(folder: Path, text: str) -> Path:
    """Write a file of peers."""
    path = folder / "peers.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_each_peer_may(tmp_path: Path) -> None:
    first, second = read_peers(write(tmp_path, WHOLE))
    assert first.admits("CR1", "192.0.2.10")
    assert first.admits("CR1", "2001:db8::1")
    assert not first.admits("CR1", "192.0.2.11")
    assert first.store
    assert first.urgent
    assert first.call_back is not None
    assert (first.call_back.host, first.call_back.port) == ("2001:db8::7", 11104)
    assert first.needs_certificate
    assert second.admits("ANY", "192.0.2.200")
    assert not second.store
    assert not second.storage_commitment


def test_the_file_comes_before_the_short_list(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"dicom_peers_file": write(tmp_path, WHOLE), "dicom_peers": "CR1@192.0.2.10"}
    )
    assert [peer.ae_title for peer in settings.peers] == ["CR1", "*", "CR1"]


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (('"192.0.2.10"', '"192.0.2.300"'), 4, "addresses"),
        (("max_associations = 4", "max_asociations = 4"), 10, "max_asociations: Extra inputs"),
        (("max_associations = 4", "max_associations = 0"), 10, "max_associations"),
        (("objects_per_s = 20", "objects_per_s = 'many'"), 11, "objects_per_s"),
        (('order_priority = "urgent"', 'order_priority = "soon"'), 7, "order_priority"),
        (("store = false", 'store = "sometimes"'), 17, "store"),
        (("11104", ""), 6, "call_back: Value error"),
        (('call_back = "CR1@[2001:db8::7]:11104"', ""), 2, "storage_commitment needs call_back"),
        (('ae_title = "*"\n', ""), 14, "ae_title: Field required"),
        (('[[peer]]\nae_title = "CR1"', '[[pear]]\nae_title = "CR1"'), 2, "pear"),
        (("store = false", "store = "), 17, "Invalid value"),
    ],
)
def test_an_error_is_told_with_its_line_and_field(
    tmp_path: Path, change: tuple[str, str], line: int, says: str
) -> None:
    text = WHOLE.replace(*change)
    assert text != WHOLE
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as told:
        read_peers(path)
    assert "FIRSTREAD_DICOM_PEERS_FILE" in str(told.value)
    assert f"line {line}" in str(told.value)
    assert says in str(told.value)
    with pytest.raises(ValueError, match=f"line {line}"):  # each service stops at its start
        Settings.model_validate({"dicom_peers_file": path})


def test_a_file_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_peers(tmp_path / "gone.toml")


def test_a_peers_priority_ranks_its_orders_unless_the_setting_says_otherwise(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, WHOLE)

    def of(ae_title: str, rules: str) -> tuple[OrderPriority, PrioritySource]:
        settings = Settings.model_validate({"dicom_peers_file": path, "ae_priorities": rules})
        return order_priority(
            by_person=None,
            requested_procedure_priority="",
            study_priority_id="",
            source_ae_title=ae_title,
            settings=settings,
        )

    assert of("CR1", "") == (OrderPriority.URGENT, PrioritySource.AE_TITLE)
    assert of("CR1", "CR1=stat") == (OrderPriority.STAT, PrioritySource.AE_TITLE)
    assert of("CR2", "") == (OrderPriority.ROUTINE, PrioritySource.DEFAULT)


def test_a_call_by_tls_needs_our_certificate(tmp_path: Path) -> None:
    text = WHOLE.replace("order_priority", "call_back_tls = true\norder_priority")
    with pytest.raises(ValueError, match="call_back_tls needs"):
        Settings.model_validate({"dicom_peers_file": write(tmp_path, text)})


def test_any_title_cannot_ask_for_commitment() -> None:
    with pytest.raises(ValueError, match="an ae_title of its own"):
        Peer.model_validate(
            {
                "ae_title": "*",
                "addresses": ["192.0.2.1"],
                "storage_commitment": True,
                "call_back": "A@host:104",
            }
        )
