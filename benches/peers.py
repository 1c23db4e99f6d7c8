"""The same job through the Python libraries: load, find every Relu, add as many nodes per Relu as we do, save.

    python benches/peers.py onnx|onnx-ir|onnx-graphsurgeon NODES_PER_RELU IN.onnx OUT.onnx
"""

import sys


def with_onnx(count: int, source: str, target: str) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(source)
    added = []
    for node in list(model.graph.node):
        if node.op_type == "Relu":
            x = node.output[0]
            for i in range(count):
                name = f"added/{node.name}/{i}"
                added.append(helper.make_node("Neg", [x], [name], name))
                x = name
    model.graph.node.extend(added)
    onnx.save(model, target)


def with_onnx_ir(count: int, source: str, target: str) -> None:
    import onnx_ir as ir

    model = ir.load(source)
    added = []
    for node in model.graph:
        if node.op_type == "Relu":
            x = node.outputs[0]
            for i in range(count):
                made = ir.node("Neg", [x], name=f"added/{node.name}/{i}")
                made.outputs[0].name = made.name
                added.append(made)
                x = made.outputs[0]
    model.graph.extend(added)
    ir.save(model, target)


def with_graphsurgeon(count: int, source: str, target: str) -> None:
    import onnx
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(source))
    for node in list(graph.nodes):
        if node.op == "Relu":
            x = node.outputs[0]
            for i in range(count):
                name = f"added/{node.name}/{i}"
                y = gs.Variable(name)
                graph.nodes.append(gs.Node("Neg", name, inputs=[x], outputs=[y]))
                x = y
    onnx.save(gs.export_onnx(graph), target)


if __name__ == "__main__":
    peer, count, source, target = sys.argv[1:]
    {"onnx": with_onnx, "onnx-ir": with_onnx_ir, "onnx-graphsurgeon": with_graphsurgeon}[peer](int(count), source, target)
