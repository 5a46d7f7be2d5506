"""Tokenizer files of the tiny world in the two published layouts: CLIP's byte-level BPE and BERT's WordPiece.

Both are made from the words of the world's own captions, so every such word is one token; any other text falls apart
into single bytes (CLIP) or letters (BERT).
"""

from __future__ import annotations

import itertools
import string
from collections import Counter
from pathlib import Path

from tokenizers import pre_tokenizers

from bench.core.files import write_json
from bench.tiny.world import COLOURS, OBJECTS, PLACES, SIZES, TEXTURES

CONTEXT_LENGTH = 32
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def caption_words() -> list[str]:
    """Every word that a caption of the tiny world can contain, sorted."""
    phrases = ["a an on background", *OBJECTS, *COLOURS, *SIZES, *PLACES, *TEXTURES]
    return sorted({word for phrase in phrases for word in phrase.split()})


def write_clip_tokenizer(folder: Path) -> None:
    """Write ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``, which `transformers.CLIPTokenizer` loads.

    Ids follow CLIP's order: the byte alphabet, the alphabet at the end of a word, the merges, begin and end of text;
    fewer than 1024 in all.  The end-of-text token has the highest id and also pads, as in CLIP.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = byte_pair_merges(caption_words())
    tokens = [*alphabet, *(letter + END_OF_WORD for letter in alphabet), *("".join(pair) for pair in merges), BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT_LENGTH, **special}
    write_json(folder / "tokenizer_config.json", config)


def byte_pair_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges, in order of rank, that turn every one of ``words`` into a single token.

    The usual byte-pair training: join the most frequent neighbouring pair until no word has two parts; of equally
    frequent pairs the first in alphabetical order.
    """
    parts = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for word in parts for pair in itertools.pairwise(word))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        parts = [_joined(word, best) for word in parts]


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    """``word`` with every occurrence of ``pair`` merged into one part, from left to right."""
    joined: list[str] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def write_bert_tokenizer(folder: Path) -> None:
    """Write ``vocab.txt`` and ``tokenizer_config.json``, which `transformers.BertTokenizer` loads.

    A word with a letter outside printable ASCII becomes ``[UNK]``.
    """
    letters = sorted(set(string.digits + string.ascii_lowercase + string.punctuation))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [word for word in caption_words() if len(word) > 1]
    tokens = [*special, *letters, *("##" + letter for letter in letters), *words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": CONTEXT_LENGTH}
    )
