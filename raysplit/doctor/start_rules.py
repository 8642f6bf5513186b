"""What the start commands of a cluster file must say, and Ray's defaults do not."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.ray_schema import ray_start_options
from raysplit.doctor.start_command import StartCommand, parse_start_command
from raysplit.doctor.yaml_file import Section, section, strings
from raysplit.errors import suggest

HEAD = "head_start_ray_commands"
WORKER = "worker_start_ray_commands"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def start_findings(config: Section) -> Iterator[Finding]:
    """Yield every fault of both start commands."""
    head = yield from _command(config, HEAD)
    worker = yield from _command(config, WORKER)
    if head:
        yield from _head(head)
    if worker:
        yield from _worker(worker)
    if head and worker and head.port != worker.port:
        yield error(
            f"the head listens on port {head.port}, the workers call {worker.port}",
            f"write the same port into --port of {HEAD} and --address of {WORKER}",
        )
    provider = section(config, "provider")
    if head and provider.get("type") == "local":
        yield from _local_head(head, str(provider.get("head_ip", "")))


def _command(config: Section, key: str) -> Generator[Finding, None, StartCommand | None]:
    """Yield what is wrong with the list of commands as such; return its `ray start`."""
    lines = strings(config, key)
    if not lines:
        yield error(
            f"{key} is missing: Ray's default sets no token and, on AWS, opens the dashboard",
            f"write {key} out as in the shipped file",
        )
        return None
    try:
        command = parse_start_command(lines)
    except ValueError as reason:
        yield error(f"{key} cannot be read: {reason}", "close the quote")
        return None
    if command is None:
        yield error(f"{key} holds no `ray start`", "add it as in the shipped file")
        return None
    if not any("ray stop" in line for line in lines):
        yield warning(
            f"{key} has no `ray stop`: a second `ray up` meets the Ray of the first",
            "put `ray stop` before `ray start`",
        )
    yield from _token_mode_and_spelling(command, key)
    return command


def _token_mode_and_spelling(command: StartCommand, key: str) -> Iterator[Finding]:
    mode = command.environment.get("RAY_AUTH_MODE")
    if mode != "token":
        yield error(
            f"{key}: RAY_AUTH_MODE is {mode or 'not set'}: whoever reaches the ports runs code",
            "write RAY_AUTH_MODE=token before `ray start`, in the same line",
        )
    known = ray_start_options()
    for option in command.options:
        if known and option not in known:
            yield error(
                f"{key}: `ray start` has no option {option}{suggest(option, known)}",
                "correct it; `ray start --help` lists them",
            )
    if "--block" in command.options:
        yield error(f"{key}: --block never returns, so `ray up` hangs", "remove --block")


def _head(command: StartCommand) -> Iterator[Finding]:
    if "--head" not in command.options:
        yield error(f"{HEAD}: --head is missing, no cluster is started", "add --head")
    if not command.options.get("--autoscaling-config"):
        yield error(
            f"{HEAD}: --autoscaling-config is missing, so no worker is ever started",
            "add --autoscaling-config=~/ray_bootstrap_config.yaml",
        )
    host = command.options.get("--dashboard-host")
    if host is None:
        yield warning(
            f"{HEAD}: --dashboard-host is left to Ray's default", "add --dashboard-host=127.0.0.1"
        )
    elif host not in _LOOPBACK:
        yield error(
            f"{HEAD}: the dashboard listens on {host}; its job interface runs any code",
            "write --dashboard-host=127.0.0.1 and use `ray dashboard` to reach it",
        )


def _worker(command: StartCommand) -> Iterator[Finding]:
    if "--head" in command.options:
        yield error(f"{WORKER}: --head starts a cluster of its own", "remove --head")
    if "RAY_HEAD_IP" not in command.options.get("--address", ""):
        yield error(
            f"{WORKER}: --address does not name the head", "write --address=$RAY_HEAD_IP:6379"
        )


def _local_head(command: StartCommand, head_ip: str) -> Iterator[Finding]:
    if command.environment.get("RAY_enable_autoscaler_v2") != "0":
        yield error(
            f"{HEAD}: without RAY_enable_autoscaler_v2=0 Ray 2.60 never starts a local worker",
            "write RAY_enable_autoscaler_v2=0 before `ray start`, in the same line",
        )
    address = command.options.get("--node-ip-address", head_ip)
    if address != head_ip and "$" not in address:
        yield error(
            f"{HEAD}: --node-ip-address={address}, but provider.head_ip is {head_ip}",
            "write the same address in both",
        )
