"""The `budget` section of an experiment: one request, and where it runs."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from raysplit.base.config import Config
from raysplit.budget.presets import load_setup
from raysplit.budget.setup import Setup


class BudgetConfig(Config):
    """What seconds, joules and memory are counted for; its numbers are those of `raysplit budget`.

    Bits on the air are those of `problem.codecs`, the first.

    Attributes:
        phone: A phone of the presets.
        edge: An edge of the presets.
        network: A network of the presets.
        overrides: Their numbers that differ, such as {phone: {memory_gb: 8}}.
        prompt_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer, the first one included.
        deadline_s: A first token later than this misses its deadline; None: there is none.
    """

    phone: str = "flagship"
    edge: str = "h100"
    network: str = "lte"
    overrides: dict[str, dict[str, float]] = Field(default_factory=dict)
    prompt_tokens: int = 512
    output_tokens: int = 128
    deadline_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.setup()
        return self

    def setup(self) -> Setup:
        """Return the numbers behind the names.

        Raises:
            UserError: An unknown preset or key, or a number that cannot be.
        """
        return load_setup(
            self.phone,
            self.edge,
            self.network,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            changes=self.overrides,
        )
