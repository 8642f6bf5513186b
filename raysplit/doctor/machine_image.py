"""The image that a rented machine boots: its region, the user that ssh logs in as, its Python.

An id such as ami-0123 says none of that, and nothing but EC2 knows it; the name of a parameter, as
in resolve:ssm:/aws/service/..., says some of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from raysplit.doctor.check import Check, error, warning
from raysplit.doctor.cluster_yaml import ClusterFile, Node, part

# resolve:ssm:arn:aws:ssm:us-east-1:123456789012:parameter/...: of one region, unlike a bare name.
_ARN = re.compile(r"resolve:ssm:arn:[\w-]+:ssm:(?P<region>[\w-]+):")


class _System(NamedTuple):
    """An operating system of images: how its parameters are named, and what it comes with."""

    pattern: re.Pattern[str]
    name: str
    user: str  # that its images let in by ssh
    python: tuple[int, int]  # that `python3` is


_SYSTEMS = tuple(
    _System(re.compile(pattern), name, user, python)
    for pattern, name, user, python in (
        (r"ubuntu\D*18\.04", "Ubuntu 18.04", "ubuntu", (3, 6)),
        (r"ubuntu\D*20\.04", "Ubuntu 20.04", "ubuntu", (3, 8)),
        (r"ubuntu\D*22\.04", "Ubuntu 22.04", "ubuntu", (3, 10)),
        (r"ubuntu\D*24\.04", "Ubuntu 24.04", "ubuntu", (3, 12)),
        (r"al2023|amazon-linux-2023", "Amazon Linux 2023", "ec2-user", (3, 9)),
        (r"amzn2|amazon-linux-2\b|\bal2\b", "Amazon Linux 2", "ec2-user", (3, 7)),
        (r"/debian/\D*11", "Debian 11", "admin", (3, 9)),
        (r"/debian/\D*12", "Debian 12", "admin", (3, 11)),
    )
)


def system_python(image: str) -> tuple[str, tuple[int, int]] | None:
    """Return the name and the Python of an image's system; None where its ImageId does not say."""
    system = _system_of(image)
    return None if system is None else (system.name, system.python)


def machine_image_findings(file: ClusterFile, node: Node) -> Iterator[Check]:
    """Yield an image of another region or of another user, and what its id leaves open."""
    image = image_id(node)
    region = str(file.provider.get("region", ""))
    user = str(part(file.config, "auth", dict).get("ssh_user", ""))
    if image.startswith("ami-"):
        fault = f"{image} says neither its region ({region}?) nor its ssh user ({user}?)"
        remedy = f"`aws ec2 describe-images --region {region} --image-ids {image}`, or resolve:ssm:"
        yield warning(fault, f"ask {remedy}...")
    elsewhere = _ARN.match(image)
    if elsewhere and elsewhere["region"] != region:
        fault = f"the ImageId is of {elsewhere['region']}, provider.region is {region}"
        yield error(fault, "name one of the region: `resolve:ssm:/aws/service/...` is of any")
    system = _system_of(image)
    if system and user and system.user != user:
        fault = f"auth.ssh_user is {user}, images of {system.name} let in {system.user}"
        yield error(fault, f"write ssh_user: {system.user}, or another ImageId")


def image_id(node: Node) -> str:
    """Return the ImageId of a node type, "" for none."""
    return str(node.ec2.get("ImageId", ""))


def _system_of(image: str) -> _System | None:
    return next((system for system in _SYSTEMS if system.pattern.search(image)), None)
