"""What only AWS clusters can get wrong: instance types, markets, images of machines, open ports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.instances import gpu_count, instance_types, virtual_cpus
from raysplit.doctor.yaml_file import Section, node_types, section, sections
from raysplit.errors import suggest

_PROVIDER_KEYS = {
    "type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips",
    "security_group", "key_pair", "aws_credentials", "cloudwatch", "disable_node_updaters",
    "disable_launch_config_check", "foreground_node_launch", "worker_liveness_check",
}  # fmt: skip
# The arguments of EC2's RunInstances, and two lists that Ray resolves into them.
_NODE_CONFIG_KEYS = {
    "BlockDeviceMappings", "CapacityReservationSpecification", "CpuOptions", "CreditSpecification",
    "DisableApiStop", "DisableApiTermination", "EbsOptimized", "EnablePrimaryIpv6",
    "EnclaveOptions", "HibernationOptions", "IamInstanceProfile", "ImageId",
    "InstanceInitiatedShutdownBehavior", "InstanceMarketOptions", "InstanceType",
    "Ipv6AddressCount", "Ipv6Addresses", "KeyName", "LaunchTemplate", "LicenseSpecifications",
    "MaintenanceOptions", "MetadataOptions", "Monitoring", "NetworkInterfaces",
    "NetworkPerformanceOptions", "Placement", "PrivateDnsNameOptions", "PrivateIpAddress",
    "SecurityGroupIds", "SecurityGroups", "SubnetId", "SubnetIds", "TagSpecifications", "UserData",
}  # fmt: skip
_IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})|resolve:ssm:\S+")
_ANYWHERE = {"0.0.0.0/0", "::/0"}
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
    for key in node_config:
        if key not in _NODE_CONFIG_KEYS:
            yield error(
                f"{name}: node_config has the unknown key '{key}'{suggest(key, _NODE_CONFIG_KEYS)}",
                "correct it; EC2's RunInstances lists them",
            )
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
    if "InstanceMarketOptions" not in node_config:
        if not is_head and gpu_count(str(node_config.get("InstanceType", ""))):
            yield warning(
                f"{name}: GPU workers on demand cost a multiple of spot",
                "add InstanceMarketOptions: {MarketType: spot}; a lost worker loses no setting",
            )
        return
    if is_head:
        yield error(
            f"{name}: the head is on spot: when AWS takes it back, the cluster is gone",
            "remove InstanceMarketOptions from the head's node_config",
        )
    market = section(node_config, "InstanceMarketOptions").get("MarketType")
    if market not in ("spot", "capacity-block"):
        yield error(f"{name}: MarketType '{market}' does not exist", "write MarketType: spot")


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


def provider_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of region, zones, security group and ssh key."""
    provider = section(config, "provider")
    for key in provider:
        if key not in _PROVIDER_KEYS:
            yield error(
                f"provider has the unknown key '{key}'{suggest(key, _PROVIDER_KEYS)}",
                "correct or remove it; Ray ignores it silently",
            )
    region = str(provider.get("region", ""))
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        yield error(f"provider.region '{region}' is no AWS region", "write one, e.g. us-west-2")
    for zone in str(provider.get("availability_zone", region)).split(","):
        if not zone.strip().startswith(region):
            yield error(f"zone {zone.strip()} is not in {region}", "write zones of that region")
    yield from _open_ports(provider)
    yield from _key_name(config)


def _open_ports(provider: Section) -> Iterator[Finding]:
    for rule in sections(section(provider, "security_group"), "IpPermissions"):
        sources = {entry.get("CidrIp") for entry in sections(rule, "IpRanges")}
        sources |= {entry.get("CidrIpv6") for entry in sections(rule, "Ipv6Ranges")}
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if _ANYWHERE & sources and ports != (22, 22):
            yield error(
                f"the security group opens ports {ports[0]}-{ports[1]} to the whole internet",
                "remove the rule: ssh (port 22) carries everything, see docs/cluster.md",
            )


def _key_name(config: Section) -> Iterator[Finding]:
    if "ssh_private_key" not in section(config, "auth"):
        return
    for name, node_type in node_types(config).items():
        if "KeyName" not in section(node_type, "node_config"):
            yield error(
                f"{name}: auth names an ssh_private_key, but node_config has no KeyName",
                "add the KeyName of that key pair, or let Ray make one (remove ssh_private_key)",
            )
