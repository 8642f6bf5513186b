"""The keys that EC2 takes inside node_config and IpPermissions, nested as it wants them.

From the public EC2 API model (botocore 1.44.8): RunInstances, AuthorizeSecurityGroupIngress. Ray's
own SubnetIds is added; what Ray fills in by itself (counts, tokens) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from raysplit.base.errors import suggest
from raysplit.doctor.check import Finding, error

# A mapping with these keys, a list of such, one of these words, or (None) anything.
Known = Mapping[str, "Known"] | Sequence["Known"] | frozenset[str] | None

_FEW = 8  # names that fit into one remedy


def _keys(names: str) -> dict[str, Known]:
    """Return keys, separated by spaces, whose values are not looked at."""
    return dict.fromkeys(names.split())


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


_EBS = _keys(
    "AvailabilityZone AvailabilityZoneId DeleteOnTermination EbsCardIndex Encrypted Iops KmsKeyId"
    " OutpostArn SnapshotId Throughput VolumeInitializationRate VolumeSize"
) | {"VolumeType": _words("standard gp2 gp3 io1 io2 sc1 st1")}

_MARKET: Known = {
    "MarketType": _words("spot capacity-block interruptible-capacity-reservation on-demand"),
    "SpotOptions": {
        **_keys("BlockDurationMinutes MaxPrice ValidUntil"),
        "SpotInstanceType": _words("one-time persistent"),
        "InstanceInterruptionBehavior": _words("hibernate stop terminate"),
    },
}

_NETWORK_INTERFACE = _keys(
    "AssociateCarrierIpAddress AssociatePublicIpAddress DeleteOnTermination Description DeviceIndex"
    " EnaQueueCount Groups InterfaceType Ipv4PrefixCount Ipv6AddressCount Ipv6PrefixCount"
    " NetworkCardIndex NetworkInterfaceId PrimaryIpv6 PrivateIpAddress"
    " SecondaryPrivateIpAddressCount SubnetId"
) | {
    "ConnectionTrackingSpecification": _keys("TcpEstablishedTimeout UdpStreamTimeout UdpTimeout"),
    "EnaSrdSpecification": {
        "EnaSrdEnabled": None,
        "EnaSrdUdpSpecification": _keys("EnaSrdUdpEnabled"),
    },
    "Ipv4Prefixes": [_keys("Ipv4Prefix")],
    "Ipv6Addresses": [_keys("Ipv6Address IsPrimaryIpv6")],
    "Ipv6Prefixes": [_keys("Ipv6Prefix")],
    "PrivateIpAddresses": [_keys("Primary PrivateIpAddress")],
}

NODE_CONFIG: Known = {
    **_keys(
        "DisableApiStop DisableApiTermination EbsOptimized EnablePrimaryIpv6 ImageId"
        " InstanceInitiatedShutdownBehavior InstanceType Ipv6AddressCount KernelId KeyName"
        " PrivateIpAddress RamdiskId SecondaryInterfaces SecurityGroupIds SecurityGroups SubnetId"
        " SubnetIds UserData"
    ),
    "BlockDeviceMappings": [{**_keys("DeviceName NoDevice VirtualName"), "Ebs": _EBS}],
    "CapacityReservationSpecification": {
        "CapacityReservationPreference": _words("capacity-reservations-only open none"),
        "CapacityReservationTarget": _keys(
            "CapacityReservationId CapacityReservationResourceGroupArn"
        ),
    },
    "CpuOptions": _keys("AmdSevSnp CoreCount NestedVirtualization ThreadsPerCore"),
    "CreditSpecification": _keys("CpuCredits"),
    "EnclaveOptions": _keys("Enabled"),
    "HibernationOptions": _keys("Configured"),
    "IamInstanceProfile": _keys("Arn Name"),
    "InstanceMarketOptions": _MARKET,
    "Ipv6Addresses": [_keys("Ipv6Address IsPrimaryIpv6")],
    "LaunchTemplate": _keys("LaunchTemplateId LaunchTemplateName Version"),
    "LicenseSpecifications": [_keys("LicenseConfigurationArn")],
    "MaintenanceOptions": _keys("AutoRecovery"),
    "MetadataOptions": _keys(
        "HttpEndpoint HttpProtocolIpv6 HttpPutResponseHopLimit HttpTokens InstanceMetadataTags"
    ),
    "Monitoring": _keys("Enabled MetricCategoryIds"),
    "NetworkInterfaces": [_NETWORK_INTERFACE],
    "NetworkPerformanceOptions": _keys("BandwidthWeighting"),
    "Placement": _keys(
        "Affinity AvailabilityZone AvailabilityZoneId GroupId GroupName HostId HostResourceGroupArn"
        " PartitionNumber SpreadDomain Tenancy"
    ),
    "PrivateDnsNameOptions": _keys(
        "EnableResourceNameDnsAAAARecord EnableResourceNameDnsARecord HostnameType"
    ),
    "TagSpecifications": [{"ResourceType": None, "Tags": [_keys("Key Value")]}],
}

IP_PERMISSIONS: Known = [
    {
        **_keys("FromPort IpProtocol ToPort"),
        "IpRanges": [_keys("CidrIp Description")],
        "Ipv6Ranges": [_keys("CidrIpv6 Description")],
        "PrefixListIds": [_keys("Description PrefixListId")],
        "UserIdGroupPairs": [
            _keys("Description GroupId GroupName PeeringStatus UserId VpcId VpcPeeringConnectionId")
        ],
    }
]


def key_findings(value: object, known: Known, where: str) -> Iterator[Finding]:
    """Yield keys and words inside `value` that are not `known`; `where` is its path in the file."""
    if isinstance(known, Mapping):
        if not isinstance(value, dict):
            yield error(f"{where} is no mapping", f"write keys below it: {', '.join(known)}")
            return
        for key, inner in cast(dict[str, Any], value).items():
            if key in known:
                yield from key_findings(inner, known[key], f"{where}.{key}")
            else:
                few = f"write one of {', '.join(known)}" if len(known) <= _FEW else ""
                yield error(
                    f"{where} has the unknown key '{key}'{suggest(str(key), known)}",
                    few or "correct it; the EC2 API reference lists them",
                )
    elif isinstance(known, Sequence):
        if not isinstance(value, list):
            yield error(f"{where} is no list", "write its items below it, each after `- `")
            return
        for item in cast(list[object], value):
            yield from key_findings(item, known[0], where)
    elif known is not None and str(value) not in known:
        yield error(
            f"{where}: '{value}' does not exist{suggest(str(value), known)}",
            f"write one of {', '.join(sorted(known))}",
        )
