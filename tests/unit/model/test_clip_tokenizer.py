"""CLIP's tokenizer: the numbers that the text encoder was trained on."""

from pathlib import Path

import pytest

from common.errors import CheckpointError
from model.clip_tokenizer import ClipTokenizer
from tests.clip_vocabulary import SMALL_SIZE, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    return ClipTokenizer(write_tokenizer(tmp_path_factory.mktemp("small")))


def kept(tokenizer: ClipTokenizer, prompt: str) -> list[int]:
    """Give a prompt's numbers without padding."""
    ids, mask = tokenizer.encode([prompt])
    return ids[0][mask[0] == 1].tolist()


@pytest.mark.parametrize(
    ("prompt", "numbers"),
    [
        (
            "x-ray chest anteroposterior Cardiomegaly",
            [343, 268, 3077, 10563, 514, 20727, 22881, 2498, 6211, 3693, 2001, 344],
        ),
        (
            "x-ray chest anteroposterior No Finding",
            [343, 268, 3077, 10563, 514, 20727, 22881, 2498, 871, 6002],
        ),
    ],
)
def test_microsofts_prompts_get_the_official_numbers(
    tmp_path: Path, prompt: str, numbers: list[int]
) -> None:
    tokenizer = ClipTokenizer(write_tokenizer(tmp_path, official_numbers=True))

    assert kept(tokenizer, prompt) == [49406, *numbers, 49407]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Chest X-Ray", "chest x-ray"),
        ("chest   x-ray\n", "chest x-ray"),
        ("caf\u00e9", "cafe\u0301"),
        ("chest'd", "chest 'd"),
        ("12", "1 2"),
    ],
)
def test_case_spaces_and_composition_do_not_matter(
    tokenizer: ClipTokenizer, one: str, other: str
) -> None:
    assert kept(tokenizer, one) == kept(tokenizer, other)


def test_a_prompt_is_padded_with_its_end_token_to_the_context(tokenizer: ClipTokenizer) -> None:
    ids, mask = tokenizer.encode(["chest", "no finding"])

    assert ids.shape == mask.shape == (2, 77)
    assert ids[0, 2:].tolist() == [SMALL_SIZE - 1] * 75
    assert mask.sum(axis=1).tolist() == [3, 4]


def test_a_prompt_that_is_too_long_is_cut_and_keeps_its_end(tokenizer: ClipTokenizer) -> None:
    ids, mask = tokenizer.encode(["no finding " * 100])

    assert mask.all()
    assert ids[0, 0] == SMALL_SIZE - 2
    assert ids[0, -1] == SMALL_SIZE - 1


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("vocab.json", None, r"has no vocab\.json"),
        ("merges.txt", None, r"has no merges\.txt"),
        ("vocab.json", "{]", "is no vocabulary"),
        ("vocab.json", '{"a": 0}', "is no vocabulary"),
        ("merges.txt", "#version: 0.2\na b c\n", "line 2 is no pair"),
        ("merges.txt", "#version: 0.2\nqq zz\n", "do not belong together"),
    ],
)
def test_a_broken_tokenizer_is_named_in_one_line(
    tmp_path: Path, file: str, content: str | None, complaint: str
) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)

    with pytest.raises(CheckpointError, match=complaint) as raised:
        ClipTokenizer(tmp_path)

    assert "\n" not in str(raised.value)
