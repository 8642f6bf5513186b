"""A fitted surrogate: predicts log PPL in NumPy, and is kept as safetensors + JSON.

Each member is a network of two hidden SiLU layers over the split point and the link coordinates,
all scaled to [-1, 1]. Single layers of a language model may react far more violently than their
neighbours, so a split point also has a vector of its own (its *departure*) that is added to the
first hidden layer and is zero unless the data ask for more.

Where several codecs were measured, each has an input that is 1 for its rows and 0 for the others'.

Shape suffixes: N rows, M members, K link coordinates, C codecs, I inputs (1 + K, and + C where
C > 1), H hidden, P split points.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from raysplit.base.arrays import Float32Array, FloatArray, IntArray
from raysplit.base.errors import UserError
from raysplit.base.files import write_atomically
from raysplit.base.sealed_json import read_sealed, write_sealed

WEIGHTS_FILE = "surrogate.safetensors"
DESCRIPTION_FILE = "surrogate.json"

_ROWS_AT_ONCE = 4096
_MARGIN = 0.05  # of a coordinate's trained range: how far beyond it a member is evaluated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """How rows become network inputs, and outputs log PPL.

    Attributes:
        split_points: First and last split point that is answered for.
        low_K: Smallest trained value of each link coordinate.
        high_K: Largest trained value of each link coordinate.
        output_mean: Mean log PPL of the training rows.
        output_std: Standard deviation of log PPL of the training rows.
        codecs: How many codecs there are.
    """

    split_points: tuple[int, int]
    low_K: FloatArray
    high_K: FloatArray
    output_mean: float
    output_std: float
    codecs: int = 1

    def inputs(
        self, split_points_N: IntArray, link_states_NK: FloatArray, codecs_N: IntArray
    ) -> Float32Array:
        """Return the (N, I) inputs; beyond the trained range plus a margin they stay constant."""
        first, last = self.split_points
        coordinates, codecs = len(self.low_K), self.codecs if self.codecs > 1 else 0
        inputs_NI = np.zeros((len(split_points_N), 1 + coordinates + codecs), dtype=np.float32)
        inputs_NI[:, 0] = 2 * (split_points_N - first) / max(last - first, 1) - 1
        width_K = np.where(self.high_K > self.low_K, self.high_K - self.low_K, 1.0)
        scaled_NK = 2 * (link_states_NK - self.low_K) / width_K - 1
        clipped_NK = np.clip(scaled_NK, -1 - 2 * _MARGIN, 1 + 2 * _MARGIN)
        inputs_NI[:, 1 : 1 + coordinates] = clipped_NK
        if codecs:
            inputs_NI[np.arange(len(codecs_N)), 1 + coordinates + codecs_N] = 1
        return inputs_NI


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """The members' parameters, float32."""

    first_MIH: Float32Array
    first_bias_M1H: Float32Array
    departure_MPH: Float32Array
    second_MHH: Float32Array
    second_bias_M1H: Float32Array
    last_MH1: Float32Array
    last_bias_M11: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surrogate:
    """Log PPL as a function of (split point, link state, codec), learned from measurements.

    Attributes:
        link_names: The link coordinates expected, in column order.
        clean_log_ppl: The whole model's measured log PPL over a perfect link.
        scaling: From rows to network inputs and back.
        weights: The ensemble.
        codecs: Names of the codecs, in the order of their indices.
    """

    link_names: tuple[str, ...]
    clean_log_ppl: float
    scaling: Scaling
    weights: Weights
    codecs: tuple[str, ...] = ("identity",)

    def predict_log_ppl(
        self,
        split_points_N: IntArray,
        link_states_NK: FloatArray,
        codecs_N: IntArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the ensemble's mean log PPL (N,) and the spread of its members (N,).

        `codecs_N` are indices into `codecs`; None asks for the first of them everywhere.

        The spread (a standard deviation over members) shows where the members disagree; it is no
        calibrated error bar. Link states beyond the trained range (plus 5 % of it) are treated as
        its border.

        Raises:
            UserError: If a split point is not among those that are answered for.
        """
        rows = len(split_points_N)
        if codecs_N is None:
            codecs_N = np.zeros(rows, dtype=np.int64)
        mean_N, spread_N = np.empty(rows), np.empty(rows)
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            members_MN = self.predict_members(
                split_points_N[part], link_states_NK[part], codecs_N[part]
            )
            mean_N[part] = members_MN.mean(axis=0)
            spread_N[part] = members_MN.std(axis=0)
        return mean_N, spread_N

    def predict_members(
        self, split_points_N: IntArray, link_states_NK: FloatArray, codecs_N: IntArray
    ) -> FloatArray:
        """Return each member's log PPL (M, N); raises as `predict_log_ppl`."""
        first, last = self.scaling.split_points
        if len(split_points_N) and not (
            first <= split_points_N.min() and split_points_N.max() <= last
        ):
            raise UserError(
                f"split point outside {first}..{last}, the range that the surrogate was fitted on; "
                "measure the missing split points and fit again"
            )
        weights, scaling = self.weights, self.scaling
        inputs_NI = scaling.inputs(split_points_N, link_states_NK, codecs_N)
        hidden_MNH = inputs_NI @ weights.first_MIH + weights.first_bias_M1H
        hidden_MNH += weights.departure_MPH[:, split_points_N - first]
        hidden_MNH = _silu(_silu(hidden_MNH) @ weights.second_MHH + weights.second_bias_M1H)
        outputs_MN1 = hidden_MNH @ weights.last_MH1 + weights.last_bias_M11
        outputs_MN = outputs_MN1[..., 0].astype(np.float64)
        return outputs_MN * scaling.output_std + scaling.output_mean

    def save(self, folder: Path) -> None:
        """Write the weights, then the description that carries their SHA-256."""
        folder.mkdir(parents=True, exist_ok=True)
        content = save_safetensors({f.name: getattr(self.weights, f.name) for f in fields(Weights)})
        write_atomically(folder / WEIGHTS_FILE, content)
        # One codec alone is no input: then nothing differs from a surrogate that knows of none.
        codecs = {"codecs": self.codecs} if self.codecs != ("identity",) else {}
        description = {
            "link_coordinates": self.link_names,
            **codecs,
            "clean_log_ppl": self.clean_log_ppl,
            "split_points": self.scaling.split_points,
            "low": self.scaling.low_K.tolist(),
            "high": self.scaling.high_K.tolist(),
            "output_mean": self.scaling.output_mean,
            "output_std": self.scaling.output_std,
            "weights_sha256": hashlib.sha256(content).hexdigest(),
        }
        write_sealed(folder / DESCRIPTION_FILE, description)

    @staticmethod
    def load(folder: Path) -> Surrogate:
        """Read a surrogate that `save` wrote.

        Raises:
            UserError: If a file is missing, damaged or does not belong to the other.
        """
        try:
            description = read_sealed(folder / DESCRIPTION_FILE, "fit the surrogate again")
            content = (folder / WEIGHTS_FILE).read_bytes()
            if hashlib.sha256(content).hexdigest() != description["weights_sha256"]:
                raise UserError(
                    f"{folder / WEIGHTS_FILE}: its SHA-256 is not the one in {DESCRIPTION_FILE}; "
                    "fit the surrogate again"
                )
            tensors = load_safetensors(content)
            codecs: tuple[str, ...] = tuple(description.get("codecs", ("identity",)))
            return Surrogate(
                link_names=tuple(description["link_coordinates"]),
                clean_log_ppl=description["clean_log_ppl"],
                scaling=Scaling(
                    split_points=(description["split_points"][0], description["split_points"][1]),
                    low_K=np.array(description["low"], dtype=np.float64),
                    high_K=np.array(description["high"], dtype=np.float64),
                    output_mean=description["output_mean"],
                    output_std=description["output_std"],
                    codecs=len(codecs),
                ),
                codecs=codecs,
                weights=Weights(**{f.name: tensors[f.name] for f in fields(Weights)}),
            )
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError(
                f"{folder}: no complete surrogate there ({error!r}); fit it again"
            ) from error


def _silu(values: Float32Array) -> Float32Array:
    # x * sigmoid(x) by way of tanh, which cannot overflow.
    half: Float32Array = np.multiply(values, 0.5, dtype=np.float32)
    return half * np.tanh(half) + half
