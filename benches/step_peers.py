"""A training step of one peer, made once and then taken whenever the benchmark says so: a process for each peer and network.

    python step_peers.py PEER MODEL DATA PARAMETERS THREADS
    python step_peers.py artifacts MODEL - PARAMETERS -      what ort_training needs first

Lines on standard input: `step` makes two steps and answers with the seconds of the second; `end` answers with the peak of memory, in bytes,
over what the process held before it loaded the model, its runtime having run one operator. A peer that cannot take the model answers
`refused: WHY` at once.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import sys
import time
import types
from collections.abc import Callable

import numpy as np

Step = Callable[[], None]
RATE = 1e-3


def session(model: bytes | str, threads: int):
    import onnxruntime

    return onnxruntime.InferenceSession(model, options(threads), providers=["CPUExecutionProvider"])


def options(threads: int):
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.intra_op_num_threads, made.inter_op_num_threads = threads, 1
    # The pattern of the first run is one more block of memory beside what that run left in the arena.
    made.enable_mem_pattern = False
    return made


def ours(model: pathlib.Path, data: dict[str, np.ndarray], parameters: list[str], threads: int, batch: int | None = None) -> Step:
    """A step graph with SGD. Parameters stay with ONNX Runtime: the first step reads the file's, and what a step makes, the next one reads.

    With `batch`, `data` is of many batches of that size, which take turns.
    """
    import onnxruntime

    made = session(str(model), threads)
    outputs = {o.name: o.shape for o in made.get_outputs()}
    carried = [name for name in outputs if name.endswith("_next")]
    # Two buffers for each parameter, which take turns.
    buffers = [
        {name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(outputs[name], np.float32) for name in carried} for _ in range(2)
    ]

    starts = range(0, len(next(iter(data.values()))), batch) if batch else []
    parts = [{name: array[i : i + batch] for name, array in data.items()} for i in starts] or [data]
    batches = [{name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in part.items()} for part in parts]
    turns = itertools.cycle(batches)

    def binding(before: dict, after: dict):
        made_of = made.io_binding()
        for name, value in batches[0].items():
            made_of.bind_ortvalue_input(name, value)
        made_of.bind_cpu_input("learning_rate", np.array(RATE, np.float32))
        for name, value in before.items():
            made_of.bind_ortvalue_input(name.removesuffix("_next"), value)
        for name in outputs:
            made_of.bind_ortvalue_output(name, after[name]) if name in after else made_of.bind_output(name)
        return made_of

    made.run_with_iobinding(binding({}, buffers[0]))
    bindings = [binding(*buffers), binding(*buffers[::-1])]

    def step() -> None:
        if batch:
            for name, value in next(turns).items():
                bindings[0].bind_ortvalue_input(name, value)
        made.run_with_iobinding(bindings[0])
        bindings.reverse()

    return step


def import_training() -> None:
    # The training package imports its PyTorch-only half unless a module of that name is there already.
    sys.modules["onnxruntime.training.optim"] = types.ModuleType("onnxruntime.training.optim")


def make_artifacts(model: pathlib.Path, parameters: list[str]) -> None:
    """What ONNX Runtime's training reads, in a folder beside the model."""
    import_training()
    import onnx
    from onnxruntime.training import artifacts

    folder = model.parent / (model.stem + ".artifacts")
    folder.mkdir()
    artifacts.generate_artifacts(
        onnx.load(model), requires_grad=parameters, loss=None, optimizer=artifacts.OptimType.SGD, artifact_directory=str(folder), prefix=""
    )


def ort_training(model: pathlib.Path, data: dict[str, np.ndarray], parameters: list[str], threads: int) -> Step:
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    folder = model.parent / (model.stem + ".artifacts")
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state, session_options=options(threads))
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(RATE)
    module.train()
    feeds = [data[name] for name in module.input_names() if name in data]

    def step() -> None:
        module(*feeds)
        optimizer.step()
        module.lazy_reset_grad()

    return step


def onnx_ad(model: pathlib.Path, data: dict[str, np.ndarray], parameters: list[str], threads: int) -> Step:
    """Forward and backward pass only: it has no optimizer."""
    import onnx
    from onnx_ad.reverse import reverse

    made = onnx.load(model)
    graph = made.graph
    held = {}
    for tensor in [t for t in graph.initializer if t.name in parameters]:
        held[tensor.name] = onnx.numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    loss = graph.output[0].name
    made = reverse(made, inputs=list(held), outputs=[loss], layout="onnx")
    runtime = session(made.SerializeToString(), threads)
    shape = [1 if not isinstance(d, int) else d for o in runtime.get_inputs() if o.name == f"adj_{loss}" for d in o.shape]
    feeds = {**data, **held, f"adj_{loss}": np.ones(shape, np.float32)}
    wanted = [loss, *(o.name for o in runtime.get_outputs() if o.name.startswith("adj_"))]
    return lambda: runtime.run(wanted, feeds) and None


def pytorch(model: pathlib.Path, data: dict[str, np.ndarray], parameters: list[str], threads: int) -> Step:
    import torch

    import step_nets

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = step_nets.NETS[model.stem.split(".")[0]]().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    x, y = (torch.from_numpy(data[name]) for name in data)

    def step() -> None:
        optimizer.zero_grad()
        net(x, y).backward()
        optimizer.step()

    return step


PEERS = {"ours": ours, "ort_training": ort_training, "onnx_ad": onnx_ad, "pytorch": pytorch}
IMPORTS = {
    "ours": ["onnxruntime"],
    "ort_training": ["onnxruntime", "onnxruntime.training.api"],
    "onnx_ad": ["onnx", "onnxruntime", "onnx_ad.reverse"],
    "pytorch": ["torch"],
}


def start_runtime(peer: str, threads: int) -> None:
    """Runs one operator: what a runtime sets up once, its table of operators and its threads, is no cost of a step."""
    if peer == "pytorch":
        import torch

        torch.set_num_threads(threads)
        layer = torch.nn.Linear(1, 1)
        layer(torch.ones(1, 1)).sum().backward()
        return
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "one", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session(model.SerializeToString(), threads).run(None, {"x": np.ones(1, np.float32)})


def memory(field: str) -> int:
    """VmRSS or VmHWM (its peak), in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) * 1024


def main() -> None:
    peer, model, data, parameters, threads = sys.argv[1:]
    if peer == "artifacts":
        make_artifacts(pathlib.Path(model), json.loads(parameters))
        return
    if peer == "ort_training":
        import_training()
    for name in IMPORTS[peer]:
        __import__(name)
    inputs = dict(np.load(data))
    start_runtime(peer, int(threads))
    # The peak begins anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    try:
        step = PEERS[peer](pathlib.Path(model), inputs, json.loads(parameters), int(threads))
        step()
    except Exception as error:
        print("refused:", re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300], flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            break
        step()
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)
    print(memory("VmHWM") - before, flush=True)


if __name__ == "__main__":
    main()
