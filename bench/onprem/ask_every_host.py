"""Wait for N nodes, run one task on each, print {node address: host name} as JSON.

python bench/onprem/ask_every_host.py 2        # on a machine of the cluster
"""

from __future__ import annotations

import json
import socket
import sys
import time

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

DEADLINE_S = 180


@ray.remote(num_cpus=1)
def host_name() -> str:
    """Return the name of the host that runs the task."""
    return socket.gethostname()


def main(expected: int) -> None:
    """Print who answered; exit with a message if fewer nodes than expected join in time."""
    ray.init(address="auto", log_to_driver=False)
    deadline = time.monotonic() + DEADLINE_S
    while len(nodes := [node for node in ray.nodes() if node["Alive"]]) < expected:
        if time.monotonic() > deadline:
            sys.exit(f"{len(nodes)} of {expected} nodes joined within {DEADLINE_S} s")
        time.sleep(1)
    answers = {
        node["NodeManagerAddress"]: host_name.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    }
    print(json.dumps({address: ray.get(answer) for address, answer in answers.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
