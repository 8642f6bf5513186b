"""Greedy generation through the split: each new token is sent across the link like the prompt."""

# lm-eval is typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from raysplit.base.errors import UserError
from raysplit.harness.split import SplitModel

_DEFAULT_NEW_TOKENS = 256
# What changes nothing where the likeliest token is taken, or is handled here.
_SERVED = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"})
_NEUTRAL: Mapping[str, object] = {"num_beams": 1, "repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True)
class Greedy:
    """What generates.

    Attributes:
        split: The model.
        max_length: Most tokens that are fed at once.
        eos_id: The tokenizer's token that ends a text.
    """

    split: SplitModel
    max_length: int
    eos_id: int | None

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text: the tokenizer's and the model's."""
        by_model: Any = getattr(self.split.checkpoint.config, "eos_token_id", None)
        several = by_model if isinstance(by_model, list) else [by_model]
        return frozenset(i for i in (*several, self.eos_id) if i is not None)


def greedy_text(greedy: Greedy, prompt_ids: list[int], asked: Mapping[str, Any]) -> str:
    """Continue a prompt with the likeliest tokens.

    Args:
        greedy: What generates.
        prompt_ids: The prompt's tokens; from the left no more are taken than leave room.
        asked: lm-eval's generation arguments: `until`, `max_gen_toks` and such.

    Raises:
        UserError: Sampling or beams are asked for, or no room is left for the prompt.
    """
    given: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), _DEFAULT_NEW_TOKENS))
    _refuse_other_than_greedy(given)
    decode, eos_id = greedy.split.tokenizer.decode, greedy.eos_id
    until = handle_stop_sequences(given["until"], eos=None if eos_id is None else decode(eos_id))
    new_tokens = int(given["max_gen_toks"])
    room = greedy.max_length - new_tokens
    if room < 1:
        raise UserError(
            f"max_gen_toks={new_tokens} leaves no room for a prompt within max_length="
            f"{greedy.max_length}: set --gen_kwargs max_gen_toks lower"
        )
    ids = prompt_ids[-room:]
    sent_first, ends = len(ids), greedy.end_ids
    while len(ids) < sent_first + new_tokens:
        ids = [*ids, int(greedy.split.logits(ids, sent_first)[-1].argmax())]
        # Special tokens are stop sequences too, and left out of the text only at the end.
        so_far = decode(ids[sent_first:])
        if ids[-1] in ends or any(stop in so_far for stop in until if stop):
            break
    text = decode(ids[sent_first:], skip_special_tokens=True)
    return postprocess_generated_text(text, stop=until, think_end_token=None)


def _refuse_other_than_greedy(given: Mapping[str, Any]) -> None:
    if given.get("do_sample"):
        raise UserError(
            "do_sample=True is not served: raysplit decodes greedily; set --gen_kwargs "
            "do_sample=False,temperature=0"
        )
    for name, value in given.items():
        if name not in _SERVED and _NEUTRAL.get(name, value is None) != value:
            raise UserError(
                f"generation argument {name}={value!r} is not served: raysplit decodes greedily; "
                "leave it out"
            )
