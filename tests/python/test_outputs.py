"""What a model computes, bit for bit, is what it computed before the term was added: every model of the wheels that has data, on ONNX
Runtime at its default optimisation.

No tolerance but for the value of the term itself: the outputs are compared by their bits, NaN equal NaN.
"""

import collections
import ctypes
import dataclasses

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import models
import ort
import taps

# Of the 1,368 models that can be tapped (test_corpus.py), by what becomes of them.
OUTCOMES = {
    "equal": 1323,
    "draws without a seed": 4,
    "has no data": 18,
    "ONNX Runtime lacks Gradient": 4,
    "ONNX Runtime lacks recurrent operators of layout 1": 3,
    "ONNX Runtime lacks Pow with unsigned exponents": 2,
    "ONNX Runtime takes no int4 from Python": 8,
    "PRelu of operator set 6, which ONNX's converter carries over as it is": 6,
}

# What ONNX Runtime says of the models that it does not run.
REASONS = {
    "ai.onnx.preview.training:Gradient": "ONNX Runtime lacks Gradient",
    "layout_ == 0 was false": "ONNX Runtime lacks recurrent operators of layout 1",
    "Could not find an implementation for Pow(15)": "ONNX Runtime lacks Pow with unsigned exponents",
    "Creation of OrtValues is currently only supported": "ONNX Runtime takes no int4 from Python",
    "while running PRelu node": "PRelu of operator set 6, which ONNX's converter carries over as it is",
}

UNSEEDED = ["test_bernoulli", "test_bernoulli_double", "test_bernoulli_double_expanded", "test_bernoulli_expanded"]

# Models of operator sets below 7.
OLD = 241

# Operators that draw; all of them take a seed as an attribute.
DRAWS = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

# Element types that ONNX Runtime hands to Python only as memory, and what holds their bits.
OPAQUE = {
    TensorProto.BFLOAT16: np.uint16,
    TensorProto.FLOAT8E4M3FN: np.uint8,
    TensorProto.FLOAT8E4M3FNUZ: np.uint8,
    TensorProto.FLOAT8E5M2: np.uint8,
    TensorProto.FLOAT8E5M2FNUZ: np.uint8,
}


@pytest.fixture(autouse=True)
def quiet():
    """Models that ONNX Runtime refuses are part of the corpus."""
    onnxruntime.set_default_logger_severity(4)
    yield
    onnxruntime.set_default_logger_severity(2)


@dataclasses.dataclass
class Outcome:
    tap: taps.Tap
    what: str
    detail: str = ""


def stored_value(path, declared):
    """One `input_*.pb`, of whatever type the graph declares."""
    data = path.read_bytes()
    match declared.WhichOneof("value"):
        case "tensor_type":
            return numpy_helper.to_array(TensorProto.FromString(data))
        case "sequence_type":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        case "optional_type":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        case other:
            raise AssertionError(f"{path}: no way to read {other}")


def data_sets(tap):
    """Inputs by name for every data set beside a model."""
    graph = tap.model.graph
    stored = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in stored]
    for folder in sorted(tap.path.parent.glob("test_data_set_*")):
        yield {value.name: stored_value(folder / f"input_{i}.pb", value.type) for i, value in enumerate(fed)}


def run(session, model, feeds):
    """The outputs: arrays, lists of them, `None`, or for what numpy has no type the element type, the shape and the bytes."""
    if not any(kind in v.type for v in [*session.get_inputs(), *session.get_outputs()] for kind in ("float8", "bfloat16", "int4")):
        return session.run(None, feeds)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    given = {}
    for name, array in feeds.items():
        if holder := OPAQUE.get(types[name]):
            given[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(holder), types[name])
        else:
            given[name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    values = session.run_with_ort_values([v.name for v in session.get_outputs()], given)
    return [_opaque(value) if any(kind in value.data_type() for kind in ("float8", "bfloat16", "int4")) else value.numpy() for value in values]


def _opaque(value):
    return value.data_type(), value.shape(), ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())


def same_bits(a, b):
    if not isinstance(a, np.ndarray):
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(map(same_bits, a, b))
        return type(a) is type(b) and (isinstance(a, np.generic) and same_bits(np.asarray(a), np.asarray(b)) or a == b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == object or a.tobytes() == b.tobytes():
        return np.array_equal(a, b) or a.dtype != object
    nan = a != a
    return np.array_equal(nan, b != b) and np.where(nan, 0, a).tobytes() == np.where(nan, 0, b).tobytes()


def draws_without_seed(graph):
    bodies = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    own = any(node.op_type in DRAWS and all(a.name != "seed" for a in node.attribute) for node in graph.node)
    return own or any(map(draws_without_seed, bodies))


def with_output(model, tensor):
    """The model with one more output, unless it is an input or an output already."""
    if any(v.name == tensor for v in [*model.graph.input, *model.graph.output]):
        return model
    more = onnx.ModelProto.FromString(model.SerializeToString())
    more.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(tensor, taps.element_types(model)[tensor], None))
    return more


