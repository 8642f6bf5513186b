"""lm-evaluation-harness through the split: equal to its own `hf`, and what chance depends on."""

import json
import sqlite3
from pathlib import Path

import pytest
import torch

from raysplit.harness import command
from raysplit.harness.draws import request_draws
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from tests.commands import raysplit, raysplit_here
from tests.lm_eval_tasks import TEXTS, save_tiny_with_words, write_tasks
from tests.tiny_models import ARCHITECTURES

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'raysplit[lm-eval]'")

from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM

from raysplit.base.errors import UserError
from raysplit.harness.lm import RaysplitLM

ROOT = Path(__file__).parents[1]
# What lm-eval and its dependencies warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAIRS = [
    ("w3 w4 w5", " w6"),
    ("w3 w4 w5", " w7"),
    ("w3 w4 w5", " w8 w9 w10"),
    ("", "w11 w12 w13"),
    (" ".join(f"w{i}" for i in range(3, 70)), " w5 w6"),  # longer than the model's context
]
NOISE = {"split_point": 2, "noise_std": 0.5, "seed": 3}


def asked(kind, *requests):
    return [Instance(kind, {}, request, i) for i, request in enumerate(requests)]


def answers(model, order=1):
    """Every kind of answer of a model, asked in one order or the other."""
    likelihoods = model.loglikelihood(asked("loglikelihood", *PAIRS[::order]), disable_tqdm=True)
    rolling = model.loglikelihood_rolling(
        asked("loglikelihood_rolling", *((text,) for text in TEXTS[::order])), disable_tqdm=True
    )
    kwargs = {"until": ["w50"], "max_gen_toks": 7, "do_sample": False}
    prompts = [("w3 w4 w5 w6", kwargs), ("w9", kwargs), (" ".join(["w8"] * 70), kwargs)]
    texts = model.generate_until(asked("generate_until", *prompts[::order]), disable_tqdm=True)
    return likelihoods[::order], rolling[::order], texts[::order]


# transformers gives a model of Qwen2 a tokenizer of Qwen2's own kind, whatever lies beside it.
@pytest.fixture(scope="module", params=[name for name in ARCHITECTURES if name != "qwen2"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    save_tiny_with_words(path, request.param)
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    save_tiny_with_words(path, "llama")
    return path


def split_model(folder, overrides=(), **arguments):
    ours = [f"model.name={folder}", "problem.max_split_point=4", *overrides]
    return RaysplitLM(experiment="demo", overrides=ours, **arguments)


def test_over_a_perfect_link_every_answer_is_that_of_hf(folder):
    theirs = answers(HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1))
    for split_point in (1, 3):
        ours = answers(split_model(folder, split_point=split_point))
        for mine, other in zip(ours[0], theirs[0], strict=True):
            assert mine == (pytest.approx(other[0], abs=1e-6), other[1])
        assert ours[1] == pytest.approx(theirs[1], rel=1e-6)
        assert ours[2] == theirs[2]


@pytest.mark.parametrize(
    ("overrides", "link"),
    [
        ((), {"noise_std": 0.5}),
        ((), {"snr_db": 3.0}),
        ((), {"noise_std": 0.5, "codec": "int4-unbiased/8"}),
        (["link.concealment=hold_last"], {"loss_probability": 0.4}),
        (["link.packet=element"], {"loss_probability": 0.4}),
        (
            ["link={fading: rayleigh, gain_threshold: 0.5, packet: sentence}",
             "problem.link={fading_scale: [0.5, 2]}"],
            {"fading_scale": 1.0},
        ),
    ],
)  # fmt: skip
def test_neither_batch_size_nor_order_changes_a_value_under_a_bad_link(llama, overrides, link):
    overrides = [*overrides, f"corpus={{source: file, path: {llama}/text.txt, min_words: 1}}"]
    (llama / "text.txt").write_text("\n\n".join(f"{text}." for text in TEXTS))
    one, eight = (
        answers(split_model(llama, overrides, split_point=2, batch_size=size, **link), order)
        for size, order in ((1, 1), (8, -1))
    )
    assert one == eight
    assert one[1] != answers(split_model(llama, split_point=2))[1]


def test_the_link_follows_the_seed_and_another_split_point_has_other_values(llama):
    first, again, other = (
        answers(split_model(llama, split_point=2, noise_std=0.5, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0] != other[0]


def test_tokens_that_two_requests_begin_with_get_the_same_draws():
    state, config = LinkState(noise_std=1.0, loss_probability=0.5), LinkConfig(fading="rayleigh")
    one, other = (request_draws(ids, state, config, 5, 6, 2) for ids in ([7, 8, 9, 4], [7, 8, 3]))
    for name in ("gain_P", "erasure_P", "normal_BTD"):
        a, b = getattr(one, name), getattr(other, name)
        assert torch.equal(a[:, :2], b[:, :2])
        assert not torch.equal(a[:, 2], b[:, 2])
    repeated = request_draws([7, 7, 7], state, config, 5, 6, 1).normal_BTD
    assert not torch.equal(repeated[:, 0], repeated[:, 1])  # the place counts, not the token alone


def test_a_sentence_in_one_packet_has_one_gain_that_the_question_decides():
    config = LinkConfig(fading="rayleigh", packet="sentence")
    one, other, third = (
        request_draws(ids, LinkState(), config, 5, 6, 2).gain_P
        for ids in ([7, 8, 9, 4], [7, 8, 3], [7, 9, 3])
    )
    assert one.shape == (1, 1, 1)
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_a_generated_text_is_what_scoring_finds_likeliest(llama):
    model = split_model(llama, **NOISE)
    kwargs = {"until": [], "max_gen_toks": 5, "do_sample": False}
    (text,) = model.generate_until(asked("generate_until", ("w3 w4 w5", kwargs)), disable_tqdm=True)
    pairs = asked("loglikelihood", ("w3 w4 w5", f" {text}"))
    ((_, is_greedy),) = model.loglikelihood(pairs, disable_tqdm=True)
    assert is_greedy
    assert len(text.split()) == 5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"do_sample": True, "temperature": 0.7}, "decodes greedily"),
        ({"num_beams": 4}, "num_beams=4 is not served"),
        ({"max_gen_toks": 64}, "leaves no room"),
    ],
)
def test_other_than_greedy_decoding_is_refused(llama, kwargs, message):
    with pytest.raises(UserError, match=message):
        split_model(llama).generate_until(
            asked("generate_until", ("w3", kwargs)), disable_tqdm=True
        )


