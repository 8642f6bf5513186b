"""Which architectures can be cut, how their layers are fed, and why everything else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from raysplit.base.errors import UserError

Windows = Literal["never", "always", "by_layer"]
Head = Literal["plain", "scaled", "softcapped"]
Rotary = Literal["shared", "by_layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One known structure: a token embedding, a stack `model.layers`, a final norm and a head.

    Attributes:
        architecture: The class name of transformers' causal language model.
        windows: Where `config.sliding_window` applies: in no layer, in every layer, or in those
            that `config.layer_types` names.
        head: What is done to the logits: nothing, `config.logit_scale` times, or squashed by
            `config.final_logit_softcapping`.
        rotary: Whether all layers share one rotary table, or each kind in `config.layer_types`
            has its own.
        sdpa: Whether transformers runs its attention through torch's fused kernels (Gemma-2's
            softcapped scores have none).
        own_code_upstream: Its published checkpoints still name remote code that has since become
            part of transformers under the same class names, so the name alone is no reason to
            refuse them.
    """

    architecture: str
    windows: Windows = "never"
    head: Head = "plain"
    rotary: Rotary = "shared"
    sdpa: bool = True
    own_code_upstream: bool = False

    def attention(self, asked: str) -> str:
        """Return the attention implementation that runs: "sdpa" or "eager".

        Args:
            asked: "sdpa", "eager", or "auto" (sdpa where the architecture has it).

        Raises:
            UserError: Another name, or sdpa where there is none.
        """
        if asked == "auto":
            return "sdpa" if self.sdpa else "eager"
        if asked not in ("sdpa", "eager"):
            raise UserError(f"attention {asked!r} is not one of auto, sdpa, eager")
        if asked == "sdpa" and not self.sdpa:
            raise UserError(
                f"{self.architecture} has no sdpa attention (its scores are softcapped); "
                "use auto or eager"
            )
        return asked


FAMILIES: Mapping[str, Family] = {
    "llama": Family(architecture="LlamaForCausalLM"),
    "mistral": Family(architecture="MistralForCausalLM", windows="always"),
    "cohere": Family(architecture="CohereForCausalLM", head="scaled"),
    "qwen2": Family(architecture="Qwen2ForCausalLM", windows="by_layer"),
    "qwen3": Family(architecture="Qwen3ForCausalLM", windows="by_layer"),
    "phi3": Family(architecture="Phi3ForCausalLM", windows="always", own_code_upstream=True),
    "gemma2": Family(
        architecture="Gemma2ForCausalLM", windows="by_layer", head="softcapped", sdpa=False
    ),
    "gemma3_text": Family(
        architecture="Gemma3ForCausalLM", windows="by_layer", head="softcapped", rotary="by_layer"
    ),
}
"""Known structures by the config's `model_type`."""


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """Return the structure of a checkpoint from its raw `config.json`.

    Args:
        config: The parsed `config.json`.
        where: The checkpoint's name, for the message.

    Raises:
        UserError: It is not one of the known structures; the message gives the reason.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    reason = _refusal(config, family)
    if reason is not None:
        raise UserError(f"cannot split {where}: {reason}")
    assert family is not None
    return family


def _refusal(config: Mapping[str, Any], family: Family | None) -> str | None:
    """The reason why this config cannot be cut, or None."""
    if config.get("quantization_config") is not None:
        return "its weights are quantised (quantization_config); use the unquantised checkpoint"
    if config.get("is_encoder_decoder"):
        return "it is an encoder-decoder model; only decoder-only language models have one stack"
    auto_map = config.get("auto_map")
    if auto_map is not None and not _is_upstream(auto_map, family):
        return "it needs its own remote code (auto_map), which raysplit does not run"
    if family is None:
        known = ", ".join(FAMILIES)
        return f"model_type {config.get('model_type')!r} has no known structure; known: {known}"
    architectures = config.get("architectures") or [family.architecture]
    if family.architecture not in architectures:
        return f"its architecture {architectures} is not the language model {family.architecture}"
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        return "its attention is bidirectional; a perplexity needs causal attention"
    return None


def _is_upstream(auto_map: object, family: Family | None) -> bool:
    """Whether the remote code that a config names is what transformers now ships itself."""
    if family is None or not family.own_code_upstream or not isinstance(auto_map, dict):
        return False
    named = str(cast("dict[str, object]", auto_map).get("AutoModelForCausalLM", ""))
    return named.rpartition(".")[2] == family.architecture
