"""The operator tests of ONNX, with their inputs as parameters: `--for ort-training` gives the same function, or names what it cannot rewrite."""

import collections
import dataclasses
import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import corpus as wheels
import ort
import taps
from command import per_inject

# Counted over the 1,282 operator tests; a change of any of these numbers is a change of behaviour.
REWRITTEN = 324
TRAINED = 288

# Over the largest element, on the same runtime; products of a dozen factors and sums over windows are ordered otherwise.
TOLERANCE = 2e-6

# Operators that have no exact rewriting into what has a gradient, or none that anyone trains through.
REFUSED = set(
    "AffineGrid AveragePool Bernoulli CenterCropPad Col2Im Compress DFT DeformConv DequantizeLinear Det DynamicQuantizeLinear "
    "GridSample Hardmax If Loop MaxUnpool MelWeightMatrix OptionalGetElement Pad Pow RoiAlign STFT Unique".split()
)


@dataclasses.dataclass(frozen=True)
class Sample:
    name: str
    model: onnx.ModelProto
    feeds: dict
    parameters: list


def sample(path):
    """The test's graph, differentiated by its float inputs; `None` where it has none, or is older than operator set 11."""
    model = onnx.load(path)
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not versions or versions[0] < 11:
        return None
    data = wheels.node_test_data(path)[0]
    floats = [n for n, v in data.inputs.items() if v.dtype == np.float32 and v.size]
    outputs = [o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT]
    if data.skipped or not floats or not outputs:
        return None
    # Axes, shapes and the like are constants, as exporters write them.
    fixed = [n for n, v in data.inputs.items() if n in floats or (v.dtype in (np.int64, np.bool_) and v.size <= 64)]
    feeds = {n: v for n, v in data.inputs.items() if n not in fixed}
    kept = [value for value in model.graph.input if value.name in feeds]
    del model.graph.input[:]
    model.graph.input.extend([*kept, helper.make_tensor_value_info("the_one", TensorProto.FLOAT, [])])
    model.graph.initializer.extend(numpy_helper.from_array(data.inputs[n], n) for n in fixed)
    model.graph.node.append(helper.make_node("ReduceMean", [outputs[0]], ["the_mean"], keepdims=0))
    model.graph.node.append(helper.make_node("Mul", ["the_mean", "the_one"], ["the_loss"]))
    model.graph.output.append(helper.make_tensor_value_info("the_loss", TensorProto.FLOAT, []))
    return Sample(path.parent.name, model, {**feeds, "the_one": np.array(1, np.float32)}, [floats[0]])


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """(sample, the rewritten model or the refusal) for every sample that is not left as it is."""
    folder = tmp_path_factory.mktemp("corpus")

    def lower(one):
        source, target = folder / f"{one.name}.onnx", folder / f"{one.name}.lowered.onnx"
        source.write_bytes(one.model.SerializeToString())
        options = ["--for", "ort-training", "--coef", 0, "--loss", "the_loss", "--wrt", "all", "--json"]
        run = per_inject(source, *options, "-o", target, check=False)
        if run.returncode != 0:
            return one, taps.refusal(run)
        return one, target.read_bytes() if json.loads(run.stdout)["rewritten"] else None

    samples = [one for one in map(sample, wheels.node_tests()) if one]
    return [(one, result) for one, result in taps.in_parallel(lower, samples) if result is not None]


def test_what_is_rewritten_computes_the_same(lowered, session):
    same, different = 0, []
    for one, data in lowered:
        if isinstance(data, str):
            continue
        names = [o.name for o in one.model.graph.output]
        try:
            before = session(one.model).run(names, one.feeds)
        except Exception:
            # Stock ONNX Runtime has no kernel of it.
            continue
        after = session(data).run(names, one.feeds)
        scale = max(np.abs(b[np.isfinite(b)]).max(initial=0) for b in map(np.asarray, before))
        for name, old, new in zip(names, before, after):
            if old.shape != new.shape or not np.allclose(new, old, rtol=0, atol=TOLERANCE * max(scale, 1e-3), equal_nan=True):
                different.append(f"{one.name}: {name}")
        same += 1
    assert not different, different
    assert same == REWRITTEN


def test_what_is_refused_is_named(lowered):
    refusals = [text for _, text in lowered if isinstance(text, str)]
    named = collections.Counter(op for text in refusals for op in re.findall(r"\b(?:node \d+|\"[^\"]*\") \((\w+)\)", text))
    assert set(named) == REFUSED
    assert all("cannot be rewritten for ONNX Runtime training" in text for text in refusals)


def test_what_is_rewritten_trains(lowered):
    jobs = [(one, data) for one, data in lowered if isinstance(data, bytes)]
    steps = ort.gradients_of_each([(data, one.feeds, one.parameters) for one, data in jobs])
    trained = [one.name for (one, _), step in zip(jobs, steps) if not isinstance(step, Exception)]
    # The others have a gradient that is 0, or parameters that are none (a type, a quantised tensor).
    assert len(trained) >= TRAINED
