"""What the start commands of a cluster file must say, and Ray's defaults do not."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from raysplit.base.errors import suggest
from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.ray_schema import ray_start_options
from raysplit.doctor.start_command import StartCommand, start_commands
from raysplit.doctor.yaml_file import Section, section, strings

HEAD = "head_start_ray_commands"
WORKER = "worker_start_ray_commands"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_HEAD_ADDRESS = re.compile(r"(\$RAY_HEAD_IP|\$\{RAY_HEAD_IP\})(:\d+)?")
# Where the launcher puts it: in the home of the user, who may have another one than /home/user.
_AUTOSCALING_CONFIG = re.compile(r"(~|\$HOME|\$\{HOME\}|/.+)/ray_bootstrap_config\.yaml")


def start_findings(config: Section) -> Iterator[Finding]:
    """Yield every fault of both lists of start commands."""
    provider = section(config, "provider")
    head_ip = str(provider.get("head_ip", ""))
    heads = yield from _commands(config, HEAD)
    workers = yield from _commands(config, WORKER)
    for head in heads:
        yield from _head(head)
        if provider.get("type") == "local":
            yield from _local_head(head, head_ip)
    for worker in workers:
        yield from _worker(worker, head_ip)
    if heads and workers and heads[0].port != workers[0].port:
        yield error(
            f"the head listens on port {heads[0].port}, the workers call {workers[0].port}",
            f"write the same port into --port of {HEAD} and --address of {WORKER}",
        )


def _commands(config: Section, key: str) -> Generator[Finding, None, list[StartCommand]]:
    """Yield what is wrong with the list of commands as such; return each `ray start` in it."""
    lines = strings(config, key)
    if not lines:
        yield error(
            f"{key} is missing: Ray's default sets no token and, on AWS, opens the dashboard",
            f"write {key} out as in the shipped file",
        )
        return []
    try:
        commands = start_commands(lines)
    except ValueError as reason:
        yield error(f"{key} cannot be read: {reason}", "close it")
        return []
    if not commands:
        yield error(f"{key} holds no `ray start`", "add it as in the shipped file")
        return []
    if not any("ray stop" in line for line in lines):
        yield warning(
            f"{key} has no `ray stop`: a second `ray up` meets the Ray of the first",
            "put `ray stop` before `ray start`",
        )
    if sum(not command.is_alternative for command in commands) > 1:
        yield error(f"{key} has a second `ray start`, which meets the Ray of the first", "keep one")
    for command in commands:
        yield from _cut_off(command, key)
        yield from _token_mode(command, key)
        yield from _spelling(command, key)
    return commands


def _cut_off(command: StartCommand, key: str) -> Iterator[Finding]:
    if command.cut_off:
        yield error(
            f"{key}: `ray start` ends before {command.cut_off.partition('=')[0]}:"
            " a line break or ; cuts it off",
            "begin the command with `- >-` and indent all its lines alike (YAML keeps the line"
            " breaks of `|` and of deeper lines)",
        )


def _token_mode(command: StartCommand, key: str) -> Iterator[Finding]:
    mode = command.environment.get("RAY_AUTH_MODE")
    if mode == "token":
        return
    if mode is None and "RAY_AUTH_MODE" in command.unexported:
        yield error(
            f"{key}: RAY_AUTH_MODE is set in a statement of its own, unseen by `ray start`",
            "write RAY_AUTH_MODE=token before `ray start`, without ; or line break between them",
        )
        return
    yield error(
        f"{key}: RAY_AUTH_MODE is {mode or 'not set'}: whoever reaches the ports runs code",
        "write RAY_AUTH_MODE=token before `ray start`, in the same line",
    )


def _spelling(command: StartCommand, key: str) -> Iterator[Finding]:
    known = ray_start_options()
    for option, value in command.options.items():
        if known and option not in known:
            yield error(
                f"{key}: `ray start` has no option {option}{suggest(option, known)}",
                "correct it; `ray start --help` lists them",
            )
        elif option.endswith("port") and not (value.isdigit() or "$" in value):
            yield error(f"{key}: {option}={value} is no port", f"write a number after {option}=")
    if "--block" in command.options:
        yield error(f"{key}: --block never returns, so `ray up` hangs", "remove --block")


def _head(command: StartCommand) -> Iterator[Finding]:
    if "--head" not in command.options:
        yield error(f"{HEAD}: --head is missing, no cluster is started", "add --head")
    autoscaling_config = command.options.get("--autoscaling-config", "")
    if not _AUTOSCALING_CONFIG.fullmatch(autoscaling_config):
        found = f"={autoscaling_config} does not exist" if autoscaling_config else " is missing"
        yield error(
            f"{HEAD}: --autoscaling-config{found}, so no worker is ever started",
            "write --autoscaling-config=~/ray_bootstrap_config.yaml, where `ray up` puts it",
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


def _worker(command: StartCommand, head_ip: str) -> Iterator[Finding]:
    if "--head" in command.options:
        yield error(f"{WORKER}: --head starts a cluster of its own", "remove --head")
    address = command.options.get("--address", "")
    written_out = head_ip and address.rpartition(":")[0] == head_ip
    if not (written_out or _HEAD_ADDRESS.fullmatch(address)):
        found = f"--address={address}" if address else "--address is missing and"
        yield error(
            f"{WORKER}: {found} does not name the head", "write --address=$RAY_HEAD_IP:6379"
        )
    host = command.options.get("--dashboard-host", "127.0.0.1")
    if host not in _LOOPBACK:
        yield warning(
            f"{WORKER}: --dashboard-host={host} asks for an open dashboard, which the head has",
            "remove --dashboard-host from the workers' command",
        )


def _local_head(command: StartCommand, head_ip: str) -> Iterator[Finding]:
    if command.environment.get("RAY_enable_autoscaler_v2") != "0":
        yield error(
            f"{HEAD}: without RAY_enable_autoscaler_v2=0 Ray 2.60 never starts a local worker",
            "write RAY_enable_autoscaler_v2=0 before `ray start`, in the same line",
        )
    address = command.options.get("--node-ip-address", head_ip)
    if head_ip and address != head_ip and "$" not in address:
        yield error(
            f"{HEAD}: --node-ip-address={address}, but provider.head_ip is {head_ip}",
            "write the same address in both",
        )
