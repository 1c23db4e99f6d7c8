"""`--for ort-training`, one operator at a time: taken by generate_artifacts, the same function, the right gradient, and undone by strip.

Gradients are compared with central differences of a float64 evaluation that shares no code with ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest

import ort
import taps
from command import per_inject
from lowering import Case, as64, differences, evaluator, float64
from lowering_cases import CASES

# Both sides in float32 on the same runtime, over the largest element of the output.
VALUE_TOLERANCE = 1e-6

# float32 against float64, over the largest entry of the gradient; the worst measured is 6e-5, a BatchNormalization of four samples
# whose gradient nearly cancels.
GRADIENT_TOLERANCE = 2e-4

LOWER = ["--for", "ort-training", "--coef", "0", "--loss", "loss", "--wrt", "re:^p"]


@dataclasses.dataclass(frozen=True)
class Lowered:
    model: onnx.ModelProto
    data: bytes
    rewritten: list[str]
    stripped: bytes


def key(case: Case, is_open: bool) -> str:
    return f"{case.name}{'-open' if is_open else ''}"


EACH = [pytest.param(case, is_open, id=key(case, is_open)) for case in CASES for is_open in (False, True)]
TRAINED = [p for p in EACH if not (p.values[1] and p.values[0].refused_open)]


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Every case, rewritten, by its key."""
    folder = tmp_path_factory.mktemp("lowered")

    def lower(param):
        case, is_open = param.values
        model = case.model(is_open)
        source, target, back = (folder / f"{key(case, is_open)}.{part}.onnx" for part in ("source", "lowered", "stripped"))
        source.write_bytes(model.SerializeToString())
        report = json.loads(per_inject(source, *LOWER, "--json", "-o", target).stdout)
        stripped = b""
        if report["rewritten"] or report["model_changes"]:
            per_inject("strip", target, "-o", back)
            stripped = back.read_bytes()
        return Lowered(model, target.read_bytes(), [r["op"] for r in report["rewritten"]], stripped)

    return dict(zip((p.id for p in TRAINED), taps.in_parallel(lower, TRAINED)))


@pytest.fixture(scope="module")
def steps(lowered):
    """One training step of each, in one process."""
    jobs = []
    for param in TRAINED:
        case, found = param.values[0], lowered[param.id]
        parameters = [t.name for t in found.model.graph.initializer if t.name.startswith("p")]
        jobs.append((found.data, case.all_feeds(), parameters))
    return dict(zip((p.id for p in TRAINED), ort.gradients_of_each(jobs)))


@pytest.mark.parametrize("case, is_open", TRAINED)
def test_its_gradient_is_that_of_float64_differences(lowered, steps, case, is_open):
    step = steps[key(case, is_open)]
    if isinstance(step, Exception):
        raise step
    expected = differences(lowered[key(case, is_open)].model, case.all_feeds())
    assert expected, "the case trains nothing"
    # A parameter whose gradient is small beside the others' is measured against a thousandth of theirs.
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert step.gradients[name].shape == gradient.shape
        error = np.abs(step.gradients[name] - gradient).max() / max(np.abs(gradient).max(), floor)
        assert error <= GRADIENT_TOLERANCE, f"{name}: {error:.1e}"


@pytest.mark.parametrize("case, is_open", TRAINED)
def test_it_is_the_same_function_on_stock_onnx_runtime(lowered, session, case, is_open):
    found = lowered[key(case, is_open)]
    onnx.checker.check_model(found.data, full_check=True)
    if case.has_kernel:
        before = session(found.model).run(["loss", "y"], case.all_feeds())
    else:
        before = evaluator(float64(found.model)).run(["loss", "y"], as64(case.all_feeds()))
    after = session(found.data).run(["loss", "y"], case.all_feeds())
    largest = np.abs(before[1]).max()
    for old, new in zip(before, after):
        assert old.shape == new.shape
        np.testing.assert_allclose(new, old, rtol=0, atol=VALUE_TOLERANCE * largest)


@pytest.mark.parametrize("case, is_open", TRAINED)
def test_what_needs_no_rewriting_stays_and_strip_restores_the_rest(lowered, case, is_open):
    found = lowered[key(case, is_open)]
    wanted = case.rewrites_open if is_open and case.rewrites_open else case.rewrites
    if wanted:
        assert set(wanted) <= set(found.rewritten)
    elif not is_open:
        assert found.rewritten == []
    source = found.model.SerializeToString()
    assert (found.stripped or found.data) == source
    # Parameters keep names, shapes and values.
    tensors = {t.name: t for t in onnx.load_from_string(found.data).graph.initializer}
    for tensor in found.model.graph.initializer:
        assert tensors[tensor.name] == tensor


@pytest.mark.parametrize("case", [c for c in CASES if c.refused_open], ids=str)
def test_what_an_open_shape_forbids_is_named(tmp_path, case):
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    source.write_bytes(case.model(True).SerializeToString())
    sentence = taps.refusal(per_inject(source, *LOWER, "-o", target, check=False))
    assert f"node 1 ({case.nodes[0].op_type})" in sentence
    assert case.refused_open in sentence
    assert not target.exists()
