"""What runs on a node: its image, the mounted files, Ray's token, the project with our Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from raysplit.base.files import at_home
from raysplit.doctor import ec2
from raysplit.doctor.check import Check, about, error, ok, warning
from raysplit.doctor.cluster_yaml import ClusterFile, Node, Section, part, strings
from raysplit.doctor.machine_image import image_id, system_python
from raysplit.doctor.start_rules import HEAD, start_commands_of

OLDEST_PYTHON = (3, 11)  # of pyproject.toml
# Ray's own tags: 2.60.0-py311-cpu, 2.60.0-extra-py311-cu128, 2.60.0-py312-cu128-aarch64.
_TAG = re.compile(
    r"[\w.]+(-extra)?(-py3(?P<minor>\d+))?(-(cpu|gpu|tpu|cu1[1-4]\d?|rocm[\d.]*))?(-aarch64)?"
)
_GPU_TAG = re.compile(r"-(cu\d+|gpu|rocm)")
_COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_TOKEN = "~/.ray/auth_token"
# What the build reads, see pyproject.toml.
_PROJECT_PARTS = ("pyproject.toml", "README.md", "LICENSE", "raysplit", "envs", "tuning")
_HOME = re.compile(r"\$HOME\b|\$\{HOME\}")  # what a shell takes for ~
_HOME_PATH = re.compile(r"~/[\w./-]+")
# ray==2.59.0, ray[default]>=2.4,<3; and a wheel: .../ray-3.0.0.dev0-cp311-cp311-linux.whl
_VERSION = r"(?:===|[=~!<>]=|[<>])\s*\d[\w.*+]*"
_RAY_PIN = re.compile(rf"(?<![\w./-])ray(?:\[[^\]]*\])?\s*({_VERSION}(?:\s*,\s*{_VERSION})*)")
# python3.10, pip3.10, python=3.10 (of conda)
_NAMED_PYTHON = re.compile(r"(?:python|pip)={0,2}3\.(\d+)")
_PIP_INSTALL = re.compile(r"\bpip[\d.]* install\b")
_RAY_WHEEL = re.compile(r"(?<![\w.-])ray-([\w.+]+)-[\w.-]+\.whl")


def image_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of the images that the nodes run."""
    if file.is_local and not file.docker:
        yield ok("none: the machines' own Python runs")
        return
    everywhere = file.docker.get("worker_image") or file.docker.get("image") or ""
    images = {node.name: _image_of(node, file.docker) for node in file.nodes}
    images = images or {"docker": str(everywhere)}
    for image in sorted(set(images.values())):
        users = ", ".join(name for name in images if images[name] == image)
        yield from about(users, _pin(image, file.ray_version))
    pythons = sorted({tag for image in images.values() for tag in re.findall(r"-(py\d+)", image)})
    if len(pythons) > 1:
        fault = f"the images have different Pythons ({', '.join(pythons)})"
        yield error(fault, "use one Python on every node: Ray refuses a mix")
    for node in file.nodes:
        yield from about(node.name, _machine(node, images[node.name], file.ray_version))


def _image_of(node: Node, docker: Section) -> str:
    """Return the image that a node of the type would run, "" for none."""
    own = part(node.config, "docker", dict).get("worker_image") or docker.get("worker_image")
    chosen = docker.get("head_image") if node.is_head else own
    return str(chosen or docker.get("image") or "")


def _pin(image: str, ray_version: str) -> Iterator[Check]:
    remedy = f"write rayproject/ray:{ray_version}-py311-cpu or -cu128"
    repository, _, tag = image.rpartition(":")
    parts = _TAG.fullmatch(tag)
    if not image:
        yield warning("no docker image: the machine's Python decides what runs", remedy)
    elif "@sha256:" in image:
        return
    elif not repository or "/" in tag or re.match(r"(latest|nightly)", tag):
        yield error(f"{image} is not pinned to a version", remedy)
    elif not repository.endswith("rayproject/ray"):
        yield warning(f"{image} is not one of Ray's own", f"make sure it has Ray {ray_version}")
    elif tag.split("-")[0] != ray_version:
        yield error(f"{image} has another Ray than {ray_version}", remedy)
    elif not parts:
        yield error(f"{image} is no tag of Ray's images", remedy)
    elif parts["minor"] is None:
        yield error(f"{image} names no Python, so it has Ray's oldest", remedy)
    elif (3, int(parts["minor"])) < OLDEST_PYTHON:
        yield error(f"{image} has an older Python than raysplit needs", remedy)
    elif "-gpu" in tag:
        yield warning(f"{image}: the tag -gpu moves from CUDA to CUDA", "write -cu128")


def _machine(node: Node, image: str, ray_version: str) -> Iterator[Check]:
    """Yield an image that the GPUs or the processor of the machine cannot use."""
    machine, for_arm = node.instance_type, image.endswith("-aarch64")
    has_gpus = ec2.gpu_count(machine) or node.resources.get("GPU")
    if image and has_gpus and not _GPU_TAG.search(image):
        remedy = f"write docker.worker_image: rayproject/ray:{ray_version}-py311-cu128 there"
        yield error(f"it has GPUs, but its image {image} has no CUDA", remedy)
    if "rayproject/ray:" not in image or "@" in image or not ec2.may_exist(machine):
        return
    here, other = ("ARM", "x86") if ec2.is_arm(machine) else ("x86", "ARM")
    if for_arm != ec2.is_arm(machine):
        fault = f"a {machine} is an {here} machine, {image} is for {other}"
        yield error(fault, "end the image in -aarch64 for ARM only, or change the InstanceType")


