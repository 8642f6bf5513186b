"""A policy as an ONNX graph, for runtimes that are not Python. Needs the extra `onnx`.

The graph takes `inputs` (N, I), float32, in raw units (link state, split point, and the step where
the policy sees it), and gives `outputs` (N, A) and `action` (N,): 0, 1, 2 move the split point by
-1, 0, +1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raysplit.base.errors import UserError
from tuning.policy import ExportedPolicy

OPSET = 17


def export_onnx(policy: ExportedPolicy, path: Path) -> None:
    """Write a policy as an ONNX file.

    Raises:
        UserError: The package onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise UserError("ONNX export needs onnx: pip install 'raysplit[onnx]'") from error

    inputs, outputs = len(policy.centre_I), len(policy.layers[-1][1])
    constants = {"centre": policy.centre_I, "half_range": policy.half_range_I}
    nodes = [
        helper.make_node("Sub", ["inputs", "centre"], ["centred"]),
        helper.make_node("Div", ["centred", "half_range"], ["x0"]),
    ]
    activation = policy.description.activation.capitalize()
    for number, (weight, bias) in enumerate(policy.layers):
        constants |= {f"w{number}": np.ascontiguousarray(weight), f"b{number}": bias}
        last = number == len(policy.layers) - 1
        linear = "outputs" if last else f"y{number}"
        gemm = [f"x{number}", f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Gemm", gemm, [linear], transB=1))
        if not last:
            nodes.append(helper.make_node(activation, [linear], [f"x{number + 1}"]))
    nodes.append(helper.make_node("ArgMax", ["outputs"], ["action"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["N", inputs])],
        [
            helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["N", outputs]),
            helper.make_tensor_value_info("action", TensorProto.INT64, ["N"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # The oldest IR that knows this opset: runtimes refuse files newer than themselves.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    columns = [*policy.description.link_names, "split_point"]
    helper.set_model_props(
        model,
        {
            "inputs": ",".join(columns + ["step"] * policy.description.sees_step),
            "trained_by": policy.description.trained_by,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
