"""Which tokens are scored, against lists by hand; and their NLL, against a plain computation."""

import math
import random

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from raysplit.corpus.sequences import (
    ProtocolConfig,
    TokenSequence,
    sentence_sequences,
    window_sequences,
)
from raysplit.perplexity.nll import nll_sums

BOS = 99


def test_sentences_by_hand() -> None:
    sentences = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9]]
    assert sentence_sequences(sentences, BOS, context=5) == [
        TokenSequence((BOS, 1, 2, 3), 1),
        TokenSequence((BOS, 4), 1),
        TokenSequence((BOS, 5, 6, 7, 8), 1),  # 9 exceeds the context
    ]


def test_sentences_without_bos_by_hand() -> None:
    sentences = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9]]
    assert sentence_sequences(sentences, None, context=4) == [
        TokenSequence((1, 2, 3), 1),  # nothing predicts 1
        TokenSequence((5, 6, 7, 8), 1),
    ]


def test_windows_by_hand() -> None:
    # The drawing of the module's docstring: a..i are 1..9.
    assert window_sequences(range(1, 10), BOS, context=6, stride=2) == [
        TokenSequence((BOS, 1, 2, 3, 4, 5), 1),
        TokenSequence((BOS, 3, 4, 5, 6, 7), 4),
        TokenSequence((BOS, 5, 6, 7, 8, 9), 4),
    ]


def test_last_window_is_a_full_one() -> None:
    assert window_sequences(range(1, 9), BOS, context=6, stride=2) == [
        TokenSequence((BOS, 1, 2, 3, 4, 5), 1),
        TokenSequence((BOS, 3, 4, 5, 6, 7), 4),
        TokenSequence((BOS, 4, 5, 6, 7, 8), 5),
    ]


def test_windows_without_bos_by_hand() -> None:
    assert window_sequences(range(1, 8), None, context=4, stride=2) == [
        TokenSequence((1, 2, 3, 4), 1),  # nothing predicts 1
        TokenSequence((3, 4, 5, 6), 2),
        TokenSequence((4, 5, 6, 7), 3),
    ]


def test_longest_stride_by_hand() -> None:
    assert window_sequences(range(1, 7), BOS, context=4, stride=3) == [
        TokenSequence((BOS, 1, 2, 3), 1),
        TokenSequence((BOS, 4, 5, 6), 1),
    ]
    assert window_sequences(range(1, 7), None, context=4, stride=3) == [
        TokenSequence((1, 2, 3, 4), 1),
        TokenSequence((3, 4, 5, 6), 2),
    ]


@pytest.mark.parametrize(
    ("tokens", "prefix_id", "expected"),
    [
        ([], BOS, []),
        ([], None, []),
        ([1], BOS, [TokenSequence((BOS, 1), 1)]),
        ([1], None, []),
        ([1, 2], None, [TokenSequence((1, 2), 1)]),
    ],
)
def test_short_texts(
    tokens: list[int], prefix_id: int | None, expected: list[TokenSequence]
) -> None:
    assert window_sequences(tokens, prefix_id, context=8, stride=4) == expected


@pytest.mark.parametrize("prefix_id", [BOS, None])
def test_every_token_is_predicted_exactly_once_with_context(prefix_id: int | None) -> None:
    rng = random.Random(0)
    for _ in range(300):
        context = rng.randint(2, 12)
        stride = rng.randint(1, context - 1)
        text = list(range(1000, 1000 + rng.randint(0, 40)))
        windows = window_sequences(text, prefix_id, context, stride)
        scored = [token for w in windows for token in w.token_ids[w.first_scored :]]
        assert scored == (text if prefix_id is not None else text[1:])
        for number, window in enumerate(windows):
            assert len(window.token_ids) <= context
            assert window.first_scored >= 1
            before = window.first_scored - (prefix_id is not None)  # tokens of the text
            assert number == 0 or before >= context - (prefix_id is not None) - stride
            start = window.token_ids[-1] + 1 - (len(window.token_ids) - (prefix_id is not None))
            inside = window.token_ids[prefix_id is not None :]
            assert list(inside) == list(range(start, window.token_ids[-1] + 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"context": 1}, "at least 2"),
        ({"unit": "sliding_window", "context": 8, "stride": 8}, "from 1 to 7"),
        ({"unit": "sliding_window", "stride": 0}, "from 1 to 511"),
        ({"unit": "window"}, "sliding_window"),
    ],
)
def test_impossible_protocol_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProtocolConfig.model_validate(values)


# --- negative log-likelihood ----------------------------------------------------------


