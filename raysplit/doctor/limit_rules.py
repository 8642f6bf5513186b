"""How many nodes, for how long, and the keys that Ray drops without a word."""

from __future__ import annotations

from collections.abc import Iterator

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.yaml_file import Section, node_types, section, strings

_RESOURCE_NAMES = {"cpu": "CPU", "cpus": "CPU", "gpu": "GPU", "gpus": "GPU"}


def dropped_key_findings(config: Section) -> Iterator[Finding]:
    """Yield keys that pass Ray's schema and then have no effect."""
    if section(config, "provider").get("type") != "local" and "min_workers" in config:
        yield error(
            "a global min_workers is dropped by Ray: no worker is kept",
            "move it into the node type under available_node_types",
        )
    for key in ("head_node", "worker_nodes"):
        if config.get(key):
            yield error(f"{key} is a form of Ray 1 and ignored", "use available_node_types")
    for name, node_type in node_types(config).items():
        for resource in section(node_type, "resources"):
            real = _RESOURCE_NAMES.get(resource.lower())
            if real and real != resource:
                yield error(
                    f"{name}: '{resource}' makes a custom resource, not {real}", f"write {real}"
                )


def limit_findings(config: Section) -> Iterator[Finding]:
    """Yield faults of worker counts and of the idle timeout."""
    yield from _idle_timeout(config.get("idle_timeout_minutes"))
    if section(config, "provider").get("type") == "local":
        yield from _local_counts(config)
        return
    limit = config.get("max_workers")
    if not isinstance(limit, int):
        yield warning("max_workers is left to Ray's default (2)", "write the number you will pay")
    for name, node_type in node_types(config).items():
        yield from _counts(name, node_type, limit, is_head=name == config.get("head_node_type"))


def _idle_timeout(minutes: object) -> Iterator[Finding]:
    if not isinstance(minutes, int | float):
        yield error(
            "idle_timeout_minutes is missing: what idle workers cost is left to Ray's default",
            "write idle_timeout_minutes: 10",
        )
    elif minutes > 60:
        yield warning(
            f"idle_timeout_minutes: {minutes}: workers are paid that long without work", "write 10"
        )
    elif minutes < 1:
        yield warning(
            f"idle_timeout_minutes: {minutes}: workers leave between two stages", "write 10"
        )


def _counts(name: str, node_type: Section, limit: object, *, is_head: bool) -> Iterator[Finding]:
    least, most = node_type.get("min_workers", 0), node_type.get("max_workers")
    if is_head:
        if most:
            yield warning(
                f"{name}: max_workers {most} rents more machines of the head's type", "remove it"
            )
        return
    if most == 0:
        yield warning(f"{name}: max_workers 0: such a node is never started", "write 1 or more")
    if isinstance(most, int) and isinstance(limit, int) and most > limit:
        yield warning(
            f"{name}: max_workers {most} is above the cluster's {limit}", "raise or lower one"
        )
    if isinstance(most, int) and isinstance(least, int) and least > most:
        yield error(f"{name}: min_workers {least} is above max_workers {most}", "swap them")
    elif least and section(node_type, "resources").get("GPU"):
        yield warning(
            f"{name}: min_workers {least} keeps GPU nodes that are paid while idle",
            "write min_workers: 0; they start when there is work",
        )


def _local_counts(config: Section) -> Iterator[Finding]:
    least, most = config.get("min_workers"), config.get("max_workers")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield error(f"min_workers {least} is above max_workers {most}", "write one number in both")
        return
    provider = section(config, "provider")
    if "coordinator_address" in provider:  # which hands out the machines
        return
    known = len(strings(provider, "worker_ips"))
    for key in ("min_workers", "max_workers"):
        count = config.get(key, known)
        if isinstance(count, int) and count != known:
            yield warning(
                f"{key} is {count}, worker_ips names {known}",
                "write the number of worker_ips, or remove the key",
            )
