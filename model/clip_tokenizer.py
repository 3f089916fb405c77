"""CLIP's tokenizer: text becomes numbers by byte-pair encoding.

Source: Radford et al. 2021, arXiv:2103.00020; the files are those of Hugging Face's CLIPTokenizer.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import RobertaProcessing

from common.errors import CheckpointError

VOCABULARY, MERGES = "vocab.json", "merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77
# Contractions, words, single digits, and runs of anything else that is no space.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens(NamedTuple):
    """Prompts as numbers.

    Shapes:
        input_ids: int64 (B, 77), start, pieces, end, then end again as padding
        attention_mask: int64 (B, 77), 0 where a token is padding
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class ClipTokenizer:
    """A vocabulary and its merges, read from a folder.

    Raises:
        CheckpointError: a file is missing or cannot be understood.
    """

    def __init__(self, folder: Path) -> None:
        vocabulary = read_vocabulary(folder)
        merges = read_merges(folder)
        try:
            bpe = BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>")
        except Exception as error:  # the library raises no narrower class
            raise CheckpointError(
                f"{folder}: {VOCABULARY} and {MERGES} do not belong together: {error}"
            ) from error
        tokenizer = Tokenizer(bpe)
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.NFC(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Lowercase(),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        start, end = vocabulary[START], vocabulary[END]
        tokenizer.post_processor = RobertaProcessing(
            (END, end), (START, start), trim_offsets=False, add_prefix_space=False
        )
        tokenizer.enable_truncation(CONTEXT)
        tokenizer.enable_padding(length=CONTEXT, pad_id=end, pad_token=END)
        self.size = len(vocabulary)
        self._tokenizer = tokenizer

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Turn prompts into numbers; one longer than 75 pieces is cut, and keeps its end."""
        encoded = self._tokenizer.encode_batch(list(prompts))
        return Tokens(
            np.array([one.ids for one in encoded], dtype=np.int64),
            np.array([one.attention_mask for one in encoded], dtype=np.int64),
        )


def read_vocabulary(folder: Path) -> dict[str, int]:
    """Read vocab.json: each piece's number. The end token must have the greatest.

    Raises:
        CheckpointError: it is missing or cannot be understood.
    """
    path = folder / VOCABULARY
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
        numbers = sorted(vocabulary.values())
        complete = numbers == list(range(len(numbers)))
        if not complete or vocabulary[END] != numbers[-1] or START not in vocabulary:
            raise ValueError("numbers or special tokens are missing")
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no {VOCABULARY}: the tokenizer is missing") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is no vocabulary of CLIP: {error}") from error
    return vocabulary


def read_merges(folder: Path) -> list[tuple[str, str]]:
    """Read merges.txt: pairs of pieces, the most common first.

    Raises:
        CheckpointError: it is missing or cannot be understood.
    """
    path = folder / MERGES
    merges: list[tuple[str, str]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no {MERGES}: the tokenizer is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no list of merges: {error}") from error
    for number, line in enumerate(lines, 1):
        pair = line.split()
        if not pair or (number == 1 and line.startswith("#version")):
            continue
        if len(pair) != 2:
            raise CheckpointError(f"{path} line {number} is no pair of pieces")
        merges.append((pair[0], pair[1]))
    return merges
