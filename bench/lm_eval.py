"""lm-evaluation-harness through the split: its exactness, and an example over split points.

    python -m bench.lm_eval                       # the example of docs/lm-eval.md, on smollm2-135m
    python -m bench.lm_eval --model embedded      # the same on another model

`exactness` is part of the suite's report `users`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.report import REPORTS
from raysplit.base.files import write_atomically
from raysplit.measure.prepare import open_model
from raysplit.model.config import ModelConfig

TASKS = Path(__file__).parent / "lm_eval_tasks"
_SEED = 0
_PAIRS = (
    ("The file is opened", " for reading"),
    ("The file is opened", " for"),
    ("The file is opened", " in"),
    ("", "Return a list of names"),
    ("x = ", "[1, 2, 3]"),
    ("A function that takes no argument and returns", " a list of all the names that it found"),
)


def exactness(model: str = "embedded") -> dict[str, float]:
    """Return `lm_eval_difference` and `lm_eval_batch_difference`, in nats.

    The first is the largest difference to lm-eval's own `hf` at batch size 1 over a perfect link,
    at two split points; the second that between batch sizes 1 and 8 (and the other order) under
    noise. Both over log-likelihoods of answers and of whole texts.
    """
    from lm_eval.models.huggingface import HFLM

    from raysplit.harness.lm import RaysplitLM

    def ours(**arguments: object) -> RaysplitLM:
        return RaysplitLM(experiment="demo", overrides=[f"model.name={model}"], **arguments)

    folder = str(open_model(ModelConfig(name=model)).folder)
    theirs = _answers(HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1))
    perfect = [_difference(theirs, _answers(ours(split_point=p))) for p in (1, 7)]
    noisy = {"split_point": 3, "noise_std": 2.0, "seed": 1}
    one, eight = (_answers(ours(batch_size=size, **noisy), size) for size in (1, 8))
    return {
        "lm_eval_difference": max(perfect),
        "lm_eval_batch_difference": _difference(one, eight),
    }


def _difference(one: Iterable[float], other: Iterable[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _answers(model: Any, batch_size: int = 1) -> list[float]:  # noqa: ANN401 - lm-eval's
    from lm_eval.api.instance import Instance

    def asked(kind: str, requests: Iterable[tuple[str, ...]]) -> list[Instance]:
        return [Instance(kind, {}, request, i) for i, request in enumerate(requests)]

    order = 1 if batch_size == 1 else -1
    texts = [
        (json.loads(line)["text"],) for line in (TASKS / "prose.jsonl").read_text().splitlines()
    ]
    pairs = asked("loglikelihood", _PAIRS[::order])
    found = [value for value, _ in model.loglikelihood(pairs, disable_tqdm=True)][::order]
    rolling = asked("loglikelihood_rolling", texts[::order])
    return found + model.loglikelihood_rolling(rolling, disable_tqdm=True)[::order]


def over_links(
    model: str, split_points: Sequence[int], noise_stds: Sequence[float]
) -> dict[str, Any]:
    """Return accuracy and word perplexity of the two tasks over a perfect link and noisy ones.

    Args:
        model: A name that experiments know.
        split_points: Where it is cut.
        noise_stds: Standard deviations of the noise, at each of these split points.
    """
    return {
        "model": model,
        "seed": _SEED,
        "lm_eval": importlib.metadata.version("lm-eval"),
        "perfect_link": _evaluated(model, 1, 0.0),
        "noisy_links": [
            {"noise_std": std, "split_point": p} | _evaluated(model, p, std)
            for std in noise_stds
            for p in split_points
        ],
    }


def _evaluated(model: str, split_point: int, noise_std: float) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from raysplit.harness.lm import RaysplitLM

    lm = RaysplitLM(
        experiment="smollm2",
        overrides=[f"model.name={model}"],
        split_point=split_point,
        noise_std=noise_std,
        seed=_SEED,
    )
    found = simple_evaluate(
        model=lm,
        tasks=["raysplit_facts", "raysplit_prose"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
    )
    facts, prose = found["results"]["raysplit_facts"], found["results"]["raysplit_prose"]
    return {
        "accuracy": facts["acc,none"],
        "questions": found["n-samples"]["raysplit_facts"]["effective"],
        "word_perplexity": prose["word_perplexity,none"],
        "fingerprint": lm.fingerprint,
    }


def main() -> None:
    """Write the example's report."""
    parser = argparse.ArgumentParser(prog="python -m bench.lm_eval", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--split-points", type=int, nargs="+", default=[1, 3, 6, 10, 15, 20, 29])
    parser.add_argument("--noise-stds", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--out", type=Path, default=REPORTS / "lm-eval-smollm2.json")
    arguments = parser.parse_args()
    report = over_links(arguments.model, arguments.split_points, arguments.noise_stds)
    write_atomically(arguments.out, json.dumps(report, indent=2).encode() + b"\n")
    print(f"-> {arguments.out}")


if __name__ == "__main__":
    main()
