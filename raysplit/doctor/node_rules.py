"""The nodes of a cluster: how many, for how long, their resources, own addresses, ssh."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from raysplit.base.files import at_home
from raysplit.doctor.check import Check, about, error, warning
from raysplit.doctor.cluster_yaml import ClusterFile, Node, part, strings
from raysplit.doctor.schema_rules import unknown_keys

_LOCAL_KEYS = {"type", "head_ip", "worker_ips", "external_head_ip", "coordinator_address"}
# Labels of letters, digits and inner hyphens; the last begins with a letter, as in every real name,
# so that a mistyped number (192.168.1.1O) is none.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"({_LABEL}\.)*(?=[A-Za-z]){_LABEL}")


def dropped_key_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield keys that Ray drops without a word."""
    if not file.is_local and "min_workers" in file.config:
        yield error("a global min_workers is dropped: no worker is kept", "move it to a node type")
    for key in ("head_node", "worker_nodes"):
        if file.config.get(key):
            yield error(f"{key} is a form of Ray 1 and ignored", "use available_node_types")
    for node in file.nodes:
        for key in map(str, node.resources):
            real = key.upper().removesuffix("S")
            if real in ("CPU", "GPU") and key != real:
                fault = f"{node.name}: '{key}' makes a custom resource, not {real}"
                yield error(fault, f"write {real}")


def limit_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of worker counts and of the idle timeout."""
    minutes, limit = file.config.get("idle_timeout_minutes"), file.config.get("max_workers")
    if not isinstance(minutes, int | float):
        fault = "idle_timeout_minutes is missing: what idle workers cost is left to Ray's default"
        yield error(fault, "write idle_timeout_minutes: 10")
    elif not 1 <= minutes <= 60:
        cost = "leave between two stages" if minutes < 1 else "are paid that long without work"
        yield warning(f"idle_timeout_minutes: {minutes}: workers {cost}", "write 10")
    if file.is_local:
        yield from _local_counts(file)
    elif not isinstance(limit, int):
        yield warning("max_workers is left to Ray's default (2)", "write the number you will pay")
    for node in file.nodes:
        yield from about(node.name, _counts(node, limit))


def _counts(node: Node, limit: object) -> Iterator[Check]:
    least, most = node.config.get("min_workers", 0), node.config.get("max_workers")
    if node.is_head:
        if most:
            yield warning(f"max_workers {most} rents more machines of the head's type", "remove it")
        return
    if most == 0:
        yield warning("max_workers 0: such a node is never started", "write 1 or more")
    if isinstance(most, int) and isinstance(limit, int) and most > limit:
        yield warning(f"max_workers {most} is above the cluster's {limit}", "raise or lower one")
    if isinstance(most, int) and isinstance(least, int) and least > most:
        yield error(f"min_workers {least} is above max_workers {most}", "swap them")
    elif least and node.resources.get("GPU"):
        fault = f"min_workers {least} keeps GPU nodes that are paid while idle"
        yield warning(fault, "write min_workers: 0; they start when there is work")


def _local_counts(file: ClusterFile) -> Iterator[Check]:
    least, most = file.config.get("min_workers"), file.config.get("max_workers")
    known = len(strings(file.provider, "worker_ips"))
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield error(f"min_workers {least} is above max_workers {most}", "write one number in both")
    elif "coordinator_address" not in file.provider:  # which hands out the machines
        for key, count in (("min_workers", least), ("max_workers", most)):
            if isinstance(count, int) and count != known:
                yield warning(f"{key} is {count}, worker_ips names {known}", "remove the key")


def address_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of the head's and workers' addresses, where the machines are one's own."""
    yield from unknown_keys("provider", file.provider, _LOCAL_KEYS)
    if "coordinator_address" in file.provider:  # which hands out the machines
        return
    head, workers = str(file.provider.get("head_ip", "")), strings(file.provider, "worker_ips")
    for address in dict.fromkeys((head, *workers)):
        try:
            ipaddress.ip_address(address)
            is_address = True
        except ValueError:
            is_address = bool(_HOST_NAME.fullmatch(address))
        if not is_address:
            yield error(f"'{address}' is no address of a machine", "write an IP address or a name")
        elif address in ("127.0.0.1", "localhost", "0.0.0.0"):
            yield error(f"{address} is another machine on each node", "write its network address")
        elif re.fullmatch(_LABEL, address):
            fault = f"'{address}' is a bare name, which every machine must be able to look up"
            yield warning(fault, "write its IP address, or make sure of that")
        if workers.count(address) > 1:
            yield error(f"{address} stands twice in worker_ips", "remove one")
    if head in workers:
        yield error(f"{head} is the head and a worker", "take it out of worker_ips")


def ssh_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of the ssh user and key."""
    auth = part(file.config, "auth", dict)
    key = auth.get("ssh_private_key")
    path = str(at_home(Path(str(key))))
    if not auth.get("ssh_user"):
        yield error("auth.ssh_user is missing: Ray cannot log in", "name the user of the machines")
    if key and not os.path.isfile(path):
        yield warning(f"the ssh key {key} is not on this machine", "make or copy it")
    elif key and os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        remedy = shlex.join(["chmod", "600", path])
        yield error(f"others may read the ssh key {key}, so ssh refuses it", remedy)
