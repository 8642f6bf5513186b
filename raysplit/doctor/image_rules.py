"""Container images: pinned, our Ray and one Python on every node, CUDA where there are GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysplit.doctor.check import Finding, error, warning
from raysplit.doctor.instances import gpu_count
from raysplit.doctor.yaml_file import Section, node_types, section


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
        if images[name] and _has_gpus(node_type) and not re.search(r"-(cu\d+|gpu)", images[name]):
            yield error(
                f"{name} has GPUs, but its image {images[name]} has no CUDA",
                f"write docker.worker_image: rayproject/ray:{ray_version}-py311-cu128 there",
            )


def _image_of(name: str, config: Section) -> str:
    """Return the image that a node of the type would run, "" for none."""
    docker = section(config, "docker")
    if name == config.get("head_node_type"):
        return str(docker.get("head_image") or docker.get("image") or "")
    own = section(section(section(config, "available_node_types"), name), "docker")
    chosen = own.get("worker_image") or docker.get("worker_image") or docker.get("image")
    return str(chosen or "")


def _has_gpus(node_type: Section) -> bool:
    instance_type = str(section(node_type, "node_config").get("InstanceType", ""))
    return bool(gpu_count(instance_type) or section(node_type, "resources").get("GPU"))


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
    elif tag.endswith("-gpu"):
        yield warning(f"{users}: {image}: the tag -gpu moves from CUDA to CUDA", "write -cu128")
