"""ONNX's operator tests as gradient problems: each in float64, its float inputs trained, and a loss that every float output's entries reach.

Where inputs sit on a kink (ties, 0 of Relu, bounds of Clip) both sides differ, so all inputs are moved a little, the same way each time; what
holds at the kinks themselves is in test_gradient_kinks.py.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import pathlib
import tempfile
import time
import warnings
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import corpus as wheels
import gradient_ops
import ort
import taps
from command import per_inject
from onnx.reference import ReferenceEvaluator

DOUBLE = TensorProto.DOUBLE
NARROW = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}

# Central differences with this step: 1e-12 of truncation, and 1e-16/1e-6 of rounding.
STEP = 1e-6

# How far each number is moved, at most. The nearest kink is then further away than a step, and numbers near 0 do not bend what is divided by
# their length within one.
MOVED = 1e-2

# Over the largest entry of all gradients (or the loss, where these are small), for derivatives of a scale up to 100.
TOLERANCE = 1e-6

# Every coordinate of smaller inputs is moved; of larger ones some, and all at once in some directions.
SMALL, COORDINATES, DIRECTIONS = 24, 6, 2

# Float inputs that no gradient passes to, by operator and position: sizes, weights of classes, running statistics, a type.
SETTINGS = {
    "Resize": {1, 2},
    "Upsample": {1},
    "Dropout": {1},
    "Range": {0, 1, 2},
    "OneHot": {0, 1},
    "BatchNormalization": {3, 4},
    "SoftmaxCrossEntropyLoss": {2},
    "NegativeLogLikelihoodLoss": {2},
    "CastLike": {1},
}

# Of these, resizing and sizes are float32 whatever the data are.
SINGLE = {"Resize", "Upsample"}

# Inputs outside of these ranges are brought into them: the end of a domain, behind which differences do not exist.
DOMAINS = {"Acosh": (1.01, None)}

# Moved the other way, as this way (limit − start)/delta passes a whole number and the sequence becomes longer than the test's.
MIRRORED = {"test_range_float16_type_positive_delta_expanded", "test_range_bfloat16_type_positive_delta_expanded"}

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

# The newest operator set that is tested; a test is brought to it (or less) only where its operators stay what they are.
NEWEST = 26

# Operators whose integer inputs are data, not settings: they are fed.
FED = {"Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"}


@dataclasses.dataclass(frozen=True)
class NodeTest:
    """One of ONNX's operator tests with its first data set."""

    name: str
    model: onnx.ModelProto
    inputs: dict
    outputs: dict

    @property
    def opset(self) -> int:
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)

    @property
    def operators(self) -> list[str]:
        return sorted({node.op_type for node in self.model.graph.node})

    @property
    def is_expanded(self) -> bool:
        return "_expanded" in self.name

    def versions(self) -> tuple:
        """The versions of the operators in it: which of several tests of a name are the same test."""
        found = set()
        for node in self.model.graph.node:
            try:
                found.add((node.op_type, onnx.defs.get_schema(node.op_type, self.opset, node.domain).since_version))
            except onnx.defs.SchemaError:
                found.add((node.op_type, self.opset))
        return (self.name, *sorted(found))


@functools.cache
def node_tests() -> tuple[NodeTest, ...]:
    """Those in the older wheel, and those that the newer one generates where the test or a version of an operator is new."""
    tests = {}
    for path in wheels.node_tests():
        model = onnx.load(path)
        if any(value.type.WhichOneof("value") != "tensor_type" for value in [*model.graph.input, *model.graph.output]):
            continue
        data = wheels.node_test_data(path)
        if data:
            test = NodeTest(path.parent.name, model, data[0].inputs, data[0].outputs)
            tests.setdefault(test.versions(), test)
    for test in _generated():
        tests.setdefault(test.versions(), test)
    return tuple(tests.values())


def _generated():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(0)
        found = collect_testcases(None)
    for case in found:
        graph = case.model.graph
        if any(value.type.WhichOneof("value") != "tensor_type" for value in [*graph.input, *graph.output]):
            continue
        inputs, outputs = case.data_sets[0]
        array = lambda v: numpy_helper.to_array(v) if isinstance(v, TensorProto) else np.asarray(v)
        named = lambda declared, values: {d.name: array(v) for d, v in zip(declared, values)}
        yield NodeTest(case.name, case.model, named(graph.input, inputs), named(graph.output, outputs))


def is_float(array: np.ndarray) -> bool:
    return array.dtype in (np.float16, np.float32, np.float64) or array.dtype.name == "bfloat16"


