"""A model in two halves with the link between them, for one request at a time.

Shape suffixes: T tokens, D hidden size, V vocabulary.
"""

# torch types some methods in part only:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from raysplit.base.files import sha256_of
from raysplit.harness.arguments import SplitArguments
from raysplit.harness.draws import request_draws
from raysplit.link.channel import Draws, transmit
from raysplit.link.signal import SignalSums
from raysplit.measure.card import MEASURING_FORMAT, described_model
from raysplit.measure.prepare import open_model, prepare_job
from raysplit.measure.shards.ue import UEShard
from raysplit.model import zoo
from raysplit.model.chain import ModelPart, load_part
from raysplit.model.precision import resolve_dtype
from raysplit.model.tokenizer import load_tokenizer, prefix_token_id, tokenizer_sha256

_LIBRARIES = ("torch", "transformers", "tokenizers")


class SplitModel:
    """UE span, link and edge span of one split point.

    Every request runs alone: sums over a padded batch differ in their last bits.

    Attributes:
        checkpoint: The model on disk.
        tokenizer: The one beside its weights.
        arguments: Where it is cut, and over which link.
    """

    def __init__(self, arguments: SplitArguments, device: str = "cpu") -> None:
        """Load both halves, and measure the signal where the link refers to it.

        Raises:
            UserError: The model cannot be used, or the split point or codec does not fit it.
        """
        experiment, setting = arguments.experiment, arguments.setting
        model = experiment.model
        self._device = device
        self._model = model.model_copy(update={"dtype": resolve_dtype(model.dtype, device)})
        self.arguments = arguments
        self.checkpoint = open_model(model)
        p, layers = setting.split_point, self.checkpoint.layers
        zoo.check_split_points(model.name, layers, (p, p))
        setting.codec.check_hidden_size(self.checkpoint.hidden_size)
        self.tokenizer = load_tokenizer(self.checkpoint)
        self._prefix_id = prefix_token_id(self.tokenizer, experiment.protocol.prefix)
        self._signal = self._measured_signal() if _refers_to_signal(arguments) else None
        self._ue = load_part(self._part(0, p))
        self._edge = load_part(self._part(p, layers))

    def _part(self, start: int, stop: int) -> ModelPart:
        return ModelPart(
            checkpoint=self.checkpoint,
            start=start,
            stop=stop,
            dtype=self._model.dtype,
            attention=self._model.attention,
            devices=(self._device,),
        )

    def _measured_signal(self) -> SignalSums:
        """Sum the hidden states over the experiment's corpus: the signal of `snr_db`."""
        experiment, p = self.arguments.experiment, self.arguments.setting.split_point
        job, _ = prepare_job(
            model=self._model,
            corpus=experiment.corpus,
            protocol=experiment.protocol,
            link=experiment.link,
            measuring=experiment.measuring,
            split_points=(p, p),
            device=self._device.partition(":")[0],
        )
        shard = UEShard(job.ue_part((self._device,)), job.corpus, job.link)
        return reduce(add, (shard.clean_hidden(i, (), (p,))[1][0] for i in job.all_blocks))

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides an answer besides the request and what reads its text."""
        setting, experiment = self.arguments.setting, self.arguments.experiment
        signal = self._signal
        return {
            "model": described_model(self.checkpoint, self._model),
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "prefix_id": self._prefix_id,
            "link": experiment.link.model_dump(mode="json", exclude={"mode"}),
            "state": setting.link.as_dict(),
            "split_point": setting.split_point,
            "codec": setting.codec.name,
            "seed": setting.seed,
            "signal": None if signal is None else [signal.rms, sha256_of(signal.mean_D.tolist())],
            "add_bos_token": self.arguments.add_bos_token,
            "max_length": self.arguments.max_length,
            "format": MEASURING_FORMAT,
            "device": self._device,
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        }

    @torch.inference_mode()
    def logits(self, ids_T: Sequence[int], sent_first: int) -> Tensor:
        """Return the edge's logits (T, V), float32, for tokens that the UE sends.

        Args:
            ids_T: The tokens, at least one.
            sent_first: How many of them are known when the first one is sent.
        """
        setting, signal = self.arguments.setting, self._signal
        lengths = torch.tensor([len(ids_T)], device=self._device)
        embedded = self._ue.embed(torch.tensor([ids_T]))
        (clean,) = self._ue.run_keeping(embedded, lengths, [setting.split_point])
        link = self.arguments.experiment.link
        if ids_T[0] != self._prefix_id:  # nothing that the edge could compute itself
            link = link.model_copy(update={"exempt_prefix": False})
        draws = request_draws(
            ids_T, setting.link, link, setting.seed, self.checkpoint.hidden_size, sent_first
        )
        received = transmit(
            clean,
            lengths,
            setting.link,
            link,
            _on(draws, self._device),
            codec=setting.codec,
            signal_rms=None if signal is None else signal.rms,
            corpus_mean_D=None if signal is None else signal.mean_D.to(self._device),
        )
        normed = self._edge.run_from(received.hidden_BTD, lengths, setting.split_point)
        return self._edge.logits(normed)[0].float()


def _refers_to_signal(arguments: SplitArguments) -> bool:
    """Whether the link's physics refer to the hidden states over a corpus."""
    link, state = arguments.experiment.link, arguments.setting.link
    loses = state.loss_probability > 0 or link.gain_threshold > 0
    return state.snr_db is not None or (link.concealment == "corpus_mean" and loses)


def _on(draws: Draws, device: str) -> Draws:
    normal = draws.normal_BTD
    return Draws(
        draws.gain_P.to(device),
        draws.erasure_P.to(device),
        None if normal is None else normal.to(device),
    )
