"""EC2 instance types: which exist, their GPUs, virtual CPUs and processors."""

from __future__ import annotations

import functools
import re
from importlib import resources

# NVIDIA GPUs by family and size; "" holds for the sizes not named.
_GPUS: dict[str, dict[str, int]] = {
    "g4dn": {"": 1, "12xlarge": 4, "metal": 8},
    "g5": {"": 1, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6": {"": 1, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6e": {"": 1, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g7e": {"": 1, "12xlarge": 2, "24xlarge": 4, "48xlarge": 8},
    "gr6": {"": 1},
    "p3": {"": 1, "8xlarge": 4, "16xlarge": 8},
    "p3dn": {"": 8},
    "p4d": {"": 8},
    "p4de": {"": 8},
    "p5": {"": 8, "4xlarge": 1},
    "p5e": {"": 8},
    "p5en": {"": 8},
    "p6-b200": {"": 8},
    "p6-b300": {"": 8},
}
# Accelerated families whose count is not in the table: nothing is claimed about them.
_OTHER_ACCELERATED = re.compile(r"(g|p|cg|dl|inf|trn|vt|f)\d")
# Graviton: a "g" after the generation (m7g, c6gn, im4gn), the first of its kind, and Grace.
_ARM = re.compile(r"a1|[a-z]+\d+g[a-z]*|p6e-gb200")


@functools.cache
def instance_types() -> frozenset[str]:
    """Return every EC2 instance type of the shipped list, e.g. "g5.xlarge"."""
    text = resources.files("raysplit.doctor").joinpath("ec2_instance_types.txt").read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return frozenset(f"{family}.{size}" for family, *sizes in rows for size in sizes)


def gpu_count(instance_type: str) -> int | None:
    """Return the number of NVIDIA GPUs, or None where it is not known."""
    family, _, size = instance_type.partition(".")
    if family in _GPUS:
        return _GPUS[family].get(size, _GPUS[family][""])
    return None if _OTHER_ACCELERATED.match(family) else 0


def virtual_cpus(instance_type: str) -> int | None:
    """Return the number of virtual CPUs by EC2's naming (4 an "xlarge"), or None."""
    match = re.search(r"\.(\d*)xlarge$", instance_type)
    return 4 * int(match[1] or 1) if match else None


def is_arm(instance_type: str) -> bool:
    """Return whether it has an ARM processor, which runs other images than x86."""
    return bool(_ARM.fullmatch(instance_type.partition(".")[0]))