def double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float64."""
    model = copy.deepcopy(model)

    def graph(g):
        for value in [*g.input, *g.output, *g.value_info]:
            kind = value.type.tensor_type
            if kind.elem_type in NARROW:
                kind.elem_type = DOUBLE
        for tensor in g.initializer:
            if tensor.data_type in NARROW:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
        nodes(g.node)

    def nodes(them):
        for node in them:
            constants = [a for a in node.attribute if node.op_type == "Constant" and a.name in ("value_float", "value_floats")]
            for a in constants:
                value = np.array(a.f if a.name == "value_float" else list(a.floats), np.float64)
                node.attribute.remove(a)
                node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))
            if node.op_type == "ConstantOfShape" and not node.attribute:
                node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
            for a in node.attribute:
                if a.name in ("to", "dtype", "stash_type", "softmax_precision") and a.i in NARROW:
                    a.i = DOUBLE
                if a.HasField("t") and a.t.data_type in NARROW:
                    a.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(a.t).astype(np.float64)))
                if a.HasField("g"):
                    graph(a.g)

    graph(model.graph)
    for function in model.functions:
        nodes(function.node)
    return model


@dataclasses.dataclass
class Problem:
    """A scalar loss behind a test's graph. `moved` are the inputs that are trained."""

    test: NodeTest
    model: onnx.ModelProto
    moved: dict
    feeds: dict


def problem(test: NodeTest) -> Problem | None:
    """`None` where the test has no float input or no float output."""
    stored = {t.name for t in test.model.graph.initializer}
    rng = np.random.default_rng(zlib.crc32(test.name.encode()))
    way = -1 if test.name in MIRRORED else 1
    read = {}
    for node in test.model.graph.node:
        for slot, name in enumerate(node.input):
            read.setdefault(name, []).append((node.op_type, slot))
    settings = {n for n, uses in read.items() if any(slot in SETTINGS.get(op, ()) for op, slot in uses)}
    single = {n for n, uses in read.items() if any(op in SINGLE and n in settings for op, _ in uses)}
    moved, fixed, feeds = {}, {}, {}
    for name, value in test.inputs.items():
        if name in stored:
            continue
        if is_float(value) and name in read and name not in settings and value.size:
            finite = np.nan_to_num(value.astype(np.float64), nan=0.3, posinf=3.0, neginf=-3.0)
            low, high = next((DOMAINS[op] for op, _ in read.get(name, ()) if op in DOMAINS), (None, None))
            moved[name] = np.clip(finite + way * rng.uniform(-MOVED, MOVED, value.shape), low, high)
        elif is_float(value):
            fixed[name] = value.astype(np.float32 if name in single else np.float64)
        elif value.dtype.kind in "iu" and any(op in FED for op, _ in read.get(name, ())):
            feeds[name] = value
        else:
            fixed[name] = value
    outputs = [n for n, v in test.outputs.items() if is_float(v) and v.size]
    if not moved or not outputs:
        return None
    model = double(test.model)
    graph = model.graph
    kept = [value for value in graph.input if value.name in feeds]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in {**moved, **fixed}.items())
    sums = []
    for k, name in enumerate(outputs):
        value = test.outputs[name]
        weights = rng.uniform(0.5, 1.5, value.shape)
        if not np.isfinite(value.astype(np.float64)).all():
            # What is infinite has no slope, and would hide that of the others.
            graph.initializer.append(numpy_helper.from_array(np.isfinite(value.astype(np.float64)), f"the_finite_{k}"))
            graph.initializer.append(numpy_helper.from_array(np.array(0.0), f"the_zero_{k}"))
            graph.node.append(helper.make_node("Where", [f"the_finite_{k}", name, f"the_zero_{k}"], [f"the_kept_{k}"]))
            name = f"the_kept_{k}"
        graph.initializer.append(numpy_helper.from_array(weights, f"the_weights_{k}"))
        graph.node.append(helper.make_node("Mul", [name, f"the_weights_{k}"], [f"the_products_{k}"]))
        graph.node.append(helper.make_node("ReduceSum", [f"the_products_{k}"], [f"the_sum_{k}"], keepdims=0))
        sums.append(f"the_sum_{k}")
    graph.node.append(helper.make_node("Sum", sums, ["the_loss"]))
    graph.value_info.extend(graph.output)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("the_loss", DOUBLE, []))
    for value in graph.value_info:
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = DOUBLE
    model.ir_version = max(model.ir_version, 8)
    return Problem(test, model, moved, feeds)


def raised(one: Problem) -> Problem:
    """In the newest operator set in which all its operators are what they are in its own."""
    nodes = [node for node in one.test.model.graph.node if node.domain in ("", "ai.onnx")]
    since = lambda node, opset: onnx.defs.get_schema(node.op_type, opset, "").since_version
    same = lambda opset: all(since(node, opset) == since(node, one.test.opset) for node in nodes)
    newest = next((opset for opset in range(NEWEST, one.test.opset, -1) if same(opset)), one.test.opset)
    model = copy.deepcopy(one.model)
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = newest
    return dataclasses.replace(one, model=model)


def step_graph(one: Problem) -> bytes | str:
    """The step graph, or what a refusal says. Gradients that need a newer operator set get it where the operators stay the same."""
    made = _step_graph(one)
    return _step_graph(raised(one)) if isinstance(made, str) and "operator set" in made else made


