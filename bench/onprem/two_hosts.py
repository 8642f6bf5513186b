"""A cluster of two hosts on one machine, started by `ray up` from cluster-onprem.yaml.

    sudo .venv/bin/python bench/onprem/two_hosts.py up
    sudo .venv/bin/python bench/onprem/two_hosts.py run COMMAND       # in the head's home, such as
                        'raysplit run demo --out ~/demo --set backend.address=auto'
    sudo .venv/bin/python bench/onprem/two_hosts.py down

    sudo .venv/bin/python bench/onprem/two_hosts.py once COMMAND      # all three, always down

A host is a network namespace on one bridge (10.77.0.x), with its own processes, host name, home,
shared memory, Ray folder and sshd. So `ray up` logs in, copies and starts as it does on machines
of your own; only the installation is left out: both hosts use the environment that runs this
script. Needs root, iproute2, util-linux, openssh-server and rsync. `down` removes what `up` made
and nothing else; a host's `ray stop` cannot see processes outside it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
STATE = Path("/tmp/raysplit-two-hosts")
BRIDGE = "raysplit-br"
BRIDGE_ADDRESS = "10.77.0.1/24"
CLUSTER_NAME = "raysplit-two-hosts"
CONFIG = STATE / "cluster.yaml"
TOOLS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync")


@dataclass(frozen=True, slots=True)
class Host:
    """One host: its name is also that of the namespace, of the folder and of the link."""

    name: str
    address: str

    @property
    def folder(self) -> Path:
        """Where the host keeps its home, keys and logs."""
        return STATE / self.name

    @property
    def cable(self) -> str:
        """The name of the end of its cable that sits in the bridge."""
        return f"{self.name}-br"


HEAD = Host("rs-head", "10.77.0.2")
WORKER = Host("rs-worker", "10.77.0.3")
HOSTS = (HEAD, WORKER)

# Becomes process 1 of the host: private mounts, a home of its own in /etc/passwd, then sshd.
HOST_SCRIPT = """
set -e
hostname {name}
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd
mount -t tmpfs -o size=2g tmpfs /dev/shm
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
sed 's#^root:\\(.*\\):/root:#root:\\1:{folder}/home:#' /etc/passwd > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
cd {folder}/home
exec {sshd} -D -e -f {folder}/sshd_config
"""

SSHD_CONFIG = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {state}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


def missing_requirements() -> list[str]:
    """Return what this machine lacks for two hosts, in words; empty if it can be done."""
    missing = [] if os.geteuid() == 0 else ["root"]
    return missing + [tool for tool in TOOLS if shutil.which(tool) is None]


def up() -> None:
    """Make the network and the hosts, run `ray up`, and wait until both nodes have joined."""
    if missing := missing_requirements():
        sys.exit(f"two hosts need {', '.join(missing)}; see the head of {Path(__file__).name}")
    _refuse_if_taken()
    (STATE / "launcher" / ".ray").mkdir(parents=True, mode=0o700)
    try:
        _make_keys()
        _call("ip", "link", "add", BRIDGE, "type", "bridge")
        _call("ip", "address", "add", BRIDGE_ADDRESS, "dev", BRIDGE)
        _call("ip", "link", "set", BRIDGE, "up")
        for host in HOSTS:
            _connect(host)
            _boot(host)
        for host in HOSTS:
            _wait_for_ssh(host)
        CONFIG.write_text(yaml.safe_dump(cluster_config()))
        ray("up", "--yes", "--no-config-cache", str(CONFIG))
        run(f"python {ROOT}/bench/onprem/ask_every_host.py {len(HOSTS)}")
    except BaseException:
        down()
        raise


def are_up() -> bool:
    """Say whether a host of an earlier `up` still runs."""
    pid_files = [host.folder / "pid" for host in HOSTS]
    return any(_is_ours(int(file.read_text())) for file in pid_files if file.exists())


def _refuse_if_taken() -> None:
    """Exit where a name is in use: `down` must never remove what `up` has not made."""
    if are_up():
        sys.exit(f"the two hosts are up, from {STATE}; run `down` first")
    down()  # what a run that was killed has left behind
    devices = _call("ip", "-brief", "link").stdout + _call("ip", "netns").stdout
    for name in (BRIDGE, *(host.name for host in HOSTS)):
        if name in devices:
            sys.exit(f"{name} exists, but not {STATE}: not made by this script, so not touched")


def run(command: str) -> None:
    """Run a shell command on the head, in its home; the project lies in ~/raysplit there."""
    ray("exec", str(CONFIG), command)


def down() -> None:
    """Kill every process of the hosts and remove the network and all files that `up` made."""
    if not STATE.exists():
        return
    for host in HOSTS:
        pid_file = host.folder / "pid"
        if pid_file.exists():
            _kill(int(pid_file.read_text()))
        # By hand: a namespace with a dying connection keeps its end of the cable for minutes.
        _call("ip", "link", "delete", host.cable, check=False)
        _call("ip", "netns", "delete", host.name, check=False)
    _call("ip", "link", "delete", BRIDGE, check=False)
    shutil.rmtree(_ssh_sockets(), ignore_errors=True)
    with contextlib.suppress(OSError):  # other clusters of this user may have sockets there
        _ssh_sockets().parent.rmdir()
    shutil.rmtree(STATE, ignore_errors=True)


def cluster_config() -> dict[str, Any]:
    """Return cluster-onprem.yaml for these two hosts: addresses, user, key, one CPU a node."""
    config = yaml.safe_load((ROOT / "cluster-onprem.yaml").read_text())
    old_head = config["provider"]["head_ip"]
    config["cluster_name"] = CLUSTER_NAME
    config["provider"].update(head_ip=HEAD.address, worker_ips=[WORKER.address])
    config.update(min_workers=1, max_workers=1)
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(STATE / "key")}
    # Nothing is built here, so the build's files stay behind; packages and token travel.
    config["file_mounts"] = {
        remote: str(ROOT / local) if (ROOT / local).is_dir() else local
        for remote, local in config["file_mounts"].items()
        if (ROOT / local).is_dir() or local.startswith("~")
    }
    environment = f"PATH={sys.prefix}/bin:$PATH PYTHONPATH=$HOME/raysplit"
    config["setup_commands"] = [
        command.replace("PATH=$HOME/raysplit-env/bin:$PATH", environment)
        for command in config["setup_commands"]
        if "bashrc" in command
    ]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[key] = [
            command.replace(old_head, HEAD.address).replace(
                "ray start", "ray start --num-cpus=1 --object-store-memory=1000000000"
            )
            for command in config[key]
        ]
    return config


def _make_keys() -> None:
    token = STATE / "launcher" / ".ray" / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    for key in (STATE / "key", *(host.folder / "host_key" for host in HOSTS)):
        key.parent.mkdir(exist_ok=True)
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))


def _connect(host: Host) -> None:
    """Give the host a namespace and a cable into the bridge."""
    outer, inner = host.cable, f"{host.name}-0"
    _call("ip", "netns", "add", host.name)
    _call("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", host.name)
    _call("ip", "link", "set", outer, "master", BRIDGE, "up")
    _call("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", inner)
    for device in ("lo", inner):
        _call("ip", "-n", host.name, "link", "set", device, "up")


def _boot(host: Host) -> None:
    (host.folder / "home").mkdir()
    values = {"folder": host.folder, "state": STATE, "sshd": shutil.which("sshd")}
    (host.folder / "sshd_config").write_text(SSHD_CONFIG.format(address=host.address, **values))
    script = host.folder / "boot.sh"
    script.write_text(HOST_SCRIPT.format(name=host.name, **values))
    new_host = ["unshare", "--pid", "--fork", "--mount", "--uts", "--mount-proc", "--kill-child"]
    with (host.folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", host.name, *new_host, "bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (host.folder / "pid").write_text(str(process.pid))


def _wait_for_ssh(host: Host) -> None:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    login = ["ssh", *options, "-o", "ConnectTimeout=2", "-i", str(STATE / "key")]
    for _ in range(60):
        if _call(*login, f"root@{host.address}", "true", check=False).returncode == 0:
            return
        time.sleep(0.5)
    sys.exit(f"{host.name} takes no ssh connection:\n{(host.folder / 'log').read_text()}")


def _kill(pid: int) -> None:
    """Kill a host by its `unshare`, after making sure that the number is still ours."""
    if not _is_ours(pid):
        return
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or _is_zombie(pid):
            return
        time.sleep(0.1)


def _is_ours(pid: int) -> bool:
    try:
        return str(STATE) in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def ray(*arguments: str) -> None:
    """Call the `ray` of this environment as a user with an own home and temporary folder would."""
    launcher = STATE / "launcher"
    environment = {
        **os.environ,
        "HOME": str(launcher),
        "TMPDIR": str(launcher),
        "RAY_TMPDIR": str(launcher),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ray = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
    done = subprocess.run(ray, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"`ray {' '.join(arguments)}` failed with status {done.returncode}")


def _ssh_sockets() -> Path:
    """Return where Ray keeps this cluster's shared ssh connections."""
    user, cluster = (hashlib.sha256(n.encode()).hexdigest()[:10] for n in (getuser(), CLUSTER_NAME))
    return Path(f"/tmp/ray_ssh_{user}/{cluster}")


def _call(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Two hosts on one machine, by `ray up`.")
    parser.add_argument("action", choices=["up", "run", "down", "once"])
    parser.add_argument("command", nargs="?", help="for run and once: a shell command for the head")
    arguments = parser.parse_args()
    if arguments.action in ("run", "once") and not arguments.command:
        parser.error(f"{arguments.action} needs a command")
    if arguments.action in ("up", "once"):
        up()
    try:
        if arguments.action in ("run", "once"):
            run(arguments.command)
    finally:
        if arguments.action in ("down", "once"):
            down()


if __name__ == "__main__":
    main()
