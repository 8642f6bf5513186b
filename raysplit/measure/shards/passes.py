"""How many tokens a GPU should be given at a time: a short trial at the start."""

from __future__ import annotations

import time

import torch

from raysplit.model.chain import SpanChain

_POSITIONS = 32  # a sentence's length; only the product with the number of rows matters
_SMALLEST_TOKENS = 512
_LARGEST_TOKENS = 2**17
_GOOD_ENOUGH = 0.95  # of the best rate; the smallest such size leaves memory to others


@torch.inference_mode()
def tuned_tokens_per_pass(chain: SpanChain, first_layer: int) -> int:
    """Time passes of doubling size; return the smallest that is nearly as fast per token as any.

    Stops at the first size that does not fit into the memory.
    """
    rates: dict[int, float] = {}
    tokens = _SMALLEST_TOKENS
    while tokens <= _LARGEST_TOKENS:
        try:
            rates[tokens] = tokens / _seconds(chain, first_layer, tokens)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        tokens *= 2
    if not rates:
        return 0  # not even the smallest fits: batches run on their own, and are halved if need be
    best = max(rates.values())
    return next(tokens for tokens, rate in rates.items() if rate >= _GOOD_ENOUGH * best)


def _seconds(chain: SpanChain, first_layer: int, tokens: int) -> float:
    shape = (tokens // _POSITIONS, _POSITIONS, chain.hidden_size)
    hidden_BTD = torch.randn(shape, device=chain.device, dtype=chain.dtype)
    best = float("inf")
    for _ in range(3):  # the first pass also loads kernels
        _synchronise(chain.device)
        start = time.perf_counter()
        chain.run_from(hidden_BTD, None, first_layer)
        _synchronise(chain.device)
        best = min(best, time.perf_counter() - start)
    return best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
