"""What the families do with tokenizers and text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError

UNLIMITED = 10**9
"""A tokenizer without a longest length states 1e30."""


def tokenizer_name(encoder: str) -> str:
    """The tokenizer that belongs to a text encoder: ``text_encoder_2`` has ``tokenizer_2``."""
    return encoder.replace("text_encoder", "tokenizer")


def token_ids(tokenizer: Any, prompts: Sequence[str], length: int, device: torch.device) -> Tensor:
    """Token ids of prompts, truncated or padded to ``length``; int64, (B, length)."""
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )["input_ids"]
    return ids.to(device)


def check_tokens(tokenizer: Any, encoder: Any, folder: Path) -> None:
    """Check that a text encoder has an embedding for every token and, where it states them, a position for the longest text.

    Args:
        tokenizer: of `transformers`, or a placeholder without a vocabulary.
        encoder: the network that takes its tokens.
        folder: the tokenizer's, for messages.

    Raises:
        UserError: it has not.
    """
    positions = getattr(encoder.config, "max_position_embeddings", None)
    length = tokenizer.model_max_length
    if positions is not None and not 2 < (length or 0) <= positions:  # room between start and end
        stated = f"{length:,}" if length and length < UNLIMITED else "absent"
        raise UserError(
            f"{folder}: model_max_length is {stated}, and the text encoder has {positions} positions; state it in tokenizer_config.json"
        )
    embeddings = encoder.get_input_embeddings().num_embeddings
    known = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    if without := [token for token, number in known.items() if number >= embeddings]:
        raise UserError(
            f"{folder} has {len(without)} tokens without an embedding, such as {without[0]!r}: the text encoder has {embeddings:,}; "
            "add them to it with resize_token_embeddings, or remove them"
        )
