"""A GGUF file's tokenizer, rebuilt by transformers and checked where that only guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from raysplit.base.errors import UserError
from raysplit.model.importing.gguf_file import GgufFile

_KNOWN_SPLITS = frozenset(
    {
        *("gpt-2", "smollm", "llama3", "llama-v3", "llama-bpe", "falcon3", "smaug-bpe", "dbrx"),
        *("tekken", "qwen2", "deepseek-r1-qwen", "gpt-4o"),
    }
)
"""Rules that cut text before merging (`tokenizer.ggml.pre`), of the architectures known here.

transformers cuts by GPT-2's rule, silently, where it does not know a name.
"""


def save_tokenizer(file: GgufFile, folder: Path) -> None:
    """Rebuild a file's tokenizer and save it as tokenizer.json and tokenizer_config.json.

    Raises:
        UserError: The file has none, or one that would cut text otherwise than in training.
    """
    kind, split = file.value("tokenizer.ggml.model"), file.value("tokenizer.ggml.pre")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"{file.path}: tokenizer {kind!r} is not known here (gpt2, llama)")
    if kind == "gpt2" and split not in _KNOWN_SPLITS:
        raise UserError(
            f"{file.path}: how its tokenizer splits text is not known here (tokenizer.ggml.pre = "
            f"{split!r}): a newer conversion may state it"
        )
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    auto_tokenizer = cast("Any", AutoTokenizer)  # typed in part only
    try:
        built = auto_tokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    except Exception as error:  # damaged tables show as any kind of error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{file.path}: its tokenizer cannot be rebuilt ({reason})") from None
    if split == "smollm":  # every digit alone, then as GPT-2
        digits = pre_tokenizers.Digits(individual_digits=True)
        as_gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, as_gpt2])
    if kind == "llama":
        _set_prefix(file, built)
    # A class of its own (LlamaTokenizer) would build its rules anew when it is loaded.
    special = {name: getattr(built, name) for name in ("bos_token", "eos_token", "unk_token")}
    saved: Any = PreTrainedTokenizerFast(tokenizer_object=built.backend_tokenizer, **special)
    saved.chat_template = built.chat_template
    saved.save_pretrained(folder)


def _set_prefix(file: GgufFile, tokenizer: Any) -> None:  # noqa: ANN401 - typed in part only
    """Put a space before a text only where the file says so; transformers goes by architecture.

    Raises:
        UserError: The file wants one where this architecture's tokenizer has none.
    """
    stated = file.value("tokenizer.ggml.add_space_prefix")
    added = tokenizer.tokenize("a", add_special_tokens=False)[0].startswith("▁")
    if stated is False and added:
        from tokenizers import normalizers

        backend = tokenizer.backend_tokenizer
        backend.normalizer, backend.pre_tokenizer = normalizers.Replace(" ", "▁"), None
    if stated is True and not added:
        raise UserError(
            f"{file.path}: its tokenizer puts a space before a text (add_space_prefix), which "
            f"is not known of {file.architecture}"
        )
