"""Entropy coding of a quantiser's codes: the size that a real coder gives, measured.

An asymmetric numeral system (`constriction`, the extra `entropy`) under one static table of
frequencies that both ends know, such as a calibration text's. Every token is a message of its own,
as tokens are lost one by one; its size is the coder's, in whole 32-bit words, with its scales.

Shape suffixes: N tokens, D hidden size, S codes, W words of a message.
"""

# constriction ships no types:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysplit.base.arrays import FloatArray
from raysplit.base.errors import UserError
from raysplit.link.codec.codec import SCALE_BITS, Codec
from raysplit.link.codec.quantise import code_range, quantise

IntCodes = NDArray[np.int32]
Words = NDArray[np.uint32]


class EntropyCoder:
    """Turns whole codes into words and back, under one table of frequencies."""

    def __init__(self, codec: Codec, frequencies_S: FloatArray) -> None:
        """Take a table, such as `code_frequencies` gives.

        Raises:
            UserError: The package constriction is not installed, or the codec has no whole codes.
        """
        self._codec = codec
        self._lowest, _ = _whole_codes(codec)
        self._stream = _constriction().stream
        table_S = np.asarray(frequencies_S, dtype=np.float32)
        self._model = self._stream.model.Categorical(table_S, perfect=False)

    def encode(self, codes_D: IntCodes) -> Words:
        """Return the words of one token's codes."""
        coder = self._stream.stack.AnsCoder()
        coder.encode_reverse(codes_D - self._lowest, self._model)
        return coder.get_compressed()

    def decode(self, words_W: Words, count: int) -> IntCodes:
        """Return the codes of a message, so many as a token has elements."""
        coder = self._stream.stack.AnsCoder(words_W)
        return coder.decode(self._model, count) + self._lowest

    def bits_per_token(self, hidden_ND: Tensor) -> float:
        """Encode every token and return the mean of their sizes, scales included."""
        codes_ND = integer_codes(hidden_ND, self._codec)
        words = sum(len(self.encode(codes_D)) for codes_D in codes_ND)
        return 32 * words / len(codes_ND) + SCALE_BITS * self._codec.scales(codes_ND.shape[1])


def code_frequencies(hidden_ND: Tensor, codec: Codec) -> FloatArray:
    """Count the codes of a sample, from the lowest to the highest; none counts as never."""
    lowest, largest = _whole_codes(codec)
    codes_ND = integer_codes(hidden_ND, codec)
    seen_S = np.bincount(codes_ND.ravel() - lowest, minlength=largest - lowest + 1)
    return seen_S.astype(np.float64) + 1.0


def integer_codes(hidden_ND: Tensor, codec: Codec) -> IntCodes:
    """Return the codes that hidden states have on the air, (N, D)."""
    codes_NGE = quantise(hidden_ND[None], codec).codes_BTGE[0]
    return codes_NGE.flatten(1).to(torch.int32).cpu().numpy()


def _whole_codes(codec: Codec) -> tuple[int, int]:
    if not codec.kind.startswith("int"):
        raise UserError(f"codec {codec} has no whole codes to entropy-code: take an int8 to int3")
    return code_range(codec)


def _constriction() -> Any:  # noqa: ANN401 - it ships no types
    try:
        import constriction
    except ImportError as error:
        raise UserError(
            "entropy coding needs constriction: pip install 'raysplit[entropy]'"
        ) from error
    return constriction
