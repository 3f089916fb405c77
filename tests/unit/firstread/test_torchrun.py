"""What torchrun says of this process; alone, there is one."""

import pytest

from common.errors import ConfigurationError
from firstread.torchrun import device_of_rank, read_ranks

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def test_a_process_alone_is_rank_0_of_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert read_ranks() == (0, 1, 0)
    assert device_of_rank("cpu", read_ranks()) == "cpu"


def test_ranks_are_read_from_what_torchrun_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in zip(NAMES, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, text)
    assert read_ranks() == (5, 8, 1)


@pytest.mark.parametrize("texts", [("8", "8", "0"), ("one", "2", "0")])
def test_ranks_that_cannot_be_are_refused(
    monkeypatch: pytest.MonkeyPatch, texts: tuple[str, str, str]
) -> None:
    for name, text in zip(NAMES, texts, strict=True):
        monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError, match="torchrun"):
        read_ranks()
