"""lm-eval's model `raysplit`: answers every kind of request through UE, link and edge.

Tokens are cut and scored as lm-eval's own `hf` does it, so over a perfect link both agree.
"""

# lm-eval is typed in part only:
# pyright: reportMissingTypeStubs=false, reportMissingTypeArgument=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingParameterType=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch.nn import functional
from tqdm import tqdm

from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of
from raysplit.harness.arguments import link_words, read_arguments
from raysplit.harness.greedy import Greedy, greedy_text
from raysplit.harness.split import SplitModel
from raysplit.model.rotary import known_positions
from raysplit.model.tokenizer import check_token_ids, prefix_token_id

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_LOG = logging.getLogger(__name__)
_DEFAULT_MAX_LENGTH = 2048

Tokens = tuple[int, ...]
# The texts of a request (None: a part of one), its context's and its continuation's tokens.
TokenRequest = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("raysplit")
class RaysplitLM(TemplateLM):
    """A model cut between phone and edge; see `raysplit.harness.arguments` for its arguments.

    `batch_size` changes nothing: every request runs alone, so its value is always the same.
    """

    backend = "causal"

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **arguments: Any,  # noqa: ANN401 - what the command line gives
    ) -> None:
        super().__init__()
        self._split = SplitModel(read_arguments(arguments), _usable(device))
        self.tokenizer = self._split.tokenizer
        self._max_length = self._checked_max_length()
        self._prefix_id = prefix_token_id(self.tokenizer, "auto")
        _LOG.info("raysplit: %s", ", ".join(link_words(self._split.arguments.setting)))

    def _checked_max_length(self) -> int:
        config = self._split.checkpoint.config
        asked, known = self._split.arguments.max_length, known_positions(config)
        if asked is None:
            return resolve_max_length(config, self.tokenizer, default=_DEFAULT_MAX_LENGTH)
        if asked < 1 or (known is not None and asked > known):
            raise UserError(
                f"max_length={asked} is not possible: the model knows {known} positions"
            )
        return asked

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides an answer besides the request."""
        return sha256_of({**self._split.description, "max_length": self._max_length})

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: BOS, else EOS."""
        return self._prefix_id  # pyright: ignore[reportReturnType] - "auto" finds one or raises

    @property
    def max_length(self) -> int:
        """Most tokens that are fed at once."""
        return self._max_length

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of prompts."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what stands in lm-eval's results."""
        return {"raysplit": self._split.description, "raysplit_fingerprint": self.fingerprint}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take lm-eval's cache, in a table of its own: lm-eval's keys hold the request alone.

        Raises:
            UserError: The cache is not the kind of file that lm-eval 0.4 makes.
        """
        super().set_cache_hook(cache_hook)
        store: Any = cache_hook.dbdict
        if store is None:
            return
        if not (hasattr(store, "tablename") and hasattr(store, "conn")):
            raise UserError("this lm-eval keeps its cache otherwise: leave --use_cache out")
        store.tablename = f"raysplit_{self.fingerprint}"
        store.conn.execute(
            f'CREATE TABLE IF NOT EXISTS "{store.tablename}" (key TEXT PRIMARY KEY, value BLOB)'
        )
        store.conn.commit()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the tokenizer's template writes it."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - lm-eval's signature
    ) -> list[int]:
        """Return a text's tokens, as `hf` has them."""
        given = self._split.arguments.add_bos_token
        if add_special_tokens is None:
            add_special_tokens = given
            if string.startswith(self.tokenizer.decode(self.prefix_token_id)):
                add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **special)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[TokenRequest],
        disable_tqdm: bool = False,
        **kwargs: Any,  # noqa: ANN401 - lm-eval's signature
    ) -> list[tuple[float, bool]]:
        """Return each request's log-likelihood and whether greedy decoding would give it.

        Requests that feed the same tokens, as one-token answers to a question do, run once.
        """
        check_token_ids(self._split.checkpoint, (ids for _, *parts in requests for ids in parts))
        by_fed: dict[tuple[Tokens, int], list[int]] = {}
        for index, (texts, context, continuation) in enumerate(requests):
            fed = self._fed(context, continuation)
            at_first = len(fed) - len(continuation) + 1
            # A text without a question (rolling, or an empty context) is known as a whole.
            known = at_first if texts is not None and texts[0] else len(fed)
            by_fed.setdefault((fed, max(1, known)), []).append(index)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for (fed, known), indices in _progress(by_fed.items(), "loglikelihood", disable_tqdm):
            log_probabilities_TV = functional.log_softmax(self._split.logits(fed, known), dim=-1)
            for index in indices:
                texts, _, continuation = requests[index]
                answers[index] = _scored(log_probabilities_TV, continuation)
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[index])
        return answers

    def _fed(self, context: list[int], continuation: list[int]) -> Tokens:
        """Return the tokens that are sent: all but the last, from the left no more than fit.

        Raises:
            UserError: The continuation is empty, or longer than what is fed at once.
        """
        whole = context + continuation
        if not continuation:
            raise UserError(
                "an answer has no token of its own: its text melts into the question's last token; "
                "begin the task's answers with a space (target_delimiter)"
            )
        if len(continuation) > self.max_length:
            raise UserError(
                f"an answer of {len(continuation)} tokens exceeds max_length={self.max_length}: "
                "take a longer one, or another task"
            )
        if len(whole) > self.max_length + 1:
            _LOG.warning("cut from the left to max_length=%d tokens", self.max_length)
        return tuple(whole[-(self.max_length + 1) :][:-1])

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return each whole text's log-likelihood, in windows that predict every token once."""
        totals: list[float] = []
        for request in _progress(requests, "rolling loglikelihood", disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            total = sum(value for value, _ in self._loglikelihood_tokens(parts, True))
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return each prompt's greedy continuation, up to its stop sequences.

        Raises:
            UserError: A task asks for sampling or beams.
        """
        greedy = Greedy(self._split, self.max_length, self.eot_token_id)
        texts: list[str] = []
        for request in _progress(requests, "generate_until", disable_tqdm):
            prompt, asked = request.args
            texts.append(greedy_text(greedy, self.tok_encode(prompt), asked))
            self.cache_hook.add_partial("generate_until", (prompt, asked), texts[-1])
        return texts


def _usable(device: str | None) -> str:
    """Return a device; lm-eval asks for a GPU by default, whether there is one or not."""
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "cpu"
    return device


def _scored(log_probabilities_TV: torch.Tensor, continuation: list[int]) -> tuple[float, bool]:
    answer_NV = log_probabilities_TV[-len(continuation) :]
    ids_N = torch.tensor(continuation, device=answer_NV.device)
    value = answer_NV.gather(1, ids_N[:, None]).sum()
    return float(value), bool((answer_NV.argmax(dim=-1) == ids_N).all())


def _progress(items: Iterable[Any], what: str, hidden: bool) -> Any:  # noqa: ANN401 - tqdm's
    return tqdm(items, desc=f"Running {what} requests", disable=hidden)
