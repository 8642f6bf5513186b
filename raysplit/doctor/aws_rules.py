"""What an AWS cluster rents: instance types, markets, images of machines, disks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysplit.base.errors import suggest
from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.ec2_keys import NODE_CONFIG, key_findings
from raysplit.doctor.instances import gpu_count, instance_types, is_arm, virtual_cpus
from raysplit.doctor.yaml_file import Section, node_types, section, sections

_IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})|resolve:ssm:\S+")
_LEAST_DISK_GB = 100


def instance_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of the node types: what is rented, on which market, with which resources."""
    head = config.get("head_node_type")
    if not node_types(config):
        yield error(
            "available_node_types is missing: Ray would rent its own m5.large machines",
            "name a head and worker types as in the shipped file",
        )
    for name, node_type in node_types(config).items():
        yield from _node_config(name, section(node_type, "node_config"))
        yield from _resources(name, node_type)
        yield from _market(name, section(node_type, "node_config"), is_head=name == head)


def _node_config(name: str, node_config: Section) -> Iterator[Finding]:
    yield from key_findings(node_config, NODE_CONFIG, f"{name}: node_config")
    if "LaunchTemplate" in node_config:
        return
    instance_type = str(node_config.get("InstanceType", ""))
    if instance_type not in instance_types():
        yield error(
            f"{name}: no EC2 InstanceType '{instance_type}'{_nearest(instance_type)}",
            f"correct it; `aws ec2 describe-instance-types --instance-types {instance_type or 'X'}`"
            " knows newer ones",
        )
    yield from _machine_image(name, node_config)
    yield from _disk(name, node_config)


def _nearest(instance_type: str) -> str:
    """Suggest a type of the same family first: sizes are mistyped more often than families."""
    family = instance_type.partition(".")[0]
    same_family = [known for known in instance_types() if known.startswith(f"{family}.")]
    return suggest(instance_type, same_family or instance_types())


def _machine_image(name: str, node_config: Section) -> Iterator[Finding]:
    image = str(node_config.get("ImageId", ""))
    if not image or image == "latest_dlami":
        yield warning(
            f"{name}: without ImageId Ray takes Ubuntu 18.04 with a CUDA 11 driver",
            "write the ImageId of the shipped file",
        )
    elif not _IMAGE_ID.fullmatch(image):
        yield error(
            f"{name}: '{image}' is no ImageId", "write ami-... or resolve:ssm:/aws/service/..."
        )
    yield from _machine_processor(name, image, str(node_config.get("InstanceType", "")))


def _machine_processor(name: str, image: str, instance_type: str) -> Iterator[Finding]:
    here, other = ("arm64", "x86_64") if is_arm(instance_type) else ("x86_64", "arm64")
    if other in image and instance_type in instance_types():
        yield error(
            f"{name}: the ImageId is for {other}, a {instance_type} is {here}",
            f"write {here} instead of {other} there, or another InstanceType",
        )


def _resources(name: str, node_type: Section) -> Iterator[Finding]:
    instance_type = str(section(node_type, "node_config").get("InstanceType", ""))
    resources = section(node_type, "resources")
    for key, real in (("GPU", gpu_count(instance_type)), ("CPU", virtual_cpus(instance_type))):
        said = resources.get(key)
        if not isinstance(said, int) or real is None or instance_type not in instance_types():
            continue
        # Fewer CPUs than there are is a choice (some are kept free); other GPUs are a mistake.
        if said > real or (key == "GPU" and said != real):
            yield error(
                f"{name}: resources say {key}: {said}, a {instance_type} has {real}",
                f"write {key}: {real}, or resources: {{}} to let Ray look it up",
            )


def _market(name: str, node_config: Section, *, is_head: bool) -> Iterator[Finding]:
    options = section(node_config, "InstanceMarketOptions")
    market = options.get("MarketType")
    if options and options.keys() <= {"SpotOptions"}:
        yield error(f"{name}: InstanceMarketOptions has no MarketType", "add MarketType: spot")
    elif (not options or market == "on-demand") and not is_head:
        if gpu_count(str(node_config.get("InstanceType", ""))):
            yield warning(
                f"{name}: GPU workers on demand cost a multiple of spot",
                "add InstanceMarketOptions: {MarketType: spot}; a lost worker loses no setting",
            )
    elif market == "spot" and is_head:
        yield error(
            f"{name}: the head is on spot: when AWS takes it back, the cluster is gone",
            "remove InstanceMarketOptions from the head's node_config",
        )


def _disk(name: str, node_config: Section) -> Iterator[Finding]:
    sizes_gb = [
        section(mapping, "Ebs").get("VolumeSize")
        for mapping in sections(node_config, "BlockDeviceMappings")
    ]
    if not any(isinstance(size, int) and size >= _LEAST_DISK_GB for size in sizes_gb):
        yield warning(
            f"{name}: no disk of {_LEAST_DISK_GB} GB: image, CUDA libraries and one model fill it",
            "write BlockDeviceMappings as in the shipped file",
        )
