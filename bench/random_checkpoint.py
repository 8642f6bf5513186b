"""Write a sharded safetensors checkpoint of a real shape with random values, tensor by tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers import AutoModelForCausalLM

from raysplit.model.zoo import Shape, config_of

_SHARD_BYTES = 4 * 10**9
_PATTERN_ELEMENTS = 1 << 24


def write_random_checkpoint(
    shape: Shape, folder: Path, *, hidden_size: int | None = None, shard_bytes: int = _SHARD_BYTES
) -> int:
    """Write the checkpoint in bfloat16 and return the bytes of its tensors.

    Values are normal with a standard deviation of 0.02, drawn once and repeated; the norms' are 1.
    Memory never holds more than that one draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(shape, hidden_size=hidden_size)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    shards = list(_shards(shapes, shard_bytes))
    pattern = _random_bytes()
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file_name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(names, file_name)
        with (folder / file_name).open("wb") as file:
            _write_shard(file, {name: shapes[name] for name in names}, pattern)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(2 * math.prod(s) for s in shapes.values())


def _shards(shapes: dict[str, tuple[int, ...]], shard_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if names and size + 2 * math.prod(shape) > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * math.prod(shape)
    yield names


def _random_bytes() -> memoryview:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(_PATTERN_ELEMENTS, generator=generator) * 0.02
    return memoryview(values.bfloat16().view(torch.uint8).numpy())


def _write_shard(file: BinaryIO, shapes: dict[str, tuple[int, ...]], pattern: memoryview) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    one = torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    for name, shape in shapes.items():
        left = 2 * math.prod(shape)
        if "norm" in name:
            file.write(one * (left // 2))
            continue
        while left:
            left -= file.write(pattern[:left])
