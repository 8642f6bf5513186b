"""A trained policy as plain NumPy: safetensors + JSON on disk, no Ray and no torch to run it.

    policy = ExportedPolicy.load("agents/ppo-0/policy")
    action = policy((0.8,), 3)          # noise_std 0.8, 3 layers on the device
    split_point = 3 + action - 1        # actions 0, 1, 2 move the split point by -1, 0, +1

What the actions of other problems do says `envs/actions.py`.

Shape suffixes: N settings, K link coordinates, A actions, I inputs (link state, split point, maybe
codec, maybe step).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raysplit.base.arrays import Float32Array, IntArray
from raysplit.base.errors import UserError
from raysplit.base.files import write_atomically
from raysplit.base.sealed_json import read_sealed, write_sealed

if TYPE_CHECKING:  # a policy runs where the environments are not loaded
    from envs.params import LayerSplitParams
    from envs.policies import Policy

FORMAT = 3
WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDescription:
    """What the weights mean.

    Attributes:
        link_names: The link coordinates, in the order of the inputs.
        min_split_point: Fewest layers on the device.
        max_split_point: Most layers on the device.
        sees_step: Whether the last input is the number of steps taken in the episode.
        activation: Between the layers.
        trained_by: Algorithm, preset, seed and steps, for people.
        actions: What the outputs mean (`envs.actions`).
        codecs: The codecs that it chooses among; with several, their index is an input.
    """

    link_names: tuple[str, ...]
    min_split_point: int
    max_split_point: int
    sees_step: bool
    activation: Literal["tanh", "relu"]
    trained_by: str
    actions: str = "split"
    codecs: tuple[str, ...] = ("identity",)

    @property
    def chooses_codec(self) -> bool:
        """Whether the codec is an input."""
        return len(self.codecs) > 1


class ExportedPolicy:
    """Chooses the action with the highest output of a small network.

    One call reuses its buffers, so an instance serves one thread.
    """

    def __init__(
        self,
        description: PolicyDescription,
        layers: Sequence[tuple[Float32Array, Float32Array]],
        centre_I: Float32Array,
        half_range_I: Float32Array,
    ) -> None:
        """Take (weight, bias) of each layer, weight of shape (outputs, inputs), and the scaling."""
        self.description = description
        self.layers = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in layers]
        self.centre_I = np.asarray(centre_I, np.float32)
        self.half_range_I = np.asarray(half_range_I, np.float32)
        self._activate = _ACTIVATIONS[description.activation]
        self._prepare()

    def _prepare(self) -> None:
        """Keep what a single call reads and writes."""
        self._buffered = [
            (np.ascontiguousarray(weight), bias, np.empty_like(bias))
            for weight, bias in self.layers
        ]
        self._input_I = np.zeros(len(self.centre_I), np.float32)
        self._scaled_I = np.empty_like(self._input_I)
        self._links = len(self.description.link_names)
        self._first = self.description.min_split_point
        self._last = self.description.max_split_point
        self._chooses_codec = self.description.chooses_codec

    def __call__(
        self, link_state: Sequence[float], split_point: int, step: int = 0, codec: int = 0
    ) -> int:
        """Return the action for one setting, by default 0, 1, 2: the split point by -1, 0, +1.

        Args:
            link_state: Link coordinates in the order of `description.link_names`, in their units.
            split_point: Layers on the device now.
            step: Steps taken since the episode began; read only where `description.sees_step`.
            codec: Index of the present codec in `description.codecs`; read only where there are
                several.

        Raises:
            UserError: If the link state has another length, a value is NaN or infinite, or the
                split point or the codec is not one of those trained on.
        """
        input_I, links = self._input_I, self._links
        try:
            known = len(link_state) == links and all(map(math.isfinite, link_state))
            known = known and self._first <= split_point <= self._last
            known = known and 0 <= codec < len(self.description.codecs)
        except TypeError:  # a number, or rows of them
            known = False
        if not known:
            raise self._unknown(f"link state {link_state} at split point {split_point}")
        input_I[:links] = link_state
        input_I[links] = split_point
        if self._chooses_codec:
            input_I[links + 1] = codec
        if self.description.sees_step:
            input_I[-1] = step
        hidden = self._scaled(input_I, self._scaled_I)
        for weight, bias, out in self._buffered[:-1]:
            np.dot(weight, hidden, out=out)
            out += bias
            hidden = self._activate(out, out=out)
        weight, bias, out = self._buffered[-1]
        np.dot(weight, hidden, out=out)
        out += bias
        return int(out.argmax())

    def actions(
        self,
        split_points_N: ArrayLike,
        link_states_NK: ArrayLike,
        steps_N: ArrayLike,
        /,
        *codecs_N: ArrayLike,
    ) -> IntArray:
        """Return the actions for N settings, as the oracle asks its policies.

        Raises:
            UserError: If the link states are not K columns, a value is NaN or infinite, or a split
                point is not one of the policy's; or codecs are missing, or given for nothing.
        """
        links_NK, points_N = np.asarray(link_states_NK), np.asarray(split_points_N)
        if (
            links_NK.ndim != 2
            or links_NK.shape[1] != self._links
            or not np.isfinite(links_NK).all()
        ):
            raise self._unknown(f"an array of link states of shape {links_NK.shape}")
        if points_N.shape != links_NK.shape[:1]:
            raise self._unknown(f"{points_N.size} split points for {len(links_NK)} link states")
        outside_N = ~((points_N >= self._first) & (points_N <= self._last))
        if outside_N.any():
            raise self._unknown(f"split point {points_N[outside_N][0]}")
        if len(codecs_N) != self._chooses_codec:
            raise self._unknown(f"{len(codecs_N)} column(s) of codecs")
        columns = [links_NK, points_N[:, None], *(np.asarray(x)[:, None] for x in codecs_N)]
        if self.description.sees_step:
            columns.append(np.asarray(steps_N)[:, None])
        return self.outputs(np.hstack(columns).astype(np.float32)).argmax(1)

    def for_problem(self, params: LayerSplitParams) -> Policy:
        """Return the policy as an oracle or an episode of a problem asks it.

        Raises:
            UserError: If it was trained on other link coordinates, or on the same in another order,
                or for other actions.
        """
        names = self.description.link_names
        own = params.link_names if params.contexts else params.link_names + _family_of(params)
        if names != own:
            raise UserError(
                f"this policy was trained on the link coordinates {', '.join(names)} and the "
                f"problem has {', '.join(own)}: list them alike, or train again"
            )
        trained, asked = (
            (self.description.actions, self.description.codecs),
            (
                params.actions,
                params.codecs if params.chooses_codec else self.description.codecs,
            ),
        )
        if trained != asked:
            raise UserError(
                f"this policy was trained for actions: {trained[0]} over {', '.join(trained[1])} "
                f"and the problem has actions: {asked[0]} over {', '.join(asked[1])}: train again"
            )
        if not params.family or params.contexts:
            return self.actions
        from envs.family import InContext, own_values

        return InContext(self.actions, np.array(list(own_values(params).values())))

    def _unknown(self, what: str) -> UserError:
        names = ", ".join(self.description.link_names)
        return UserError(
            f"{what} is not what this policy was trained on: a finite value for each of {names}, "
            f"and split points {self._first}..{self._last}"
        )

    def outputs(self, inputs_NI: Float32Array) -> Float32Array:
        """Return the network's outputs for raw inputs, shape (N, A)."""
        hidden = self._scaled(inputs_NI)
        for weight, bias in self.layers[:-1]:
            hidden = self._activate(hidden @ weight.T + bias)
        weight, bias = self.layers[-1]
        return hidden @ weight.T + bias

    def _scaled(self, inputs: Float32Array, out: Float32Array | None = None) -> Float32Array:
        """Scale as training does (`tuning.rllib.features`).

        Folded into the first layer, two large numbers would cancel where a range is narrow for
        its distance from 0.
        """
        scaled = np.subtract(inputs, self.centre_I, out=out)
        return np.divide(scaled, self.half_range_I, out=scaled)

    def save(self, folder: Path) -> None:
        """Write the weights, then the description that holds their checksum."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"centre": self.centre_I, "half_range": self.half_range_I}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
        content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        write_atomically(folder / WEIGHTS_FILE, content)
        description = {
            "format": FORMAT,
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            **asdict(self.description),
        }
        write_sealed(folder / DESCRIPTION_FILE, description)

    @classmethod
    def load(cls, folder: str | Path) -> ExportedPolicy:
        """Read a saved policy.

        Raises:
            UserError: A file is missing, or differs from what was saved.
        """
        folder = Path(folder)
        try:
            content = (folder / WEIGHTS_FILE).read_bytes()
            description = read_sealed(folder / DESCRIPTION_FILE, "export the policy again")
            if description.pop("weights_sha256") != hashlib.sha256(content).hexdigest():
                raise UserError(
                    f"{folder / WEIGHTS_FILE} was changed after it was saved; export it again"
                )
            if description.pop("format") != FORMAT:
                raise UserError(f"{folder} holds a policy of another format; export it again")
            for name in ("link_names", "codecs"):
                description[name] = tuple(description[name])
            tensors = load(content)
            count = sum(name.endswith(".weight") for name in tensors)
            layers = [
                (tensors[f"layers.{n}.weight"], tensors[f"layers.{n}.bias"]) for n in range(count)
            ]
            return cls(
                PolicyDescription(**description), layers, tensors["centre"], tensors["half_range"]
            )
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder} holds no complete policy ({error}); export it again"
            ) from error


def _family_of(params: LayerSplitParams) -> tuple[str, ...]:
    return tuple(one.name for one in params.family)


def _relu(x: Float32Array, out: Float32Array | None = None) -> Float32Array:
    return np.maximum(x, 0, out=out)


_ACTIVATIONS = {"tanh": np.tanh, "relu": _relu}
