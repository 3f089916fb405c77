"""What ``torchrun`` tells each of the processes that it starts; alone, one process is rank 0."""

import os
from typing import NamedTuple

from common.errors import ConfigurationError


class Ranks(NamedTuple):
    """This process among all, and its place on its own machine."""

    rank: int
    processes: int
    local_rank: int


def read_ranks() -> Ranks:
    """Read RANK, WORLD_SIZE and LOCAL_RANK.

    Raises:
        ConfigurationError: they are no numbers or do not fit together.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [os.environ.get(name, default) for name, default in zip(names, "010", strict=True)]
    if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
        given = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
        raise ConfigurationError(f"{given}: unset them, or let torchrun set them")
    return Ranks(*map(int, texts))


def device_of_rank(device: str, ranks: Ranks) -> str:
    """Give each process of a machine its own GPU, where "auto" or "cuda" leaves that open."""
    import torch

    many = ranks.processes > 1 and torch.cuda.is_available()
    return f"cuda:{ranks.local_rank}" if many and device in ("auto", "cuda") else device
