"""Every operator set from 7 to 26 gets operators that it has, at the lowest IR version that it allows."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, reference

import closed_form
import nets

OPSETS = range(9, 27)

# ONNX Runtime 1.32 runs all of them, but for RandomNormal and RandomNormalLike: both were revised in operator set 22, and its CPU
# provider has no kernel of the revision. There ONNX's own evaluator runs the injected graph, and the report warns.
NO_RANDOM_KERNELS = 22

# Float32 in another order at most: reductions by attribute or by input are the same kernels.
TOLERANCE = 1e-6

RANDOM = np.random.default_rng(2)
X = RANDOM.standard_normal((4, 6)).astype(np.float32)
MAPS = RANDOM.standard_normal((2, 3, 5, 4)).astype(np.float32)
WEIGHTS = {
    "w1": RANDOM.standard_normal((6, 8)).astype(np.float32),
    "b1": RANDOM.standard_normal(8).astype(np.float32),
    "w2": RANDOM.standard_normal((8, 5)).astype(np.float32),
}
KERNEL = {"k": RANDOM.standard_normal((6, 3, 3, 3)).astype(np.float32)}


def mlp(opset, symbolic=False, ir_version=None):
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["h1"], name="relu1"),
        helper.make_node("MatMul", ["h1", "w2"], ["z2"]),
        helper.make_node("Relu", ["z2"], ["h2"], name="relu2"),
        helper.make_node("ReduceMean", ["h2"], ["loss"], keepdims=0),
    ]
    outputs = [("loss", nets.FLOAT, []), ("h1", nets.FLOAT, None), ("h2", nets.FLOAT, None)]
    dims = ["N", "D"] if symbolic else list(X.shape)
    return model(nodes, [("x", nets.FLOAT, dims)], outputs, WEIGHTS, opset, ir_version)


def convolution(opset, symbolic=False):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["h1"], name="relu1"),
        helper.make_node("ReduceMean", ["h1"], ["loss"], keepdims=0),
    ]
    dims = ["N", 3, "H", "W"] if symbolic else list(MAPS.shape)
    return model(nodes, [("x", nets.FLOAT, dims)], [("loss", nets.FLOAT, []), ("h1", nets.FLOAT, None)], KERNEL, opset)


def unknown(opset):
    """Of the activation not even the rank is known."""
    nodes = [
        helper.make_node("Reshape", ["flat", "shape"], ["r"]),
        helper.make_node("Mul", ["r", "s"], ["z"]),
        helper.make_node("Relu", ["z"], ["h1"], name="relu1"),
        helper.make_node("ReduceMean", ["h1"], ["loss"], keepdims=0),
    ]
    inputs = [("flat", nets.FLOAT, ["n"]), ("shape", onnx.TensorProto.INT64, ["rank"])]
    return model(nodes, inputs, [("loss", nets.FLOAT, []), ("flat_copy", nets.FLOAT, ["n"])], {"s": np.array([1.5], np.float32)}, opset)


def model(nodes, inputs, outputs, initializers, opset, ir_version=None):
    declared = []
    for name, elem, dims in outputs:
        if name == "flat_copy":
            nodes.append(helper.make_node("Identity", ["flat"], [name]))
        rank = {"h1": 2 if "w1" in initializers else 4, "h2": 2}.get(name)
        declared.append((name, elem, dims if dims is not None else [f"{name}_{i}" for i in range(rank)]))
    return nets.model(nodes, inputs, declared, initializers, opset, ir_version)


CASES = {
    "mlp": (mlp, {"x": X}),
    "mlp, symbolic": (lambda opset: mlp(opset, True), {"x": X}),
    "convolution": (convolution, {"x": MAPS}),
    "convolution, symbolic": (lambda opset: convolution(opset, True), {"x": MAPS}),
    "unknown rank": (unknown, nets.feed(MAPS)),
}


def activations(case, session, feeds, opset):
    made = session(CASES[case][0](opset))
    if case == "unknown rank":
        return [np.maximum(1.5 * MAPS, 0)]
    names = [output.name for output in made.get_outputs() if output.name.startswith("h")]
    return made.run(names, feeds)


def arguments(estimator, view):
    return ["--layers", "relu", "--coef", 0.1, "--estimator", estimator, "--view", view, "--slices", 8192, "--seed", 3, "--outputs", "task,layers"]


def check(case, opset, estimator, view, inject, session):
    original = CASES[case][0](opset)
    injected = inject(original, *arguments(estimator, view))
    assert injected.model.ir_version == original.ir_version
    assert injected.model.opset_import == original.opset_import
    feeds = CASES[case][1]
    runnable = estimator == "exact" or opset < NO_RANDOM_KERNELS
    made = session(injected.data) if runnable else reference.ReferenceEvaluator(injected.model)
    assert ("RandomNormal" in "".join(injected.report["warnings"])) != runnable
    loss, task, *layers = made.run(["loss", "per_inject/task_loss", *injected.layers], feeds)
    taken = activations(case, session, feeds, opset)
    assert len(layers) == len(taken)
    for value, h, layer in zip(layers, taken, injected.report["layers"]):
        assert layer["view"] == view
        expected = closed_form.per(closed_form.rows(h.astype(np.float64), view)).mean()
        # 8,192 slices leave some 1e-3 of 24 rows and more.
        assert float(value) == pytest.approx(expected, rel=TOLERANCE if estimator == "exact" else 2e-2)
    assert float(loss) == pytest.approx(float(task) + 0.1 * float(sum(layers)), rel=TOLERANCE)
    [before] = session(original).run(["loss"], feeds)
    if runnable:
        assert before.tobytes() == task.tobytes()
    else:
        assert float(before) == pytest.approx(float(task), rel=TOLERANCE)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
def test_every_operator_set_since_9_computes_the_same(inject, session, opset, case, estimator, view):
    check(case, opset, estimator, view, inject, session)


@pytest.mark.parametrize("opset", [7, 8])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("view", ["flatten", "channel", "last"])
def test_the_exact_estimator_needs_no_more_than_operator_set_7(inject, session, opset, case, view):
    check(case, opset, "exact", view, inject, session)


@pytest.mark.parametrize("opset", [7, 8])
def test_one_dimension_needs_no_erf_at_operator_set_7(inject, session, opset):
    h = RANDOM.standard_normal((5, 1)).astype(np.float32)
    for dims in [[5, 1], ["N", "D"], None]:
        injected = inject(nets.tap(dims, opset=opset), "--layers", "tensor:h", "--as-output", "--estimator", "exact")
        [per] = session(injected.data).run(["per_loss"], nets.feed(h))
        assert float(per) == pytest.approx(closed_form.per(h).mean(), rel=TOLERANCE)


@pytest.mark.parametrize("opset", [7, 8])
def test_slices_before_erf_are_refused_with_what_to_do(per_inject, tmp_path, opset):
    path = tmp_path / "model.onnx"
    onnx.save(mlp(opset), path)
    run = per_inject(path, *arguments("sampled", "flatten"), "-o", tmp_path / "out.onnx", check=False)
    assert run.returncode == 1 and not (tmp_path / "out.onnx").exists()
    assert "Erf" in run.stderr and str(opset) in run.stderr and "--estimator exact" in run.stderr


@pytest.mark.parametrize("opset", range(1, 27))
@pytest.mark.parametrize("elem", [nets.FLOAT, nets.FLOAT16, nets.DOUBLE])
def test_the_exact_estimator_is_valid_in_every_operator_set_there_is(inject, opset, elem):
    """ONNX Runtime takes 7 and later only; the checker and strict inference, which `inject` calls, know the older ones."""
    for dims in [[4, 6], ["N", "D"], ["N", 3, "H", "W"], [2, 50021]]:
        nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("ReduceMean", ["h"], ["loss"], keepdims=0)]
        model = nets.model(nodes, [("x", elem, dims)], [("loss", elem, [])], {}, opset)
        for view in ["flatten", "channel", "last"]:
            more = ["--loss", "loss", "--view", view, "--outputs", "task,per,layers", "--coef-input"]
            injected = inject(model, "--layers", "relu", "--coef", 0.1, "--estimator", "exact", *more)
            assert {"loss", "per_inject/task_loss"} < {value.name for value in injected.model.graph.output}


def undeclared(model):
    """Added tensors without a declaration whose type and full shape ONNX's inference finds."""
    declared = {value.name for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    full = {
        value.name
        for value in inferred.graph.value_info
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    }
    added = {output for node in model.graph.node for output in node.output if output.startswith("per_inject/")}
    assert added & full
    return added & full - declared


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 17, 20, 26])
@pytest.mark.parametrize("case", CASES)
def test_every_added_tensor_of_known_shape_is_declared(inject, opset, case):
    original = CASES[case][0](opset)
    # IR version 3 has constants as nodes, and so more tensors.
    assert (original.ir_version == 3) == (opset < 9)
    for view in ["flatten", "channel", "last"]:
        assert not undeclared(inject(original, *arguments("exact", view)).model)
        if opset >= 9:
            assert not undeclared(inject(original, *arguments("sampled", view)).model)


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_in_ir_version_3_constants_are_nodes_and_the_coefficient_is_an_input_with_a_default(inject, session, opset):
    original = mlp(opset, ir_version=3)
    injected = inject(original, *arguments("exact", "flatten")).model
    [loss] = session(injected).run(["loss"], {"x": X})
    [same] = session(inject(mlp(opset, ir_version=4), *arguments("exact", "flatten")).data).run(["loss"], {"x": X})
    assert injected.ir_version == 3 and loss == same
    inputs = {value.name for value in injected.graph.input}
    added = {tensor.name for tensor in injected.graph.initializer} - {tensor.name for tensor in original.graph.initializer}
    assert added == {"per_inject/coef"} and added <= inputs
    assert len(inputs) == len(original.graph.input) + 1
    assert any(node.op_type == "Constant" and node.name.startswith("per_inject/const/") for node in injected.graph.node)