def _step_graph(one: Problem) -> bytes | str:
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "model.onnx"), pathlib.Path(folder, "step.onnx")
        source.write_bytes(one.model.SerializeToString())
        names = ",".join(n.replace(",", "\\,") for n in one.moved)
        run = per_inject("differentiate", source, "-o", target, "--optimizer", "none", "--loss", "the_loss", "--wrt", names, check=False)
        return target.read_bytes() if run.returncode == 0 else str(taps.refusal(run))


def gradients(step: bytes, feeds: dict) -> dict:
    """What the step graph gives: on ONNX Runtime where it has float64 kernels of all, else in onnx's reference evaluator."""
    suffix, model = "_grad", onnx.load_from_string(step)
    try:
        if any(node.op_type in gradient_ops.NOT_BY_RUNTIME for node in model.graph.node):
            raise NotImplementedError
        session = ort.session(step, "disabled")
        names = [o.name for o in session.get_outputs()]
        results = session.run(names, feeds)
    except Exception:
        evaluator = ReferenceEvaluator(model, new_ops=gradient_ops.ALL)
        names = evaluator.output_names
        defaults = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        results = evaluator.run(names, {**{n: defaults[n] for n in evaluator.input_names if n in defaults}, **feeds})
    return {n.removesuffix(suffix): np.asarray(v) for n, v in zip(names, results) if n.endswith(suffix)}


class Forward:
    """The loss as a function of the trained inputs, in float64."""

    def __init__(self, one: Problem):
        model = copy.deepcopy(one.model)
        kept = [t for t in model.graph.initializer if t.name not in one.moved]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        model.graph.input.extend(helper.make_tensor_value_info(n, DOUBLE, v.shape) for n, v in one.moved.items())
        self.run = ReferenceEvaluator(model, new_ops=gradient_ops.ALL)
        self.feeds = {**one.feeds, **one.moved}

    def __call__(self, **moved) -> float:
        [loss] = self.run.run(["the_loss"], {**self.feeds, **moved})
        assert np.asarray(loss).dtype == np.float64, f"the evaluation is in {np.asarray(loss).dtype}"
        return float(np.asarray(loss).reshape(()))


def worst_error(one: Problem, found: dict) -> tuple[float, str]:
    """The largest difference between gradients and central differences, over the largest of either, and where."""
    forward = Forward(one)
    rng = np.random.default_rng(zlib.crc32(one.test.name.encode()) + 1)
    started = time.perf_counter()
    scale, errors = abs(forward()) * 1e-2, []
    is_slow = time.perf_counter() - started > 0.1
    for name, value in one.moved.items():
        given = found.get(name, np.zeros(value.shape))
        if given.shape != value.shape:
            return np.inf, f"the gradient of {name} has shape {given.shape}, not {value.shape}"
        if value.size <= SMALL:
            ways = [(i, None) for i in range(value.size)]
        elif is_slow:
            ways = [(None, rng.standard_normal(value.shape))]
        else:
            ways = [(int(i), None) for i in rng.choice(value.size, COORDINATES, replace=False)]
            ways += [(None, rng.standard_normal(value.shape)) for _ in range(DIRECTIONS)]
        for i, direction in ways:
            if direction is None:
                direction = np.zeros(value.shape)
                direction.reshape(-1)[i] = 1
                expected = given.reshape(-1)[i]
            else:
                direction /= np.sqrt(value.size)
                expected = (given * direction).sum()
            ahead, behind = (forward(**{name: value + sign * STEP * direction}) for sign in (1, -1))
            slope = (ahead - behind) / (2 * STEP)
            scale = max(scale, abs(slope), abs(expected))
            where = f"{name}[{i}]" if i is not None else f"{name} along a direction"
            errors.append((abs(slope - expected), f"{where}: {expected:.9g}, and differences give {slope:.9g}"))
    error, where = max(errors, key=lambda e: -1 if e[0] != e[0] else e[0])
    if any(e != e for e, _ in errors):
        return np.inf, next(where for e, where in errors if e != e)
    return error / max(scale, 1e-3), where


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`kind` is passed, constant (no gradient passes, and differences are 0), integral (no float to differentiate), random, foreign (an
    operator of another domain), refused or wrong."""

    name: str
    operators: tuple
    opset: int
    kind: str
    detail: str = ""
    error: float = 0.0


def outcome(test: NodeTest) -> Outcome:
    made = lambda kind, detail="", error=0.0: Outcome(test.name, tuple(test.operators), test.opset, kind, detail, error)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if any(node.domain not in ("", "ai.onnx") for node in test.model.graph.node):
            return made("foreign")
        if RANDOM & set(test.operators):
            return made("random")
        one = problem(test)
        if one is None:
            return made("integral")
        step = step_graph(one)
        found = {}
        if isinstance(step, str):
            if "no trained initializer reaches the loss" not in step:
                return made("refused", step)
        try:
            if not isinstance(step, str):
                found = gradients(step, one.feeds)
            error, where = worst_error(one, found)
        except Exception as problem_found:
            return made("wrong", f"{type(problem_found).__name__}: {problem_found}"[:600], np.inf)
        if not error <= TOLERANCE:
            return made("wrong", where, error)
        return made("constant" if not found else "passed", "", error)