def test_an_answer_without_a_token_is_refused(llama):
    with pytest.raises(UserError, match="has no token"):
        split_model(llama).loglikelihood(asked("loglikelihood", ("w3 w4", "w5")), disable_tqdm=True)


def test_lm_evals_cache_holds_the_link(llama, tmp_path):
    quiet, loud = ({"split_point": 2, "noise_std": std} for std in (0.0, 3.0))
    plain = [answers(split_model(llama, **link)) for link in (quiet, loud)]
    assert plain[0] != plain[1]
    database = str(tmp_path / "cache.db")
    for _ in range(2):  # the second time all of it comes from the cache
        for link, expected in zip((quiet, loud), plain, strict=True):
            cached = CachingLM(split_model(llama, **link), database)
            assert answers(Undecorated(cached)) == expected
            cached.dbdict.close()
    with sqlite3.connect(database) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'raysplit_%'")
        assert len(names.fetchall()) == 2


class Undecorated:
    """A cached model that takes what `answers` gives."""

    def __init__(self, cached):
        self._cached = cached

    def __getattr__(self, kind):
        return lambda requests, disable_tqdm: getattr(self._cached, kind)(requests)


@pytest.mark.slow
def test_the_command_runs_with_lm_evals_own_options(llama, tmp_path):
    tasks = write_tasks(tmp_path / "tasks")
    done = raysplit(
        "lm-eval", "demo", f"--set=model.name={llama}", "--set=problem.max_split_point=4",
        "--tasks", "local_choice,local_text,local_generation", "--include_path", tasks,
        "--model_args", "split_point=2,noise_std=3", "--batch_size", 8, "--limit", 2,
        "--output_path", tmp_path / "results.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("results*.json")
    found = json.loads(path.read_text())
    assert set(found["results"]) == {"local_choice", "local_text", "local_generation"}
    assert found["config"]["raysplit"]["state"] == {"noise_std": 3.0}
    assert found["config"]["model"] == "raysplit"


def test_a_task_does_not_wait_for_ever_for_the_hub(monkeypatch):
    limits = []
    monkeypatch.setattr(command, "limit_hub_requests", lambda: limits.append("set"))
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: limits.append("evaluated"))
    command.run_harness("demo", (), ["--tasks", "x"])
    assert limits == ["set", "evaluated"]


def test_an_unknown_task_is_refused_and_other_faults_are_not_hidden(monkeypatch):
    def failing(text):
        def evaluate():
            raise ValueError(text)

        return evaluate

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", failing("Tasks not found: nosuch"))
    with pytest.raises(UserError, match="lm-eval: Tasks not found: nosuch; `lm-eval ls tasks`"):
        command.run_harness("demo", (), ["--tasks", "nosuch"])
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", failing("something else"))
    with pytest.raises(ValueError, match="something else"):
        command.run_harness("demo", (), ["--tasks", "x"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo"], "no task: give --tasks"),
        (["dmo", "--tasks", "x"], "did you mean 'demo'?"),
        (["demo", "--tasks", "x", "--model", "hf"], "--model is raysplit here"),
    ],
)
def test_what_the_command_cannot_run_is_refused_in_a_line(words, message):
    done = raysplit_here("lm-eval", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
