"""The start commands of a cluster file: each `ray start` in them, and what it must say."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from raysplit.base.errors import suggest
from raysplit.doctor.check import Check, about, error, warning
from raysplit.doctor.cluster_yaml import ClusterFile, strings
from raysplit.doctor.schema_rules import ray_start_options

HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_TOKEN_MODE = "write RAY_AUTH_MODE=token before `ray start`, without ; or line break between them"
_HEAD_ADDRESS = re.compile(r"(\$RAY_HEAD_IP|\$\{RAY_HEAD_IP\})(:\d+)?")
# Where the launcher puts it: in the home of the user, who may have another one than /home/user.
_AUTOSCALING_CONFIG = re.compile(r"(~|\$HOME|\$\{HOME\}|/.+)/ray_bootstrap_config\.yaml")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-[^\d]")
_SEPARATORS = ";&|()"
# What Python's shlex takes for something else than a shell does.
_SHELL = re.compile(
    r"""
      (?P<nothing> (?<![^\s;&|()]) \#[^\n]*                         # comments
        | ((?<![^\s;&|()])\d+|&)? [<>]+ [&|]? [^\S\n]* [^\s;&|()<>'"$`]*  # redirections
        | \\(?:\n|\Z) )                                              # a line that goes on
    | (?P<line_break> \n )
    | (?P<word> \$\((?:'[^']*'|"[^"]*"|\([^()]*\)|[^()'"])*\) | `[^`]*`   # substitutions
        | \\\$ )                                                    # a dollar that is text
    | (?P<single> '[^']*' )
    | "(?:\\.|[^"\\])*" | \\.
    | (?P<unclosed> \$\( | ['"`] )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One `ray start`."""

    environment: dict[str, str]  # that it sees: set before it in the same line, or exported
    unexported: frozenset[str]  # variables set in statements of their own, which it does not see
    # "--port" and the like with their values, "" for a flag. Those that are cut off are among them,
    # so that one fault does not hide the others.
    options: dict[str, str]
    cut_off: str  # the first option after a line break or ;, which the shell does not see as one
    is_alternative: bool  # whether it runs only where an earlier one does not (`||`, `else`)

    @property
    def port(self) -> str:
        """The port of the cluster's head that this command opens or calls; 6379 by default."""
        called = self.options.get("--address", "").rpartition(":")[2]
        return self.options.get("--port") or (called if called.isdigit() else "6379")


def start_commands_of(file: ClusterFile, key: str) -> list[StartCommand]:
    """Return every `ray start` below a key of the file; none where a script cannot be read."""
    try:
        return start_commands(strings(file.config, key))
    except ValueError:
        return []


def start_commands(scripts: list[str]) -> list[StartCommand]:
    """Return every `ray start` in the scripts; each script has a shell of its own, as in Ray.

    Raises:
        ValueError: A script has an unclosed quote or parenthesis.
    """
    return [command for script in scripts for command in _of_script(script)]


def _of_script(script: str) -> Iterator[StartCommand]:
    commands = list(_shell_commands(script))
    local, exported = dict[str, str](), dict[str, str]()
    found = branched = False
    for index, (before, words) in enumerate(commands):
        branched |= found and ("||" in before or words[0] == "else")
        assigned = _assignments(words)
        if words[0] == "export":
            exported |= {name: local[name] for name in words[1:] if name in local} | assigned
        elif len(assigned) == len(words):
            local |= assigned
            exported |= {name: value for name, value in assigned.items() if name in exported}
        start = _ray_start(words)
        if start is None:
            continue
        environment = exported | _assignments(words[:start])
        # The next commands, as long as they are options and no commands.
        after = itertools.takewhile(lambda c: _OPTION.match(c[1][0]), commands[index + 1 :])
        lost = [word for _, words in after for word in words]
        unexported = frozenset(local.keys() - environment.keys())
        options, cut_off = _options(words[start + 2 :] + lost), lost[0] if lost else ""
        yield StartCommand(environment, unexported, options, cut_off, branched)
        found = True


def _shell_commands(script: str) -> Iterator[tuple[str, list[str]]]:
    r"""Yield the commands of a script: what separates each from the one before, and its words.

    The words are without quotes; a `$` that the shell leaves alone stands as `\$`.
    """
    lexer = shlex.shlex(_SHELL.sub(_for_shlex, script), posix=True, punctuation_chars=_SEPARATORS)
    lexer.commenters, lexer.whitespace_split = "", True
    before = ""
    for separates, tokens in itertools.groupby(lexer, lambda t: set() < set(t) <= set(_SEPARATORS)):
        if separates:
            before = "".join(tokens)
        else:
            yield before, list(tokens)


def _for_shlex(piece: re.Match[str]) -> str:
    """Return a piece of a script so that shlex understands it as a shell does."""
    kind, text = piece.lastgroup, piece[0]
    if kind == "unclosed":
        raise ValueError("no closing parenthesis" if text == "$(" else "no closing quotation")
    literal = text.replace("$", r"\$")
    meant = {"nothing": " ", "line_break": ";", "word": shlex.quote(text), "single": literal}
    return meant.get(str(kind), text)


def _ray_start(words: list[str]) -> int | None:
    """Return where `ray start` stands among the words, whatever runs it (env, sudo, then)."""
    for index, (word, following) in enumerate(itertools.pairwise(words)):
        if PurePosixPath(word).name == "ray" and following == "start":
            return index if words[0] not in ("echo", "printf") else None
    return None


def _assignments(words: list[str]) -> dict[str, str]:
    found = (_ASSIGNMENT.fullmatch(word) for word in words)
    return {match[1]: match[2] for match in found if match}


def _options(words: list[str]) -> dict[str, str]:
    options, name = dict[str, str](), ""
    for word in words:
        if _OPTION.match(word):
            name, _, options[name] = word.partition("=")
        elif name and not options[name]:
            options[name] = word
    return options


def start_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield every fault of both lists of start commands."""
    for key, rules in ((HEAD, _head), (WORKER, _worker)):
        yield from about(key, _lines(strings(file.config, key)))
        for command in start_commands_of(file, key):
            yield from about(key, _any(command))
            yield from about(key, rules(command, file))
    heads, workers = start_commands_of(file, HEAD), start_commands_of(file, WORKER)
    if heads and workers and heads[0].port != workers[0].port:
        fault = f"the head listens on port {heads[0].port}, the workers call {workers[0].port}"
        yield error(fault, f"write the same port into --port of {HEAD} and --address of {WORKER}")


def _lines(lines: list[str]) -> Iterator[Check]:
    """Yield what is wrong with a list of commands as such."""
    try:
        commands = start_commands(lines)
    except ValueError as reason:
        yield error(f"cannot be read: {reason}", "close it")
        return
    if not lines:
        fault = "missing, so Ray's default sets no token and, on AWS, opens the dashboard"
        yield error(fault, "write them out as in the shipped file")
    elif not commands:
        yield error("no `ray start` is among them", "add it as in the shipped file")
    elif not any("ray stop" in line for line in lines):
        yield warning("no `ray stop`: a second `ray up` meets the first Ray", "put it first")
    if sum(not command.is_alternative for command in commands) > 1:
        yield error("a second `ray start` meets the Ray of the first", "keep one")


def _any(command: StartCommand) -> Iterator[Check]:
    """Yield what is wrong with a `ray start` of whatever node."""
    mode, known = command.environment.get("RAY_AUTH_MODE"), ray_start_options()
    if command.cut_off:
        fault = f"`ray start` ends before {command.cut_off}: a line break or ; cuts it off"
        yield error(fault, "begin with `- >-` and indent all lines alike, or YAML keeps breaks")
    if mode is None and "RAY_AUTH_MODE" in command.unexported:
        fault = "RAY_AUTH_MODE is set in a statement of its own, unseen by `ray start`"
        yield error(fault, _TOKEN_MODE)
    elif mode != "token":
        fault = f"RAY_AUTH_MODE is {mode or 'not set'}: whoever reaches the ports runs code"
        yield error(fault, _TOKEN_MODE)
    for option, value in command.options.items():
        if known and option not in known:
            fault = f"`ray start` has no option {option}{suggest(option, known)}"
            yield error(fault, "correct it; `ray start --help` lists them")
        elif option.endswith("port") and not (value.isdigit() or "$" in value):
            yield error(f"{option}={value} is no port", f"write a number after {option}=")
    if "--block" in command.options:
        yield error("--block never returns, so `ray up` hangs", "remove --block")


def _head(command: StartCommand, file: ClusterFile) -> Iterator[Check]:
    if "--head" not in command.options:
        yield error("--head is missing, no cluster is started", "add --head")
    config = command.options.get("--autoscaling-config", "")
    if not _AUTOSCALING_CONFIG.fullmatch(config):
        found = f"={config} does not exist" if config else " is missing"
        remedy = "write --autoscaling-config=~/ray_bootstrap_config.yaml, where `ray up` puts it"
        yield error(f"--autoscaling-config{found}, so no worker is ever started", remedy)
    host = command.options.get("--dashboard-host")
    if host is None:
        yield warning("--dashboard-host is Ray's default", "add --dashboard-host=127.0.0.1")
    elif host not in _LOOPBACK:
        fault = f"the dashboard listens on {host}; its job interface runs any code"
        yield error(fault, "write --dashboard-host=127.0.0.1 and use `ray dashboard` to reach it")
    if not file.is_local:
        return
    if command.environment.get("RAY_enable_autoscaler_v2") != "0":
        fault = "without RAY_enable_autoscaler_v2=0 Ray 2.60 never starts a local worker"
        yield error(fault, "write RAY_enable_autoscaler_v2=0 before `ray start`, in the same line")
    head_ip = str(file.provider.get("head_ip", ""))
    address = command.options.get("--node-ip-address", head_ip)
    if head_ip and address != head_ip and "$" not in address:
        yield error(f"--node-ip-address={address}, but head_ip is {head_ip}", "write one address")


def _worker(command: StartCommand, file: ClusterFile) -> Iterator[Check]:
    if "--head" in command.options:
        yield error("--head starts a cluster of its own", "remove --head")
    address, head_ip = command.options.get("--address", ""), file.provider.get("head_ip")
    written_out = head_ip and address.rpartition(":")[0] == head_ip
    if not (written_out or _HEAD_ADDRESS.fullmatch(address)):
        found = f"--address={address}" if address else "--address is missing and"
        yield error(f"{found} does not name the head", "write --address=$RAY_HEAD_IP:6379")
    host = command.options.get("--dashboard-host", "127.0.0.1")
    if host not in _LOOPBACK:
        fault = f"--dashboard-host={host} asks for an open dashboard, which the head has"
        yield warning(fault, "remove --dashboard-host from the workers' command")
