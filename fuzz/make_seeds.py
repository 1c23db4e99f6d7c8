"""Writes seeds/: the models of ../models without their weights, hand-made graphs for what those lack, and injected ones.

Run with a Python that has onnx, after cargo build: python fuzz/make_seeds.py
"""

import pathlib
import subprocess

import onnx
from onnx import TensorProto, helper, parser

HERE = pathlib.Path(__file__).parent
SEEDS = HERE / "seeds"
PER_INJECT = HERE.parent / "target/debug/per-inject"

HAND_MADE = {
    "composites": """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float loss) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float half = {0.5}, float one = {1.0},
                                  float root2 = {1.41421356}, float zero = {0.0}> {
  a = MatMul(x, w)  b = Div(a, root2)  c = Erf(b)  d = Add(c, one)  e = Mul(a, d)  gelu = Mul(e, half)
  s = Sigmoid(gelu)  silu = Mul(gelu, s)  m = Max(silu, zero)  p = Softplus(m)  t = Tanh(p)  mish = Mul(m, t)
  q = Clip(mish, zero)  l = ReduceMean<keepdims = 0>(q)  loss = Identity(l)
}""",
    "functions": """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[N,4] x) => (float loss) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
  a = MatMul(x, w)  b = local.Sigmo(a)  c = local.Twice(b)  loss = ReduceSum<keepdims = 0>(c)
}
<domain: "local", opset_import: ["" : 17, "local" : 1]> Sigmo (x) => (y) { s = Sigmoid(x)  y = Mul(x, s) }
<domain: "local", opset_import: ["" : 17, "local" : 1]> Twice (x) => (y) { a = local.Sigmo(x)  y = Relu(a) }""",
    "old": """<ir_version: 3, opset_import: ["" : 9]>
g (float[2,3,4,4] x, float[5,3,3,3] w, float[5] scale, float[5] bias, float[5] mean, float[5] var) => (float loss) {
  c = Conv<pads = [1,1,1,1]>(x, w)  n = BatchNormalization(c, scale, bias, mean, var)  r = Elu<alpha = 0.5>(n)
  g = GlobalAveragePool(r)  f = Flatten(g)  u = LeakyRelu(f)  loss = ReduceMean<keepdims = 0>(u)
}""",
    "bodies": """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,4] x, bool c) => (float loss, float16[N,4] half) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
  h = MatMul(x, w)  a = Relu(h)
  b = If(c) <then_branch = t () => (y) { r = Relu(a)  y = Add(r, h) }, else_branch = e () => (z) {
    z = If(c) <then_branch = tt () => (zz) { zz = Neg(a) }, else_branch = ee () => (a2) { a2 = Identity(h) }> }>
  half = Cast<to = 10>(b)  task = ReduceMean<keepdims = 0>(b)  k = If(c) <then_branch = p () => (q) { q = Neg(task) },
  else_branch = pp () => (qq) { qq = Identity(task) }>  loss = Add(task, k)
}""",
    "recurrent": """<ir_version: 7, opset_import: ["" : 14]>
g (float[T,B,3] x, float[1,16,3] w, float[1,16,4] r) => (double loss) {
  y, h = LSTM<hidden_size = 4>(x, w, r)  s = Squeeze(h)  t = HardSwish(s)  e = Celu(t)
  d = Cast<to = 11>(e)  loss = ReduceMean<keepdims = 0>(d)
}""",
}


def weightless(model: onnx.ModelProto) -> onnx.ModelProto:
    """Long tensors keep their dimensions and lose their elements; the longest names and texts go too."""
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:
            tensor.raw_data = b""
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in model.graph.value_info:
        value.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return model


def odd() -> bytes:
    """What canonical writers do not write: sparse and external tensors, unknown fields, wide lengths, two graphs."""
    model = parser.parse_model(HAND_MADE["composites"])
    model.metadata_props.add(key="k", value="v")
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0]))
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [0]))
    sparse.dims.append(4)
    external = model.graph.initializer.add(name="far", data_type=1, data_location=1, dims=[2])
    external.external_data.add(key="location", value="far.bin")
    first = model.SerializeToString()
    second = onnx.ModelProto()
    second.graph.node.append(helper.make_node("Neg", ["loss"], ["after"]))
    graph = second.graph.SerializeToString()
    wide = bytes([0x3A, len(graph) | 0x80, 0x80, 0x00]) + graph
    return first + b"\xfa\x3f\x03new" + wide + b"\xf3\x01\x08\x05\xf4\x01"


def inject(source: str, target: str, layers: str, *options: str) -> None:
    command = [PER_INJECT, SEEDS / source, "--layers", layers, "--coef", "1e-4", *options, "-o", SEEDS / target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    SEEDS.mkdir(exist_ok=True)
    for name in ["mlp_relu.ts13", "bn_resnet8.ts17", "seq_lstm_lm.ts17", "gpt_gelu.dyn", "cnn11_elu.dyn"]:
        model = onnx.load(HERE.parent / "models" / f"{name}.onnx")
        (SEEDS / f"{name}.onnx").write_bytes(weightless(model).SerializeToString())
    for name, text in HAND_MADE.items():
        (SEEDS / f"{name}.onnx").write_bytes(parser.parse_model(text).SerializeToString())
    (SEEDS / "odd.onnx").write_bytes(odd())
    training = parser.parse_model(HAND_MADE["old"])
    training.training_info.add().algorithm.name = "step"
    (SEEDS / "training_info.onnx").write_bytes(training.SerializeToString())
    # With a head that chooses options (see properties.rs).
    heads = {"exact_output": (3, 2, 0b1001000, 7, 9, 2, 0), "inner_loss": (0, 0, 0b0110100, 3, 3, 1, 39)}
    for name, head in heads.items():
        model = parser.parse_model(HAND_MADE["bodies"]).SerializeToString()
        (SEEDS / f"head_{name}").write_bytes(bytes([0, *head]) + model)
    # What strip starts from; one seed is injected twice.
    inject("bodies.onnx", "injected_bodies.onnx", "all", "--estimator", "exact", "--coef-input", "--outputs", "task,per,layers")
    inject("functions.onnx", "injected_functions.onnx", "all", "--seed", "7")
    inject("odd.onnx", "injected_odd.onnx", "all,!#2..", "--as-output", "--estimator", "exact")
    inject("injected_functions.onnx", "injected_twice.onnx", "all", "--at", "pre", "--estimator", "exact")


if __name__ == "__main__":
    main()
