"""What EC2 takes and has: the parameters of its calls, instance types, regions (from botocore).

botocore is optional: without it nothing is said about names, and the rows tell so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from raysplit.doctor.check import Check, warning
from raysplit.doctor.schema_rules import schema_findings

# What Ray fills in by itself, and what AWS keeps for itself or has closed.
_NOT_FOR_FILES = {
    "AdditionalInfo", "ClientToken", "DryRun", "ElasticGpuSpecification",
    "ElasticInferenceAccelerators", "MaxCount", "MinCount", "Operator",
}  # fmt: skip
# NVIDIA GPUs by family and size; "" holds for the sizes not named.
_TENSOR_CORE = {"": 1, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_GPUS: dict[str, dict[str, int]] = {
    "g4dn": {"": 1, "12xlarge": 4, "metal": 8},
    **dict.fromkeys(("g5", "g6", "g6e"), _TENSOR_CORE),
    "g7e": _TENSOR_CORE | {"12xlarge": 2},
    "gr6": {"": 1},
    "p3": {"": 1, "8xlarge": 4, "16xlarge": 8},
    "p5": {"": 8, "4xlarge": 1},
    **{family: {"": 8} for family in ("p3dn", "p4d", "p4de", "p5e", "p5en", "p6-b200", "p6-b300")},
}
# Accelerated families whose count is not in the table: nothing is claimed about them.
_OTHER_ACCELERATED = re.compile(r"(g|p|cg|dl|inf|trn|vt|f)\d")
# Graviton: a "g" after the generation (m7g, c6gn, im4gn), the first of its kind, and Grace.
_ARM = re.compile(r"a1|[a-z]+\d+g[a-z]*|p6e-gb200")


@functools.cache
def _loader() -> Any:  # noqa: ANN401  botocore has no types
    """Return what reads botocore's data, or None where botocore is missing."""
    try:
        return import_module("botocore.loaders").Loader()  # a session would read the AWS profile
    except ImportError:
        return None


@functools.cache
def _shapes() -> dict[str, dict[str, Any]]:
    return _loader().load_service_model("ec2", "service-2")["shapes"] if _loader() else {}


def _schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a shape of EC2's API; without botocore one that lets all pass."""
    shape = _shapes().get(name, {})
    kind = shape.get("type")
    if kind == "structure":
        keys = {key: _schema(member["shape"]) for key, member in shape["members"].items()}
        return {"type": "object", "properties": keys, "additionalProperties": False}
    if kind == "list":
        return {"type": "array", "items": _schema(shape["member"]["shape"])}
    known = {"type": kind} if kind in ("string", "integer", "boolean") else {}
    return known | ({"enum": shape["enum"]} if "enum" in shape else {})


def unchecked(what: str) -> Iterator[Check]:
    """Yield that `what` is not checked, where botocore is missing."""
    if _loader() is None:
        yield warning(f"{what} not checked: no botocore", "pip install 'raysplit[aws]'")


def node_config_findings(node_config: object) -> Iterator[Check]:
    """Yield what EC2's RunInstances would refuse, except the InstanceType."""
    schema = _schema("RunInstancesRequest")
    keys = {n: s for n, s in schema.get("properties", {}).items() if n not in _NOT_FOR_FILES}
    # Ray's own list of subnets to choose from; and types have a finding of their own.
    keys |= {"SubnetIds": _schema("SubnetIdStringList"), "InstanceType": _schema("String")}
    yield from schema_findings(node_config, schema | {"properties": keys}, "node_config")


def permission_findings(permissions: object) -> Iterator[Check]:
    """Yield what EC2's AuthorizeSecurityGroupIngress would refuse."""
    place = "security_group.IpPermissions"
    yield from schema_findings(permissions, _schema("IpPermissionList"), place)


def instance_types() -> frozenset[str]:
    """Return every InstanceType, e.g. "g5.xlarge"; none without botocore."""
    return frozenset(_shapes().get("InstanceType", {}).get("enum", ()))


def regions() -> frozenset[str]:
    """Return every AWS region, e.g. "us-west-2"; none without botocore."""
    partitions = _loader().load_data("endpoints")["partitions"] if _loader() else ()
    return frozenset(region for partition in partitions for region in partition["regions"])


def may_exist(instance_type: str) -> bool:
    """Return whether there is such an InstanceType, as far as is known."""
    return instance_type in instance_types() or not instance_types()


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
