"""Tasks of lm-evaluation-harness that read local JSON, and tiny models that it can load too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import VOCABULARY, save_tiny

QUESTIONS = [
    {"question": "w3 w4 w5 w6", "choices": ["w7", "w8", "w9 w10"], "answer": 0},
    {"question": "w11 w12", "choices": ["w13 w14 w15", "w16", "w17"], "answer": 1},
    {"question": "w18 w19 w20 w21 w22", "choices": ["w23", "w24", "w25"], "answer": 2},
]
TEXTS = [" ".join(f"w{(7 * i + k) % 90 + 3}" for i in range(length)) for k, length in
         enumerate((5, 23, 41, 90))]  # fmt: skip


def save_tiny_with_words(folder: Path, architecture: str, **changes: Any) -> None:
    """Save a tiny model with a tokenizer of the words w3, w4 ... and a BOS, EOS and unknown."""
    save_tiny(folder, architecture, **changes)
    special = {"<unk>": 0, "<s>": 1, "</s>": 2}
    words = special | {f"w{i}": i for i in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def write_tasks(folder: Path) -> Path:
    """Write a multiple-choice, a perplexity and a generation task; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_task(
        folder,
        "local_choice",
        QUESTIONS,
        output_type="multiple_choice",
        doc_to_text="{{question}}",
        doc_to_choice="{{choices}}",
        doc_to_target="answer",
        metric_list=[{"metric": "acc"}],
    )
    _write_task(
        folder,
        "local_text",
        [{"text": text} for text in TEXTS],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": "word_perplexity"}],
    )
    _write_task(
        folder,
        "local_generation",
        [{**one, "answer": "w5"} for one in QUESTIONS],
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["w50"], "max_gen_toks": 6, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )
    return folder


def _write_task(folder: Path, name: str, documents: list[dict[str, Any]], **task: Any) -> None:
    data = folder / f"{name}.json"
    data.write_text("\n".join(map(json.dumps, documents)))
    described = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "target_delimiter": " ",
        **task,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(described))
