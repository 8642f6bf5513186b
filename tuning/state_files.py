"""An algorithm's state as JSON and safetensors: loading it runs nothing, whoever wrote it.

RLlib hands its state out as nested dicts and lists of plain values and NumPy arrays, and pickles
them; who loads a pickle runs what its writer chose. Here `state.json` holds the tree and
`state.safetensors` the arrays, which the tree names by number. What JSON lacks is an object with
one key that begins with "$".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raysplit.base.files import write_atomically

_TREE, _ARRAYS = "state.json", "state.safetensors"


def save_state(folder: Path, state: dict[Any, Any]) -> None:
    """Write a state of plain values and NumPy arrays.

    Args:
        folder: Where; it exists.
        state: Dicts (keys are texts or whole numbers), lists, tuples, numbers, texts, None, arrays.

    Raises:
        TypeError: It holds something else, which only a pickle could keep.
        UserError: The disk is full or the folder cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = json.dumps(_encoded(state, arrays), allow_nan=False)
    write_atomically(folder / _ARRAYS, save(arrays))
    write_atomically(folder / _TREE, tree)


def load_state(folder: Path) -> dict[Any, Any]:
    """Return the state that `save_state` wrote.

    Raises:
        ValueError: The files are none of a state.
        OSError: They cannot be read.
    """
    try:
        arrays = load((folder / _ARRAYS).read_bytes())
        state = _decoded(json.loads((folder / _TREE).read_bytes()), arrays)
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{_TREE} holds {type(state).__name__} and not an object")
    return cast(dict[Any, Any], state)


def _encoded(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        case np.generic():
            return _encoded(value.item(), arrays)
        case np.ndarray() if value.dtype.kind in "biuf":
            name = str(len(arrays))
            arrays[name] = np.array(value, order="C")  # safetensors writes memory as it lies
            return {"$array": name}
        case list():
            return [_encoded(item, arrays) for item in cast(list[Any], value)]
        case tuple():
            items = cast(tuple[Any, ...], value)
            return {"$tuple": [_encoded(item, arrays) for item in items]}
        case dict():
            return _encoded_dict(cast(dict[Any, Any], value), arrays)
        case _:
            raise TypeError(f"a state cannot hold {type(value).__name__}: {value!r:.80}")


def _encoded_dict(value: dict[Any, Any], arrays: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401
    items = [(key, _encoded(item, arrays)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
        return dict(items)
    if not all(isinstance(key, str | int) for key, _ in items):
        raise TypeError(f"a state's keys are texts or whole numbers, not {list(value)!r:.80}")
    return {"$dict": [list(item) for item in items]}


def _decoded(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - any value
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    content = cast(dict[str, Any], value)
    tag = next(iter(content), "")
    if len(content) == 1 and tag in _BY_TAG:
        return _BY_TAG[tag](content[tag], arrays)
    return {key: _decoded(item, arrays) for key, item in content.items()}


_BY_TAG: dict[str, Callable[[Any, dict[str, NDArray[Any]]], Any]] = {
    "$float": lambda text, _: float(text),
    "$array": lambda name, arrays: arrays[name],
    "$tuple": lambda items, arrays: tuple(_decoded(item, arrays) for item in items),
    "$dict": lambda items, arrays: {key: _decoded(item, arrays) for key, item in items},
}
