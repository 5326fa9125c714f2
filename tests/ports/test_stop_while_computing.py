"""A stop in good order while a model computes is no crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.needs import need_module

for name in ("onnx", "onnxruntime"):
    need_module(name)

SCRIPT = """
import threading
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from hypnocast.ports.system import leave_computing

side = 2000
shape = [side, side]
node = helper.make_node("MatMul", ["x", "x"], ["y"])
ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
graph = helper.make_graph([node], "g", ports[:1], ports[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
begun = threading.Event()

def compute():
    x = np.ones(shape, np.float32)
    begun.set()
    while computing:
        session.run(None, {"x": x})

computing = %s
threading.Thread(target=compute, name="judge", daemon=True).start()
begun.wait()
print("ended in good order")
leave_computing("judge", 0.2)
print("the interpreter ends")
"""


@pytest.mark.parametrize(("computing", "last"), [(True, "ended in good order"), (False, "ends")])
def test_a_process_ends_with_0_whether_its_model_computes_or_not(
    *, computing: bool, last: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT % computing],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip().endswith(last)
