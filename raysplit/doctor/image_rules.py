"""Container images: pinned, our Ray and one Python on every node, CUDA where there are GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.instances import gpu_count, instance_types, is_arm
from raysplit.doctor.yaml_file import Section, node_types, section

OLDEST_PYTHON = (3, 11)  # of pyproject.toml
# Ray's own tags: 2.60.0-py311-cpu, 2.60.0-extra-py311-cu128, 2.60.0-py312-cu128-aarch64.
_TAG = re.compile(
    r"[\w.]+(-extra)?(-py3(?P<minor>\d+))?(-(cpu|gpu|tpu|cu1[1-4]\d?|rocm[\d.]*))?(-aarch64)?"
)
_GPU_TAG = re.compile(r"-(cu\d+|gpu|rocm)")


def image_findings(config: Section, ray_version: str) -> Iterator[Finding]:
    """Yield faults of the images; `ray_version` is the one the project is pinned to."""
    images = {name: _image_of(name, config) for name in node_types(config) or ("docker",)}
    for image in sorted(set(images.values())):
        users = ", ".join(name for name in images if images[name] == image)
        yield from _pin(users, image, ray_version)
    pythons = {tag for image in images.values() for tag in re.findall(r"-(py\d+)", image)}
    if len(pythons) > 1:
        yield error(
            f"the images have different Pythons ({', '.join(sorted(pythons))})",
            "use one Python on every node: Ray refuses a mix",
        )
    for name, node_type in node_types(config).items():
        if images[name] and _has_gpus(node_type) and not _GPU_TAG.search(images[name]):
            yield error(
                f"{name} has GPUs, but its image {images[name]} has no CUDA",
                f"write docker.worker_image: rayproject/ray:{ray_version}-py311-cu128 there",
            )
        yield from _processor(name, images[name], node_type)


def _image_of(name: str, config: Section) -> str:
    """Return the image that a node of the type would run, "" for none."""
    docker = section(config, "docker")
    if name == config.get("head_node_type"):
        return str(docker.get("head_image") or docker.get("image") or "")
    own = section(section(section(config, "available_node_types"), name), "docker")
    chosen = own.get("worker_image") or docker.get("worker_image") or docker.get("image")
    return str(chosen or "")


def _instance_type(node_type: Section) -> str:
    return str(section(node_type, "node_config").get("InstanceType", ""))


def _has_gpus(node_type: Section) -> bool:
    instance_type = _instance_type(node_type)
    return bool(gpu_count(instance_type) or section(node_type, "resources").get("GPU"))


def _processor(name: str, image: str, node_type: Section) -> Iterator[Finding]:
    """Yield an image of Ray's for the other processor: it would not even start."""
    instance_type = _instance_type(node_type)
    if "rayproject/ray:" not in image or "@" in image or instance_type not in instance_types():
        return
    if is_arm(instance_type) and not image.endswith("-aarch64"):
        yield error(
            f"{name}: a {instance_type} is an ARM machine, {image} is for x86",
            "append -aarch64 to the image, or write an x86 InstanceType",
        )
    if image.endswith("-aarch64") and not is_arm(instance_type):
        yield error(
            f"{name}: a {instance_type} is an x86 machine, {image} is for ARM",
            "remove -aarch64 from the image, or write a Graviton InstanceType",
        )


def _pin(users: str, image: str, ray_version: str) -> Iterator[Finding]:
    remedy = f"write rayproject/ray:{ray_version}-py311-cpu or -cu128"
    if not image:
        yield warning(f"{users}: no docker image: the machine's Python decides what runs", remedy)
        return
    if "@sha256:" in image:
        return
    repository, _, tag = image.rpartition(":")
    if not repository or "/" in tag or re.match(r"(latest|nightly)", tag):
        yield error(f"{users}: {image} is not pinned to a version", remedy)
    elif not repository.endswith("rayproject/ray"):
        yield warning(
            f"{users}: {image} is not one of Ray's own images", f"make sure it has {ray_version}"
        )
    elif tag.split("-")[0] != ray_version:
        yield error(f"{users}: {image} has another Ray than {ray_version}", remedy)
    else:
        yield from _tag(users, image, tag, remedy)


def _tag(users: str, image: str, tag: str, remedy: str) -> Iterator[Finding]:
    parts = _TAG.fullmatch(tag)
    if not parts:
        yield error(f"{users}: {image} is no tag of Ray's images", remedy)
    elif parts["minor"] is None:
        yield error(f"{users}: {image} names no Python, so it has Ray's oldest", remedy)
    elif (3, int(parts["minor"])) < OLDEST_PYTHON:
        yield error(f"{users}: {image} has an older Python than raysplit needs", remedy)
    elif "-gpu" in tag:
        yield warning(f"{users}: {image}: the tag -gpu moves from CUDA to CUDA", "write -cu128")