@pytest.mark.parametrize("opset", [10, 13, 21, 26])
def test_since_ir_version_4_constants_are_initializers_and_inputs_stay(inject, opset):
    original = mlp(opset)
    injected = inject(original, *arguments("exact", "flatten")).model
    assert injected.ir_version == original.ir_version >= 4
    assert [value.name for value in injected.graph.input] == ["x"]
    assert all(node.op_type != "Constant" for node in injected.graph.node)
    coefficient = {tensor.name: numpy_helper.to_array(tensor) for tensor in injected.graph.initializer}["per_inject/coef"]
    assert coefficient == np.float32(0.1) and coefficient.shape == ()


@pytest.mark.parametrize("opset", range(7, 27))
def test_float64_models_work_in_every_operator_set(inject, opset):
    # Which double kernels ONNX Runtime has differs by operator set; the specification has them all, and its evaluator runs them.
    h = RANDOM.standard_normal((5, 3))
    for dims in [[5, 3], ["N", "D"]]:
        injected = inject(nets.tap(dims, nets.DOUBLE, opset), "--layers", "tensor:h", "--as-output", "--estimator", "exact")
        [per] = reference.ReferenceEvaluator(injected.model).run(["per_loss"], nets.feed(h))
        assert float(per) == pytest.approx(closed_form.per(h).mean(), rel=1e-10)


@pytest.mark.parametrize("opset", range(7, 27))
@pytest.mark.parametrize("case", CASES)
def test_strip_gives_the_original_back_in_every_operator_set(inject, per_inject, tmp_path, opset, case):
    original = CASES[case][0](opset).SerializeToString()
    injected = inject(original, *arguments("exact", "flatten"))
    (tmp_path / "injected.onnx").write_bytes(injected.data)
    per_inject("strip", tmp_path / "injected.onnx", "-o", tmp_path / "stripped.onnx")
    assert (tmp_path / "stripped.onnx").read_bytes() == original
