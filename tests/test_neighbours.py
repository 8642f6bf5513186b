"""A sequence's NLL depends on itself alone: not on what it shares a batch or a history with."""

import numpy as np
import pytest
import torch

from raysplit.corpus.batches import TokenCorpus
from raysplit.corpus.sequences import TokenSequence
from raysplit.link.config import LinkConfig
from raysplit.measure.config import BackendConfig
from raysplit.measure.shards.job import Job
from raysplit.measure.shards.local import LocalBackend
from raysplit.measure.shards.reference import CleanReference
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.config import ModelConfig
from raysplit.model.rotary import known_positions
from tests.tiny_models import ARCHITECTURES, VOCABULARY, save_tiny, tiny_config

BORDER = 12
# Products of other shapes are summed in another order: float32 of about 40 nats a sequence.
ROUNDING = 2e-5

LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [1.5, 3.0, 6.0, 9.0],
    "original_max_position_embeddings": BORDER,
    "factor": 4.0,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}

CASES = {
    **{architecture: (architecture, {}) for architecture in ARCHITECTURES},
    "llama-dynamic": (
        "llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": BORDER}
    ),
    "cohere-dynamic": (
        "cohere", {"rope_parameters": DYNAMIC, "max_position_embeddings": BORDER}
    ),
    "phi3-longrope": (
        "phi3", {"rope_parameters": LONG, "original_max_position_embeddings": BORDER}
    ),
    "qwen3-longrope": ("qwen3", {"rope_parameters": LONG}),
    "gemma3-dynamic": (
        "gemma3_text",
        {
            "rope_parameters": {"sliding_attention": PLAIN, "full_attention": DYNAMIC},
            "max_position_embeddings": BORDER,
        },
    ),
    "llama-yarn": (
        "llama",
        {
            "rope_parameters": {
                **DYNAMIC,
                "rope_type": "yarn",
                "original_max_position_embeddings": BORDER,
            }
        },
    ),
}  # fmt: skip


def sequences(count=24):
    rng = np.random.default_rng(0)
    lengths = [BORDER, BORDER + 1, BORDER + 2, 2, *rng.integers(3, 40, count - 4)]
    return tuple(
        TokenSequence((1, *rng.integers(3, VOCABULARY, n - 1).tolist()), 1) for n in lengths
    )


def measured(folder, corpus, tokens_per_pass):
    job = Job(
        checkpoint=open_checkpoint(folder),
        model=ModelConfig(name=str(folder)),
        corpus=TokenCorpus(corpus),
        link=LinkConfig(),
        target_stderr=0.0,
        split_points=(2, 3),
    )
    backend = LocalBackend(job, BackendConfig(kind="inprocess"))
    backend._edge.tokens_per_pass = tokens_per_pass
    blocks = dict(backend.clean_blocks())
    backend.close()
    return CleanReference.gather(blocks, job.corpus.tokens_N, 2).corpus.nll_N


def one_by_one(model, corpus):
    """By transformers, each sequence as if it were the first that the model sees."""
    nll = []
    for sequence in corpus:
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        ids_1T = torch.tensor([sequence.token_ids])
        with torch.inference_mode():
            logits_1TV = model(ids_1T[:, :-1], use_cache=False).logits
        logp_TV = logits_1TV[0].double().log_softmax(-1)
        nll.append(-logp_TV.gather(1, ids_1T[0, 1:, None]).sum().item())
    return np.array(nll)


@pytest.mark.parametrize("tokens_per_pass", [0, 300], ids=["batches", "packed"])
@pytest.mark.parametrize("case", CASES)
def test_a_sequence_among_others_has_the_nll_that_it_has_alone(case, tokens_per_pass, tmp_path):
    architecture, changes = CASES[case]
    model = save_tiny(tmp_path, architecture, **changes)
    corpus = sequences()
    expected = one_by_one(model, corpus)
    np.testing.assert_allclose(measured(tmp_path, corpus, tokens_per_pass), expected, rtol=ROUNDING)


def test_beyond_the_border_the_frequencies_are_others(tmp_path):
    """Else the cases above would show nothing."""
    model = save_tiny(tmp_path, "phi3", **CASES["phi3-longrope"][1])
    corpus = sequences()
    true = one_by_one(model, corpus)
    model.config.rope_parameters["long_factor"] = LONG["short_factor"]
    moved = np.abs(one_by_one(model, corpus) - true) > 1e-3
    assert moved.tolist() == [len(s.token_ids) - 1 > BORDER for s in corpus]


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        (PLAIN, 64),
        ({**DYNAMIC, "rope_type": "linear"}, 256),
        (DYNAMIC, 256),
        ({**DYNAMIC, "rope_type": "yarn"}, 256),
        # The length before the scaling is given, so the other one may be the scaled one already.
        ({**DYNAMIC, "rope_type": "yarn", "original_max_position_embeddings": 16}, 64),
        ({**DYNAMIC, "rope_type": "yarn", "original_max_position_embeddings": 32}, 128),
        (LONG, 64),
    ],
)
def test_the_scaled_range_counts(rope, positions):
    assert known_positions(tiny_config("llama", rope_parameters=rope)) == positions
