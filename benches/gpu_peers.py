"""Training steps on a device, as many as benchmark gpu.py asks for: a process for each peer, network and precision.

    python gpu_peers.py ours STEP.onnx DATA.npz DEVICE TF32
    python gpu_peers.py pytorch NET DATA.npz DEVICE TF32     NET as of step_nets.py: cnn11:WIDTH or fixup:DEPTH

DEVICE is cpu or cuda:N, TF32 on or off. DATA holds the batch, and under `weight:NUMBER` the parameters in the order of the network, which
PyTorch begins with, too. The batch lies on the device before the clock starts. Lines on standard input: `steps N` makes so many and
answers with the seconds of one, `loss` with the loss of the next step. A peer that fails to start answers `refused: WHY`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import numpy as np

RATE = 1e-4
# Makes steps and gives the loss of the last one, once all of them are done.
Steps = Callable[[int], float]


def ours(model: str, data: dict[str, np.ndarray], device: str, tf32: bool) -> Steps:
    """A step graph with SGD on stock ONNX Runtime. Parameters stay on the device: what a step makes, the next one reads."""
    import onnxruntime
    from onnxruntime import OrtValue

    kind, _, index = device.partition(":")
    place = (kind, int(index or 0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if kind == "cuda":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        # As `per-inject train` has them.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": place[1], "use_tf32": int(tf32), "cudnn_conv_algo_search": "EXHAUSTIVE"}))
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    # ONNX Runtime goes on without a provider that it cannot have.
    if kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime has no CUDA provider here, or cannot load it")
    outputs = {o.name: o.shape for o in session.get_outputs()}
    carried = [name for name in outputs if name.endswith("_next")]
    fed = {name: OrtValue.ortvalue_from_numpy(array, *place) for name, array in data.items()}
    # Two buffers for each parameter, which take turns.
    buffers = [{name: OrtValue.ortvalue_from_shape_and_type(outputs[name], np.float32, *place) for name in carried} for _ in range(2)]

    def binding(before: dict[str, OrtValue], after: dict[str, OrtValue]):
        made = session.io_binding()
        for name, value in fed.items():
            made.bind_ortvalue_input(name, value)
        made.bind_cpu_input("learning_rate", np.array(RATE, np.float32))
        for name, value in before.items():
            made.bind_ortvalue_input(name.removesuffix("_next"), value)
        for name in outputs:
            made.bind_ortvalue_output(name, after[name]) if name in after else made.bind_output(name)
        return made

    # The first step reads the parameters that the graph has.
    session.run_with_iobinding(binding({}, buffers[0]))
    bindings = [binding(*buffers), binding(*buffers[::-1])]

    def steps(count: int) -> float:
        for _ in range(count):
            session.run_with_iobinding(bindings[0])
            bindings.reverse()
        return float(bindings[1].get_outputs()[0].numpy())

    return steps


def pytorch(net: str, data: dict[str, np.ndarray], device: str, tf32: bool) -> Steps:
    import torch

    import step_nets

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    # As ONNX Runtime chooses an algorithm for a convolution.
    torch.backends.cudnn.benchmark = True
    family, _, size = net.partition(":")
    made = step_nets.cnn11(float(size)) if family == "cnn11" else step_nets.fixup(int(size))
    parameters = list(made.parameters())
    weights = [torch.from_numpy(data.pop(f"weight:{i}")) for i in range(len(parameters))]
    assert [tuple(p.shape) for p in parameters] == [tuple(w.shape) for w in weights], "another network"
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights):
            parameter.copy_(weight)
    made = made.train().to(device)
    optimizer = torch.optim.SGD(made.parameters(), lr=RATE)
    x, target = (torch.from_numpy(data[name]).to(device) for name in ("x", "target"))

    def steps(count: int) -> float:
        for _ in range(count):
            optimizer.zero_grad()
            loss = made(x, target)
            loss.backward()
            optimizer.step()
        # Waits for the device.
        return loss.item()

    steps(1)
    return steps


def main() -> None:
    peer, model, data, device, tf32 = sys.argv[1:]
    arrays = dict(np.load(data))
    try:
        if peer == "ours":
            steps = ours(model, {name: a for name, a in arrays.items() if not name.startswith("weight:")}, device, tf32 == "on")
        else:
            steps = pytorch(model, arrays, device, tf32 == "on")
    except Exception as error:
        print("refused:", re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300], flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        what, _, count = line.strip().partition(" ")
        if what == "loss":
            print(steps(1), flush=True)
            continue
        start = time.perf_counter()
        steps(int(count))
        print((time.perf_counter() - start) / int(count), flush=True)


if __name__ == "__main__":
    main()
