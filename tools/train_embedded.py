"""Train the embedded model from scratch: `python -m tools.train_embedded --out DIR`.

A 16-layer LLaMA with its own byte-level BPE tokenizer, trained on the training part of CPython's
own documentation (see `raysplit.corpus.cpython_docs`). Matrices are trained with Muon, the rest
with AdamW, both on a learning rate that is flat and then falls to zero; the length of the run is
given in minutes, so the same script serves a laptop and a GPU. Writes a checkpoint that
`transformers` loads as it is, and `training.json` with the recipe and the held-out bits per
character.
"""

# transformers types its models and tokenizers in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raysplit.base.files import replacing, write_atomically
from raysplit.corpus import cpython_docs

VOCABULARY = 1024
BOS = "<s>"
SEQUENCE = 192
BATCH = 14
DROPOUT = 0.1
MUON_LR, ADAM_LR = 0.02, 3e-3
WARMUP_SHARE, DECAY_SHARE = 0.02, 0.6


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of `VOCABULARY` pieces that prefixes every text with BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[BOS],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, model_max_length=512)


def new_model(bos_id: int) -> LlamaForCausalLM:
    """Build the architecture: 16 layers, hidden size 160, one key/value head, tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=368,
        num_hidden_layers=16,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=bos_id,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


class _DropoutAfter(nn.Module):
    """A projection followed by dropout: regularises the residual stream in training only."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.projection(x), DROPOUT, self.training)


def _with_dropout(model: LlamaForCausalLM) -> None:
    for layer in model.model.layers:
        layer.mlp.down_proj = _DropoutAfter(layer.mlp.down_proj)


def _without_dropout(model: LlamaForCausalLM) -> None:
    for layer in model.model.layers:
        layer.mlp.down_proj = layer.mlp.down_proj.projection


def batches(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[Tensor]:
    """Yield (BATCH, SEQUENCE + 1) token ids for ever; paragraphs are reshuffled at each pass."""
    encoded = tokenizer(texts)["input_ids"]
    rows: list[list[int]] = []
    stream: list[int] = []
    while True:
        rng.shuffle(encoded)
        for ids in encoded:
            stream.extend(ids)
            while len(stream) > SEQUENCE:
                rows.append(stream[: SEQUENCE + 1])
                del stream[:SEQUENCE]
            if len(rows) >= BATCH:
                yield torch.tensor(rows[:BATCH])
                del rows[:BATCH]


@torch.inference_mode()
def bits_per_character(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> float:
    """Held-out bits per character: each paragraph on its own, BOS given, at most 512 tokens."""
    device = next(model.parameters()).device
    nats, characters = 0.0, 0
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")["input_ids"].to(
            device
        )
        logits = model(ids).logits[0, :-1].float()
        nats += nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        characters += len(tokenizer.decode(ids[0, 1:]))
    return nats / characters / math.log(2)


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.05, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _rate(progress: float) -> float:
    return min(1.0, progress / WARMUP_SHARE, (1.0 - progress) / DECAY_SHARE)


@dataclass
class _Progress:
    """How far a run has come; kept beside its weights, so that an interrupted run goes on."""

    seconds: float = 0.0
    steps: int = 0

    def save(self, folder: Path, model: LlamaForCausalLM) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "unfinished.safetensors") as new:
            save_model(model, str(new))
        write_atomically(folder / "unfinished.json", json.dumps(asdict(self)))

    @classmethod
    def restore(cls, folder: Path, model: LlamaForCausalLM) -> _Progress:
        if not (folder / "unfinished.json").exists():
            return cls()
        # The optimisers' momenta start anew: they settle within some tens of steps.
        load_model(model, folder / "unfinished.safetensors")
        return cls(**json.loads((folder / "unfinished.json").read_text()))


def train(
    texts: list[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    out: Path,
    minutes: float,
    seed: int,
    device: str,
) -> tuple[LlamaForCausalLM, int]:
    """Train until the given minutes are used up; return the model and the number of steps."""
    torch.manual_seed(seed)
    model = new_model(tokenizer.bos_token_id).to(device)
    _with_dropout(model)
    progress = _Progress.restore(out, model)
    optimizers = _optimizers(model)
    peak_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    before, saved = time.monotonic() - progress.seconds, progress.seconds
    for batch in batches(texts, tokenizer, random.Random(seed + progress.steps)):
        progress.seconds = time.monotonic() - before
        share = progress.seconds / (60 * minutes)
        if share >= 1.0:
            break
        for optimizer, peak in zip(optimizers, peak_rates, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _rate(share)
        loss = _step(model, batch.to(device), optimizers)
        progress.steps += 1
        if progress.steps % 50 == 0:
            print(f"step {progress.steps:6d}  {100 * share:5.1f} %  loss {loss:.3f}", flush=True)
        if progress.seconds - saved > 120:
            saved = progress.seconds
            progress.save(out, model)
    _without_dropout(model)
    return model.eval(), progress.steps


def _step(model: LlamaForCausalLM, ids: Tensor, optimizers: list[torch.optim.Optimizer]) -> float:
    logits = model(ids[:, :-1], use_cache=False).logits  # (B, T, V)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def main() -> None:
    """Train, write the checkpoint and the card's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    everything = cpython_docs.paragraphs()
    texts = [p for p in everything if not cpython_docs.is_held_out(p)]
    held_out = [p for p in everything if cpython_docs.is_held_out(p)]
    tokenizer = train_tokenizer(texts)
    model, steps = train(
        texts,
        tokenizer,
        out=arguments.out,
        minutes=arguments.minutes,
        seed=arguments.seed,
        device=arguments.device,
    )
    model = model.half()  # what is shipped, and so what is scored
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    card = {
        "held_out_bits_per_character": bits_per_character(model.float(), tokenizer, held_out),
        "held_out_paragraphs": len(held_out),
        "training_paragraphs": len(texts),
        "training_characters": sum(map(len, texts)),
        "parameters": model.num_parameters(),
        "steps": steps,
        "tokens_seen": steps * BATCH * SEQUENCE,
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    write_atomically(arguments.out / "training.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
    for leftover in arguments.out.glob("unfinished.*"):
        leftover.unlink()


if __name__ == "__main__":
    main()