def tapped_value(tap, model, feeds):
    """The tapped tensor as float64; the bytes of bfloat16 are read by hand."""
    if tap.tensor in feeds:
        return np.asarray(feeds[tap.tensor], np.float64)
    seen = with_output(model, tap.tensor)
    names = [v.name for v in seen.graph.output]
    value = run(ort.session(seen), seen, feeds)[names.index(tap.tensor)]
    if isinstance(value, tuple):
        assert value[0] == "tensor(bfloat16)", value[0]
        value = np.frombuffer(value[2], ml_dtypes.bfloat16)
    return np.asarray(value, np.float64)


def reason(error):
    return next((what for words, what in REASONS.items() if words in str(error)), "fails as it ships")


def compare(tap, original, injected):
    """Runs both models on every data set."""
    try:
        before = ort.session(original)
    except Exception as error:
        return Outcome(tap, reason(error), str(error))
    after = ort.session(injected)
    if draws_without_seed(tap.model.graph):
        return Outcome(tap, "draws without a seed")
    sets = list(data_sets(tap))
    for feeds in sets:
        try:
            expected = run(before, original, feeds)
        except Exception as error:
            return Outcome(tap, reason(error), str(error))
        *got, per = run(after, injected, feeds)
        if len(got) != len(expected) or not all(map(same_bits, got, expected)):
            return Outcome(tap, "differs")
        h = tapped_value(tap, original, feeds)
        # The squares are summed in the arithmetic of the layer, with room for what is multiplied with the sum.
        wide = taps.element_types(original)[tap.tensor] == TensorProto.DOUBLE
        largest = float(np.finfo(np.float64 if wide else np.float32).max) / 1e3
        with np.errstate(over="ignore"):
            fits = np.square(h).sum() < largest
        if h.size and fits and not np.isfinite(per):
            return Outcome(tap, "the term is not finite", f"{per} for values up to {np.abs(h).max()}")
    return Outcome(tap, "equal" if sets else "has no data")


@pytest.fixture(scope="module")
def tappable(corpus):
    chosen = [taps.choose(path) for path in corpus()]
    return [tap for tap in chosen if tap and tap.opset is not None]


def injected_model(tap, folder, *options):
    path = folder / "injected.onnx"
    taps.inject(tap, path, *options)
    return onnx.load(path)


def modernised(model):
    """In operator set 13, by ONNX's own converter: ONNX Runtime has arithmetic from 7 on only."""
    return onnx.version_converter.convert_version(model, 13)


def outcomes(tappable, folder):
    for tap in tappable:
        original, injected = onnx.load(tap.path), injected_model(tap, folder, "--estimator", "exact")
        if tap.opset < 7:
            original, injected = modernised(original), modernised(injected)
        yield compare(tap, original, injected)


def test_every_model_that_runs_computes_what_it_computed_before_and_the_term_is_finite(tappable, tmp_path):
    assert sum(tap.opset < 7 for tap in tappable) == OLD
    found = list(outcomes(tappable, tmp_path))
    wrong = [f"{o.tap.path}: {o.what} {o.detail}" for o in found if o.what not in OUTCOMES]
    assert not wrong, "\n".join(wrong[:20])
    assert collections.Counter(o.what for o in found) == OUTCOMES
    assert sorted(o.tap.path.parent.name for o in found if o.what == "draws without a seed") == UNSEEDED


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize("name", models.NAMES)
def test_every_reference_model_computes_the_task_loss_and_all_else_it_computed_before(reference, session, tmp_path, name, estimator):
    model, injected = reference(name), tmp_path / "injected.onnx"
    options = ["--layers", "all", "--coef", "3e-4", "--estimator", estimator, "--slices", "32", "--outputs", "task"]
    taps.per_inject(model.path, *options, "-o", injected)
    before, after = session(model.path), session(injected)
    expected = dict(zip([v.name for v in before.get_outputs()], before.run(None, model.feeds)))
    got = dict(zip([v.name for v in after.get_outputs()], after.run(None, model.feeds)))
    total = got.pop("loss")
    assert list(got) == [n for n in expected if n != "loss"] + ["per_inject/task_loss"]
    task = got.pop("per_inject/task_loss")
    assert same_bits(task, expected.pop("loss"))
    assert total > task
    for output, value in expected.items():
        assert same_bits(got[output], value), output


def test_the_term_in_old_operator_sets_is_the_term_in_new_ones(tappable, tmp_path):
    """Below operator set 7 the arithmetic is written in other operators; a relative tolerance of 2e-6 leaves room for a rounding of
    float32 in each of some twenty."""
    compared = 0
    for tap in [tap for tap in tappable if tap.opset < 7]:
        new = tmp_path / "new.onnx"
        onnx.save(modernised(onnx.load(tap.path)), new)
        old_term = modernised(injected_model(tap, tmp_path, "--estimator", "exact"))
        new_term = injected_model(dataclasses.replace(tap, path=new), tmp_path, "--estimator", "exact")
        for feeds in data_sets(tap):
            try:
                expected = ort.session(new_term).run(None, feeds)[-1]
            except Exception:
                # The six PRelu that the converter spoils; the other test counts them.
                continue
            got = ort.session(old_term).run(None, feeds)[-1]
            assert got == pytest.approx(expected, rel=2e-6, nan_ok=True), tap.path
            compared += 1
    assert compared == 235