def mount_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield local paths of file mounts that do not exist (relative ones: in the current folder)."""
    for remote, local in file.mounts.items():
        path, wanted = at_home(Path(local)), f"{local}, wanted at {remote},"
        if os.path.exists(path):
            continue
        if local == _TOKEN:
            yield warning(
                f"{_TOKEN} is not here", "run `ray get-auth-token --generate > /dev/null`"
            )
        elif path.is_absolute():
            yield error(f"{wanted} does not exist here", "correct the path")
        else:
            remedy = "run the doctor and `ray up` in the folder of the cluster file"
            yield error(f"{wanted} is not in the current folder", remedy)


def token_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield a fault where no file mount brings the token that RAY_AUTH_MODE=token asks for."""
    heads = start_commands_of(file, HEAD)
    wanted = heads[0].environment.get("RAY_AUTH_TOKEN_PATH", _TOKEN) if heads else _TOKEN
    wanted = _HOME.sub("~", wanted)
    if not _is_mounted(wanted, file.mounts):
        fault = f"no file mount brings {wanted}: the launcher does not carry Ray's token"
        yield error(fault, f'add "{wanted}": "{_TOKEN}" to file_mounts')


def _is_mounted(path: str, mounts: Iterable[str]) -> bool:
    """Return whether a remote path, or a folder around it, is among the mounts."""
    return any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)


def setup_findings(file: ClusterFile) -> Iterator[Check]:
    """Yield faults of the commands that install the project."""
    for place in (file.config, *(node.config for node in file.nodes)):
        for key in (key for key in place if str(key).endswith("_commands")):
            yield from _other_ray(key, strings(place, key), file.ray_version)
    yield from _other_python(file)
    commands = strings(file.config, "setup_commands")
    text = "\n".join(commands)
    if not commands:
        fault = "setup_commands is missing: no node has raysplit, and on AWS Ray is a nightly"
        yield error(fault, "write setup_commands as in the shipped file")
        return
    if not _PIP_INSTALL.search(text):
        yield error("setup_commands installs nothing", "add the pip install of the shipped file")
    elif "constraints.txt" not in text:
        fault = "setup_commands installs without constraints.txt: versions differ from yours"
        yield warning(fault, "write pip install -c ~/raysplit/constraints.txt -e ~/raysplit")
    if "RAY_AUTH_MODE" not in text:
        fault = "setup_commands sets no RAY_AUTH_MODE for logins: `ray exec` gets InvalidToken"
        yield warning(fault, "write the line with ~/.bashrc of the shipped file")
    for command in commands:
        arguments = _HOME.sub("~", (*_PIP_INSTALL.split(command, maxsplit=1), "")[1])
        yield from _unmounted(arguments, file.mounts)


def _other_ray(key: str, commands: list[str], ray_version: str) -> Iterator[Check]:
    """Yield versions of Ray that the other nodes would refuse."""
    text = "\n".join(commands)
    pins = [pin for pin in _RAY_PIN.findall(text) if not _allows(pin, ray_version)]
    pins += [wheel for wheel in _RAY_WHEEL.findall(text) if wheel != ray_version]
    for pin in pins:
        fault = f"{key} installs Ray {pin}, the project is pinned to {ray_version}"
        yield error(fault, f"remove it, or write ray=={ray_version}")


def _other_python(file: ClusterFile) -> Iterator[Check]:
    """Yield commands for another Python than that of the node, and a node whose Python is too old.

    `initialization_commands` run on the machine, the others in the container, where there is one.
    """
    text = "\n".join(command for key in _COMMANDS for command in strings(file.config, key))
    named = {int(minor) for minor in _NAMED_PYTHON.findall(text)}
    for node in file.nodes:
        image = _image_of(node, file.docker)
        tag = _TAG.fullmatch(image.rpartition(":")[2])
        if "rayproject/ray:" in image and tag and tag["minor"]:
            for minor in sorted(named - {int(tag["minor"])}):
                fault = f"a command is for Python 3.{minor}, {image} has 3.{tag['minor']}"
                remedy = "write python and pip without a number, or change the image"
                yield error(f"{node.name}: {fault}", remedy)
        of_machine = None if image else system_python(image_id(node))
        # A Python that a command names may be one that it installs.
        if of_machine and of_machine[1] < OLDEST_PYTHON and not named:
            system, (major, minor) = of_machine
            oldest = ".".join(map(str, OLDEST_PYTHON))
            fault = f"{system} has Python {major}.{minor}, raysplit needs {oldest}"
            remedy = "name a docker.image as in the shipped file, or install that Python"
            yield error(f"{node.name}: {fault}", remedy)


def _allows(pin: str, version: str) -> bool:
    try:
        return SpecifierSet(pin).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def _unmounted(arguments: str, mounts: Iterable[str]) -> Iterator[Check]:
    """Yield what the arguments of a `pip install` name and no file mount brings."""
    for path in _HOME_PATH.findall(arguments):
        if not (_is_mounted(path, mounts) or any(_is_mounted(mount, [path]) for mount in mounts)):
            yield error(f"setup_commands uses {path}, which no file mount brings", "add it")
    for project in re.findall(r"-e (~/[\w./-]+)", arguments):
        for name in _PROJECT_PARTS:
            if not _is_mounted(f"{project}/{name}", mounts):
                fault = f"{name} is missing in {project}, so the project cannot be installed"
                yield error(fault, f'add "{project}/{name}": {name} to file_mounts')
