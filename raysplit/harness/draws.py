"""The link's chance for a request: each token's draws follow from the tokens up to it and a seed.

So neither a batch, nor the order, nor a cache can change a value; answers to one question see the
same noise on the question; and a text that was generated gets the hidden states with which it was
generated when it is scored.

Shape suffixes: T tokens, D hidden size; P the shape of the packets (see `raysplit.link.channel`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from raysplit.link.channel import Draws, draw
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState

_SEED_BYTES = 8


def request_draws(
    ids_T: Sequence[int],
    state: LinkState,
    config: LinkConfig,
    seed: int,
    hidden_size: int,
    sent_first: int,
) -> Draws:
    """Draw for one request, on the CPU, in the shapes of hidden states (1, T, D).

    Args:
        ids_T: The tokens that are sent.
        state: The link's state.
        config: The kind of link.
        seed: The link's seed.
        hidden_size: D.
        sent_first: Tokens that are known when the first one is sent, at least 1: under
            `packet: sentence` they decide the one gain.
    """
    generator = torch.Generator()
    digest = hashlib.sha256(f"lm-eval:{seed}".encode())
    parts_T: list[Draws] = []
    for token in ids_T:
        digest.update(token.to_bytes(_SEED_BYTES, "big"))
        generator.manual_seed(int.from_bytes(digest.digest()[:_SEED_BYTES], "big"))
        parts_T.append(draw((1, 1, hidden_size), state, config, generator))
    # One packet for the sentence: that of its last token which was known at the start.
    packets = parts_T[sent_first - 1 : sent_first] if config.packet == "sentence" else parts_T
    normals = [part.normal_BTD for part in parts_T if part.normal_BTD is not None]
    return Draws(
        torch.cat([part.gain_P for part in packets], dim=1),
        torch.cat([part.erasure_P for part in packets], dim=1),
        torch.cat(normals, dim=1) if normals else None,
    )
