"""Tokenizer folders for tests: some merges of CLIP's vocabulary, with their true numbers."""

import json
from pathlib import Path

# Every merge of CLIP's vocabulary that can happen inside the words x-ray, chest, anteroposterior,
# cardiomegaly, no and finding, with the number of what it makes.
MERGES = """
i+n=512 a+n=514 a+r=516 e+r=517 in+g</w>=519 s+t=522 a+l=526 r+o=532 c+h=540 o+r</w>=541
s+t</w>=545 o+m=547 a+y</w>=551 r+i=553 r+a=559 d+i=570 l+y</w>=597 t+e=600 m+e=613 p+o=628
h+e=651 o+p=676 f+i=701 t+er=704 f+in=735 c+a=772 st+e=795 d+ing</w>=796 c+ar=811 n+o</w>=871
e+s=957 ch+e=983 st+er=1022 in+di=1098 an+t=1103 g+a=1275 d+in=1462 e+st</w>=1509 po+s=1780
g+al=2001 o+s=2211 i+or</w>=2498 er+i=2769 r+ay</w>=3077 i+o=3167 er+o=3211 po+st=3489
om+e=3693 di+o=3779 ar+d=3793 n+g</w>=5215 in+d=5386 n+d=5625 fin+ding</w>=6002 car+di=6211
e+g=8053 che+st</w>=10563 car+d=10793 n+t=10902 me+g=11500 al+y</w>=12910 r+d=13501
car+dio=15003 ri+o=15681 me+ga=15979 ch+es=18346 fin+d=18638 an+te=19311 o+ste=20632
ter+o=20727 po+ster=22881 o+st=23701 ar+di=23932 he+s=30553 o+ster=31781 i+om=33000
me+gal=37650 an+ter=46508
"""
OFFICIAL_SIZE = 49408
SMALL_SIZE = 512 + len(MERGES.split()) + 2


def write_tokenizer(folder: Path, *, official_numbers: bool = False) -> Path:
    """Write vocab.json and merges.txt: numbered in a row, or with CLIP's numbers and fillers."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = [(*entry.split("=")[0].split("+"), entry.split("=")[1]) for entry in MERGES.split()]
    pieces = [*(characters := _byte_characters()), *(f"{one}</w>" for one in characters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    for first, second, number in merges:
        vocabulary[first + second] = int(number) if official_numbers else len(vocabulary)
    size = OFFICIAL_SIZE if official_numbers else SMALL_SIZE
    vocabulary |= {"<|startoftext|>": size - 2, "<|endoftext|>": size - 1}
    for number in set(range(size)) - set(vocabulary.values()):
        vocabulary[f"<not at hand {number}>"] = number
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second, _ in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _byte_characters() -> list[str]:
    """Give the printable character that stands for each byte, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in (*printable, *range(256, 256 + others))]