def example(seed: int = 0, vocabulary: int = 50) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, a head, targets and what is scored; the last sequence scores nothing."""
    generator = torch.Generator().manual_seed(seed)
    hidden_BTD = torch.randn(4, 9, 16, generator=generator)
    head_VD = torch.randn(vocabulary, 16, generator=generator)
    targets_BT = torch.randint(vocabulary, (4, 9), generator=generator)
    scored_BT = torch.rand(4, 9, generator=generator) < 0.6
    scored_BT[3] = False
    return hidden_BTD, head_VD, targets_BT, scored_BT


def by_hand(
    hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor, scored_BT: Tensor
) -> list[float]:
    probabilities = (hidden_BTD.double() @ head_VD.double().T).softmax(dim=2)
    return [
        sum(
            -math.log(probabilities[b, t, targets_BT[b, t]].item())
            for t in range(scored_BT.shape[1])
            if scored_BT[b, t]
        )
        for b in range(len(scored_BT))
    ]


@pytest.mark.parametrize("chunk", [None, 1, 5, 1000])
def test_nll_equals_the_plain_computation(chunk: int | None) -> None:
    hidden_BTD, head_VD, targets_BT, scored_BT = example()
    nll_B = nll_sums(hidden_BTD, lambda h: h @ head_VD.T, targets_BT, scored_BT, chunk)
    assert nll_B.dtype == torch.float64
    expected = by_hand(hidden_BTD, head_VD, targets_BT, scored_BT)
    assert nll_B.tolist() == pytest.approx(expected, rel=1e-5)
    assert nll_B[3] == 0.0


def test_softmax_is_taken_in_float32() -> None:
    # With a bfloat16 softmax, 1,000 equal logits would give log(1000) with three digits.
    hidden_BTD = torch.zeros(1, 3, 4, dtype=torch.bfloat16)
    targets_BT, scored_BT = torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3) == 1
    head_VD = torch.zeros(1000, 4, dtype=torch.bfloat16)
    nll_B = nll_sums(hidden_BTD, lambda h: h @ head_VD.T, targets_BT, scored_BT)
    assert nll_B.item() == pytest.approx(3 * math.log(1000), rel=1e-6)


def test_only_scored_positions_reach_the_head_in_chunks() -> None:
    hidden_BTD, head_VD, targets_BT, scored_BT = example()
    hidden_BTD[~scored_BT] = math.nan
    seen: list[Tensor] = []

    def head(hidden_ND: Tensor) -> Tensor:
        seen.append(hidden_ND)
        return hidden_ND @ head_VD.T

    nll_B = nll_sums(hidden_BTD, head, targets_BT, scored_BT, chunk=4)
    assert max(map(len, seen)) == 4
    torch.testing.assert_close(torch.cat(seen), hidden_BTD[scored_BT])
    assert nll_B.isfinite().all()


def test_a_large_vocabulary_is_softmaxed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_BTD, head_VD, targets_BT, scored_BT = example(vocabulary=100_000)
    monkeypatch.setattr("raysplit.perplexity.nll._SOFTMAX_ELEMENTS", 250_000)
    sizes: list[int] = []
    original = functional.cross_entropy

    def spy(logits_NV: Tensor, *args: object, **keywords: object) -> Tensor:
        sizes.append(logits_NV.numel())
        return original(logits_NV, *args, **keywords)

    monkeypatch.setattr(functional, "cross_entropy", spy)
    nll_B = nll_sums(hidden_BTD, lambda h: h @ head_VD.T, targets_BT, scored_BT)
    assert max(sizes) == 200_000
    expected = by_hand(hidden_BTD, head_VD, targets_BT, scored_BT)
    assert nll_B.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_vocabulary_beyond_the_bound_is_softmaxed_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden_BTD, head_VD, targets_BT, scored_BT = example()
    monkeypatch.setattr("raysplit.perplexity.nll._SOFTMAX_ELEMENTS", 10)
    rows: list[int] = []
    original = functional.cross_entropy

    def spy(logits_NV: Tensor, *args: object, **keywords: object) -> Tensor:
        rows.append(len(logits_NV))
        return original(logits_NV, *args, **keywords)

    monkeypatch.setattr(functional, "cross_entropy", spy)
    nll_sums(hidden_BTD, lambda h: h @ head_VD.T, targets_BT, scored_BT)
    assert rows == [1] * int(scored_BT.sum())


def test_on_a_cpu_256_positions_have_logits_at_a_time_whatever_the_default_device() -> None:
    hidden_BTD, targets_BT = torch.zeros(2, 300, 4), torch.zeros(2, 300, dtype=torch.int64)
    scored_BT = torch.ones(2, 300) == 1
    seen: list[int] = []

    def head(hidden_ND: Tensor) -> Tensor:
        seen.append(len(hidden_ND))
        return hidden_ND

    with torch.device("meta"):
        nll_B = nll_sums(hidden_BTD, head, targets_BT, scored_BT)
    assert seen == [256, 256, 88]
    assert nll_B.tolist() == pytest.approx([300 * math.log(4)] * 2)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_poisoned_sequence_shows_and_stays_alone(poison: float) -> None:
    hidden_BTD, head_VD, targets_BT, scored_BT = example()
    scored_BT[1, 2] = True
    hidden_BTD[1, 2, 0] = poison
    nll_B = nll_sums(hidden_BTD, lambda h: h @ head_VD.T, targets_BT, scored_BT, chunk=3)
    assert nll_B.isfinite().tolist() == [True, False, True, True]


def test_a_token_that_cannot_happen_has_an_infinite_nll() -> None:
    logits_NV = torch.tensor([[0.0, -math.inf]])
    nll_B = nll_sums(
        torch.zeros(1, 1, 1), lambda _: logits_NV, torch.tensor([[1]]), torch.tensor([[True]])
    )
    assert nll_B.tolist() == [math.inf]
