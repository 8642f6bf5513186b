"""What only a cluster of one's own machines can get wrong: addresses, ssh user and key."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from raysplit.doctor.check import Finding, error, unknown_keys, warning
from raysplit.doctor.yaml_file import Section, section, strings

_PROVIDER_KEYS = {"type", "head_ip", "worker_ips", "external_head_ip", "coordinator_address"}
# Labels of letters, digits and inner hyphens; the last begins with a letter, as in every real name,
# so that a mistyped number (192.168.1.1O) is none.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"({_LABEL}\.)*(?=[A-Za-z]){_LABEL}")


def address_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of the head's and workers' addresses."""
    provider = section(config, "provider")
    yield from unknown_keys("provider", provider, _PROVIDER_KEYS)
    head, workers = str(provider.get("head_ip", "")), strings(provider, "worker_ips")
    if "coordinator_address" in provider:  # which hands out the machines
        return
    for address in dict.fromkeys((head, *workers)):
        yield from _address(address)
    if head in workers:
        yield error(f"{head} is the head and a worker", "take it out of worker_ips")
    for address in sorted({a for a in workers if workers.count(a) > 1}):
        yield error(f"{address} stands twice in worker_ips", "remove one")
    for address in {head, *workers} & {"127.0.0.1", "localhost", "0.0.0.0"}:
        yield error(f"{address} means another machine on each node", "write its network address")


def _address(address: str) -> Iterator[Finding]:
    if not (_is_ip_address(address) or _HOST_NAME.fullmatch(address)):
        yield error(f"'{address}' is no address of a machine", "write an IP address or a name")
    elif re.fullmatch(_LABEL, address) and address != "localhost":
        yield warning(
            f"'{address}' is a bare name, which every machine must be able to look up",
            "write its IP address, or make sure of that",
        )


def _is_ip_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def ssh_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of the ssh user and key (of any provider)."""
    auth = section(config, "auth")
    if not auth.get("ssh_user"):
        yield error("auth.ssh_user is missing: Ray cannot log in", "name the user of the machines")
    key = auth.get("ssh_private_key")
    if not key:
        return
    path = Path(str(key)).expanduser()
    if not path.is_file():
        yield warning(
            f"the ssh key {key} is not on this machine", "correct auth.ssh_private_key, or make it"
        )
    elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield error(f"others may read the ssh key {key}, so ssh refuses it", f"chmod 600 {key}")
