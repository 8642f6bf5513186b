"""Where an AWS cluster stands and who may reach it: region, zones, security group, ssh key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from raysplit.base.errors import suggest
from raysplit.doctor.check import Finding, error, unknown_keys, warning
from raysplit.doctor.ec2_keys import IP_PERMISSIONS, key_findings
from raysplit.doctor.yaml_file import Section, node_types, section, sections

_PROVIDER_KEYS = {
    "type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips",
    "security_group", "key_pair", "aws_credentials", "cloudwatch", "disable_node_updaters",
    "disable_launch_config_check", "foreground_node_launch", "worker_liveness_check",
}  # fmt: skip
# As in ec2_instance_types.txt: a region missing here is newer than this list, or a typo.
_REGIONS = {
    "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
    "ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3",
    "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7", "ca-central-1",
    "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1",
    "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "eusc-de-east-1",
    "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1", "us-east-1",
    "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2",
}  # fmt: skip
# A zone is a letter; a local or wavelength zone is named after its city: us-west-2-lax-1a.
_ZONE = re.compile(r"[a-f]|(-[a-z0-9]+)+-\d[a-z]|-wl\d-[a-z0-9-]+-\d")
_PRIVATE_NETS = [
    ipaddress.ip_network(net)
    for net in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
        "169.254.0.0/16", "fc00::/7", "fe80::/10",
    )
]  # fmt: skip
_OFFICE_PREFIX = {4: 16, 6: 32}  # a longer one may be one's own net; a shorter one is the internet
_SSH = (22, 22)
_PING = {"icmp", "icmpv6", "1", "58"}


def provider_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of region, zones, security group and ssh key."""
    provider = section(config, "provider")
    yield from unknown_keys("provider", provider, _PROVIDER_KEYS)
    yield from _place(provider)
    yield from _open_ports(provider)
    yield from _key_name(config)


def _place(provider: Section) -> Iterator[Finding]:
    region = str(provider.get("region", ""))
    if region not in _REGIONS:
        yield error(
            f"provider.region '{region}' is no AWS region{suggest(region, _REGIONS)}",
            "write one, e.g. us-west-2; `aws ec2 describe-regions` knows newer ones",
        )
        return
    zones = str(provider.get("availability_zone", f"{region}a")).split(",")
    for zone in (zone.strip() for zone in zones):
        if not (zone.startswith(region) and _ZONE.fullmatch(zone.removeprefix(region))):
            yield error(
                f"'{zone}' is no zone of {region}", f"write zones like {region}a, with commas"
            )


def _open_ports(provider: Section) -> Iterator[Finding]:
    group = section(provider, "security_group")
    where = "security_group.IpPermissions"
    yield from key_findings(group.get("IpPermissions", []), IP_PERMISSIONS, where)
    for rule in sections(group, "IpPermissions"):
        sources = [entry.get("CidrIp") for entry in sections(rule, "IpRanges")]
        sources += [entry.get("CidrIpv6") for entry in sections(rule, "Ipv6Ranges")]
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        harmless = ports == _SSH or str(rule.get("IpProtocol")) in _PING
        for source in filter(None, sources):
            yield from _source(str(source), ports, harmless=harmless)


def _source(source: str, ports: tuple[object, object], *, harmless: bool) -> Iterator[Finding]:
    try:
        net = ipaddress.ip_network(source, strict=False)
    except ValueError:
        yield error(
            f"the security group names '{source}', which is no net", "write e.g. 10.0.0.0/8"
        )
        return
    if harmless or any(_is_within(net, private) for private in _PRIVATE_NETS):
        return
    opened = "all ports" if ports == (None, None) else f"ports {ports[0]}-{ports[1]}"
    if net.prefixlen < _OFFICE_PREFIX[net.version]:
        yield error(
            f"the security group opens {opened} to the internet ({source})",
            "remove the rule: ssh (port 22) carries everything, see docs/cluster.md",
        )
    else:
        yield warning(
            f"the security group opens {opened} to {source}: Ray's token gets there in the clear",
            "remove the rule: ssh (port 22) carries everything, see docs/cluster.md",
        )


def _is_within(
    net: ipaddress.IPv4Network | ipaddress.IPv6Network,
    outer: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> bool:
    if isinstance(net, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and net.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and net.subnet_of(outer)


def _key_name(config: Section) -> Iterator[Finding]:
    if "ssh_private_key" not in section(config, "auth"):
        return
    for name, node_type in node_types(config).items():
        if "KeyName" not in section(node_type, "node_config"):
            yield error(
                f"{name}: auth names an ssh_private_key, but node_config has no KeyName",
                "add the KeyName of that key pair, or let Ray make one (remove ssh_private_key)",
            )
