"""What an AWS cluster rents and opens: machines, markets, disks; region, zones, ports, ssh key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from raysplit.base.errors import suggest
from raysplit.doctor import ec2
from raysplit.doctor.check import Check, about, error, warning
from raysplit.doctor.cluster_yaml import ClusterFile, Node, Section, part, sections
from raysplit.doctor.machine_image import image_id, machine_image_findings
from raysplit.doctor.schema_rules import unknown_keys

_IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})|resolve:ssm:\S+")
_LEAST_DISK_GB = 100
_PROVIDER_KEYS = {
    "type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips",
    "security_group", "key_pair", "aws_credentials", "cloudwatch", "disable_node_updaters",
    "disable_launch_config_check", "foreground_node_launch", "worker_liveness_check",
}  # fmt: skip
# A zone is a letter; a local or wavelength zone is named after its city: us-west-2-lax-1a.
_ZONE = re.compile(r"[a-f]|(-[a-z0-9]+)+-\d[a-z]|-wl\d-[a-z0-9-]+-\d")
_PRIVATE = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
    "169.254.0.0/16", "fc00::/7", "fe80::/10",
)  # fmt: skip
_OFFICE_PREFIX = {4: 16, 6: 32}  # a longer one may be one's own net; a shorter one is the internet
_PING = {"icmp", "icmpv6", "1", "58"}


def instance_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of the node types: what is rented, on which market, with which resources."""
    yield from ec2.unchecked("node_config and its InstanceType")
    if not file.nodes:
        fault = "available_node_types is missing: Ray would rent its own m5.large machines"
        yield error(fault, "name a head and worker types as in the shipped file")
    for node in file.nodes:
        for rules in (_machine, _resources, _market):
            yield from about(node.name, rules(node))
        yield from about(node.name, machine_image_findings(file, node))


def _machine(node: Node) -> Iterator[Check]:
    yield from ec2.node_config_findings(node.ec2)
    if "LaunchTemplate" in node.ec2:  # which says the rest
        return
    machine, image = node.instance_type, image_id(node)
    if not machine or not ec2.may_exist(machine):
        # Sizes are mistyped more often than families, so the same family is looked at first.
        family = machine.partition(".")[0] + "."
        near = [known for known in ec2.instance_types() if known.startswith(family)]
        fault = f"no EC2 InstanceType '{machine}'{suggest(machine, near or ec2.instance_types())}"
        yield error(fault, "correct it; `aws ec2 describe-instance-types` knows newer ones")
    if image in ("", "latest_dlami"):
        yield warning("without ImageId Ray takes Ubuntu 18.04, CUDA 11", "see the shipped file")
    elif not _IMAGE_ID.fullmatch(image):
        yield error(f"'{image}' is no ImageId", "write ami-... or resolve:ssm:/aws/service/...")
    here, other = ("arm64", "x86_64") if ec2.is_arm(machine) else ("x86_64", "arm64")
    if other in image and ec2.may_exist(machine):
        fault = f"the ImageId is for {other}, a {machine} is {here}"
        yield error(fault, f"write {here} instead of {other} there, or another InstanceType")
    disks = [part(mapping, "Ebs", dict) for mapping in sections(node.ec2, "BlockDeviceMappings")]
    sizes_gb = [size for disk in disks if isinstance(size := disk.get("VolumeSize"), int)]
    if max(sizes_gb, default=0) < _LEAST_DISK_GB:
        fault = f"no disk of {_LEAST_DISK_GB} GB: image, CUDA libraries and one model fill it"
        yield warning(fault, "write BlockDeviceMappings as in the shipped file")


def _resources(node: Node) -> Iterator[Check]:
    machine = node.instance_type
    for key, real in (("GPU", ec2.gpu_count(machine)), ("CPU", ec2.virtual_cpus(machine))):
        said = node.resources.get(key)
        if not isinstance(said, int) or real is None or not ec2.may_exist(machine):
            continue
        # Fewer CPUs than there are is a choice (some are kept free); other GPUs are a mistake.
        if said > real or (key == "GPU" and said != real):
            fault = f"resources say {key}: {said}, a {machine} has {real}"
            yield error(fault, f"write {key}: {real}, or resources: {{}} to let Ray look it up")


def _market(node: Node) -> Iterator[Check]:
    options = part(node.ec2, "InstanceMarketOptions", dict)
    market = options.get("MarketType", "" if options else "on-demand")
    if options and options.keys() <= {"SpotOptions"}:
        yield error("InstanceMarketOptions has no MarketType", "add MarketType: spot")
    elif market == "spot" and node.is_head:
        fault = "the head is on spot: when AWS takes it back, the cluster is gone"
        yield error(fault, "remove InstanceMarketOptions from the head's node_config")
    elif market == "on-demand" and not node.is_head and ec2.gpu_count(node.instance_type):
        remedy = "add InstanceMarketOptions: {MarketType: spot}; a lost worker loses no setting"
        yield warning("GPU workers on demand cost a multiple of spot", remedy)


def provider_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of region, zones, security group and ssh key."""
    yield from ec2.unchecked("region and IpPermissions")
    yield from unknown_keys("provider", file.provider, _PROVIDER_KEYS)
    yield from _place(file.provider)
    group = part(file.provider, "security_group", dict)
    yield from ec2.permission_findings(group.get("IpPermissions", []))
    for rule in sections(group, "IpPermissions"):
        yield from about("security_group", _open_ports(rule))
    for node in file.nodes:
        if "ssh_private_key" in part(file.config, "auth", dict) and "KeyName" not in node.ec2:
            fault = f"{node.name}: auth names an ssh_private_key, but node_config has no KeyName"
            yield error(fault, "add its KeyName, or let Ray make one (remove ssh_private_key)")


def _place(provider: Section) -> Iterator[Check]:
    region = str(provider.get("region", ""))
    if ec2.regions() and region not in ec2.regions():
        fault = f"provider.region '{region}' is no AWS region{suggest(region, ec2.regions())}"
        yield error(fault, "write one, e.g. us-west-2; `aws ec2 describe-regions` knows newer ones")
        return
    zones = str(provider.get("availability_zone", f"{region}a")).split(",")
    for zone in map(str.strip, zones):
        if not (zone.startswith(region) and _ZONE.fullmatch(zone.removeprefix(region))):
            yield error(f"'{zone}' is no zone of {region}", f"write {region}a or the like")


def _open_ports(rule: Section) -> Iterator[Check]:
    """Yield nets to which a rule of the security group opens more than ssh and ping."""
    first, last = rule.get("FromPort"), rule.get("ToPort")
    opens = "opens all ports" if first is last is None else f"opens ports {first}-{last}"
    remedy = "remove the rule: ssh (port 22) carries everything, see docs/cluster.md"
    sources = [entry.get("CidrIp") for entry in sections(rule, "IpRanges")]
    sources += [entry.get("CidrIpv6") for entry in sections(rule, "Ipv6Ranges")]
    for source in map(str, filter(None, sources)):
        try:
            net = ipaddress.ip_network(source, strict=False)
        except ValueError:
            yield error(f"'{source}' is no net", "write e.g. 10.0.0.0/8")
            continue
        is_private = any(net[0] in n and net[-1] in n for n in map(ipaddress.ip_network, _PRIVATE))
        if is_private or first == last == 22 or str(rule.get("IpProtocol")) in _PING:
            continue
        if net.prefixlen < _OFFICE_PREFIX[net.version]:
            yield error(f"{opens} to the internet ({source})", remedy)
        else:
            yield warning(f"{opens} to {source}: Ray's token gets there in the clear", remedy)
