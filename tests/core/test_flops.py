from __future__ import annotations

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from bench.core.flops import FlopCounter


def test_attention_on_a_cpu_is_counted_forwards_and_backwards() -> None:
    # 2 x 3 heads, 8 queries, 5 keys, width 4: both products are 2 * 6 * 8 * 5 * 4 operations.
    query = torch.ones(2, 3, 8, 4, requires_grad=True)
    key = torch.ones(2, 3, 5, 4)
    with FlopCounter() as forward:
        out = scaled_dot_product_attention(query, key, key)
    assert forward.total == 2 * 1920
    with FlopCounter() as backward:
        out.sum().backward()
    # The scores once more, and the gradients of values, of probabilities, of queries and of keys.
    assert backward.total == 5 * 1920


def test_a_product_of_matrices_counts_two_operations_a_multiplication() -> None:
    with FlopCounter() as counter:
        linear(torch.ones(7, 5), torch.ones(3, 5))
    assert counter.total == 2 * 7 * 5 * 3
