use super::*;
use crate::graph::testing::{Net, ints, open_model, strings};
use crate::onnx::tensor_proto::DataType;

/// The type of `y` in a graph of these nodes, as it is displayed.
fn type_of_y(net: Net) -> String {
    let model = net.build();
    let graph = Graph::of(&model).unwrap();
    Types::of(&graph, &model).get(graph.find("y").unwrap()).to_string()
}

fn layout_of_y(net: Net) -> Layout {
    let model = net.build();
    let graph = Graph::of(&model).unwrap();
    Types::of(&graph, &model).layout(graph.find("y").unwrap())
}

#[test]
fn convolutions_and_pools_follow_pads_strides_dilations_and_rounding() {
    let conv = |data: &str, weight: &[i64], attributes: Vec<_>| {
        let net = Net::new().input("x", 1, data).weight("w", weight).node("Conv", &["x", "w"], &["y"], attributes);
        type_of_y(net)
    };
    assert_eq!(conv("N 3 32 32", &[8, 3, 3, 3], vec![ints("pads", &[1; 4])]), "float[N, 8, 32, 32]");
    assert_eq!(conv("N 3 H 9", &[8, 3, 3, 3], vec![ints("pads", &[1; 4])]), "float[N, 8, H, 9]");
    assert_eq!(conv("N 3 17", &[8, 3, 3], vec![ints("strides", &[2]), ints("dilations", &[3])]), "float[N, 8, 6]");
    assert_eq!(
        conv("1 2 5 5 5", &[4, 2, 1, 2, 3], vec![strings("auto_pad", "SAME_UPPER"), ints("strides", &[2; 3])]),
        "float[1, 4, 3, 3, 3]"
    );
    assert_eq!(conv("1 2 5", &[4, 2, 7], vec![]), "float[1, 4, ?]");
    let pool = |ceil: i64| {
        let attributes = vec![ints("kernel_shape", &[3]), ints("strides", &[2]), Net::int("ceil_mode", ceil)];
        type_of_y(Net::new().input("x", 1, "N 4 8").node("MaxPool", &["x"], &["y", "i"], attributes))
    };
    assert_eq!((pool(0).as_str(), pool(1).as_str()), ("float[N, 4, 3]", "float[N, 4, 4]"));
    let attributes =
        vec![ints("strides", &[2]), ints("output_padding", &[1]), ints("pads", &[1, 1]), Net::int("group", 2)];
    let transposed = Net::new().input("x", 1, "N 4 8").weight("w", &[4, 3, 3]).node(
        "ConvTranspose",
        &["x", "w"],
        &["y"],
        attributes,
    );
    assert_eq!(type_of_y(transposed), "float[N, 6, 16]");
}

#[test]
fn products_broadcast_and_reductions_keep_or_drop() {
    let matmul = |a: &str, b: &str| {
        type_of_y(Net::new().input("a", 1, a).input("b", 1, b).node("MatMul", &["a", "b"], &["y"], vec![]))
    };
    assert_eq!(matmul("N T 8", "8 3"), "float[N, T, 3]");
    assert_eq!(matmul("2 1 T 8", "5 8 T"), "float[2, 5, T, T]");
    assert_eq!(matmul("8", "N 8 3"), "float[N, 3]");
    assert_eq!(matmul("8", "8"), "float[]");
    let mean = |keep| {
        let attributes = vec![ints("axes", &[-1, -2]), Net::int("keepdims", keep)];
        type_of_y(Net::new().input("x", 1, "N 8 4 4").node("ReduceMean", &["x"], &["y"], attributes))
    };
    assert_eq!((mean(0).as_str(), mean(1).as_str()), ("float[N, 8]", "float[N, 8, 1, 1]"));
    let einsum = Net::new().input("a", 1, "B T 4").input("b", 1, "4 7");
    assert_eq!(
        type_of_y(einsum.node("Einsum", &["a", "b"], &["y"], vec![strings("equation", "btd, dk -> btk")])),
        "float[B, T, 7]"
    );
}

#[test]
fn reshape_resolves_zeros_minus_one_and_symbols() {
    let reshape = |data: &str, shape: &[i64], allow: i64| {
        let net = Net::new().input("x", 1, data).numbers("s", shape);
        type_of_y(net.node("Reshape", &["x", "s"], &["y"], vec![Net::int("allowzero", allow)]))
    };
    assert_eq!(reshape("N 3 4", &[0, -1], 0), "float[N, 12]");
    assert_eq!(reshape("N 3 4", &[-1, 12], 0), "float[N, 12]");
    assert_eq!(reshape("N 3 4", &[-1, 24], 0), "float[?, 24]");
    assert_eq!(reshape("2 3 0", &[0, -1], 1), "float[0, ?]");
    assert_eq!(reshape("2 3", &[-7, i64::MAX], 0), "float[?, 9223372036854775807]");
}

#[test]
fn shapes_that_exporters_compute_are_followed_with_their_symbols() {
    let net = Net::new()
        .input("x", 1, "N T 32")
        .node("Shape", &["x"], &["s"], vec![])
        .scalar_int("zero", 0)
        .scalar_int("two", 2)
        .scalar_int("four", 4)
        .numbers("axes", &[0])
        .numbers("minus", &[-1])
        .node("Gather", &["s", "zero"], &["n"], vec![])
        .node("Gather", &["s", "two"], &["d"], vec![])
        .node("Div", &["d", "four"], &["h"], vec![])
        .node("Cast", &["h"], &["h2"], vec![Net::int("to", 7)])
        .node("Unsqueeze", &["n", "axes"], &["n1"], vec![])
        .node("Unsqueeze", &["h2", "axes"], &["h1"], vec![])
        .node("Unsqueeze", &["four", "axes"], &["f1"], vec![])
        .node("Concat", &["n1", "minus", "f1", "h1"], &["shape"], vec![Net::int("axis", 0)])
        .node("Reshape", &["x", "shape"], &["y"], vec![]);
    assert_eq!(type_of_y(net), "float[N, T, 4, 8]");
}

#[test]
fn an_expand_whose_shape_hides_behind_where_and_equal_resolves() {
    let net = Net::new()
        .input("x", 1, "1 8")
        .input("z", 1, "N 3")
        .node("Shape", &["z"], &["zs"], vec![])
        .numbers("first", &[0])
        .node("Gather", &["zs", "first"], &["n"], vec![])
        .numbers("minus", &[-1])
        .node("Concat", &["n", "minus"], &["shape"], vec![Net::int("axis", 0)])
        .numbers("minuses", &[-1, -1])
        .numbers("ones", &[1, 1])
        .node("Equal", &["shape", "minuses"], &["is_open"], vec![])
        .node("Where", &["is_open", "ones", "shape"], &["final"], vec![])
        .node("Expand", &["x", "final"], &["y"], vec![]);
    assert_eq!(type_of_y(net), "float[N, 8]");
}

#[test]
fn recurrent_outputs_have_their_four_axes_in_either_layout() {
    let lstm = |layout: i64, data: &str| {
        let attributes =
            vec![Net::int("hidden_size", 5), Net::int("layout", layout), strings("direction", "bidirectional")];
        let net = Net::new().input("x", 1, data).weight("w", &[2, 20, 3]).weight("r", &[2, 20, 5]);
        let model = net.node("LSTM", &["x", "w", "r"], &["y", "h", "c"], attributes).build();
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        ["y", "c"].map(|n| types.get(graph.find(n).unwrap()).to_string())
    };
    assert_eq!(lstm(0, "T B 3"), ["float[T, 2, B, 5]", "float[2, B, 5]"]);
    assert_eq!(lstm(1, "B T 3"), ["float[B, T, 2, 5]", "float[B, 2, 5]"]);
}

#[test]
fn the_last_state_of_a_recurrent_net_is_known_where_its_sequence_is_left_out() {
    let net = || Net::new().input("x", 1, "T B 3").weight("w", &[1, 20, 3]).weight("r", &[1, 20, 5]);
    let lstm = || net().node("LSTM", &["x", "w", "r"], &["", "y"], vec![Net::int("hidden_size", 5)]);
    assert_eq!(type_of_y(lstm()), "float[1, B, 5]");
    assert_eq!(layout_of_y(lstm()), Layout::Sequence);
}

#[test]
fn a_loss_is_a_scalar_unless_it_is_not_reduced() {
    let loss = |reduction: &str| {
        let net = Net::new().input("x", 1, "N 10 T").input("l", 7, "N T");
        type_of_y(net.node("SoftmaxCrossEntropyLoss", &["x", "l"], &["y"], vec![strings("reduction", reduction)]))
    };
    assert_eq!((loss("mean").as_str(), loss("none").as_str()), ("float[]", "float[N, T]"));
}

#[test]
fn a_declaration_stands_and_is_only_filled_in() {
    let net = || Net::new().input("x", 1, "N 4").node("Relu", &["x"], &["y"], vec![]);
    assert_eq!(type_of_y(net().declare("y", 1, "M 5")), "float[M, 5]");
    assert_eq!(type_of_y(net().declare("y", 0, "? ?")), "float[N, 4]");
    assert_eq!(type_of_y(net().declare("y", 10, "A B C")), "float16[A, B, C]");
}

#[test]
fn element_types_follow_comparisons_casts_and_indices() {
    let compare = Net::new().input("x", 1, "N").weight("w", &[1]).node("Less", &["x", "w"], &["y"], vec![]);
    assert_eq!(type_of_y(compare), "bool[N]");
    let half = DataType::Float16 as i64;
    assert_eq!(
        type_of_y(Net::new().input("x", 1, "N").node("Cast", &["x"], &["y"], vec![Net::int("to", half)])),
        "float16[N]"
    );
    assert_eq!(
        type_of_y(Net::new().input("x", 1, "N 7").node("ArgMax", &["x"], &["y"], vec![Net::int("axis", 1)])),
        "int64[N, 1]"
    );
}

#[test]
fn an_unknown_operator_leaves_its_outputs_unknown() {
    assert_eq!(
        type_of_y(Net::new().input("x", 1, "N 7").node("Mystery", &["x"], &["y"], vec![])),
        "unknown type[rank unknown]"
    );
}

#[test]
fn a_map_of_rank_three_is_told_from_a_sequence_of_rank_three() {
    let conv = || Net::new().input("x", 1, "N 3 32").weight("w", &[8, 3, 3]).node("Conv", &["x", "w"], &["c"], vec![]);
    let then = |op: &str, attributes| layout_of_y(conv().node(op, &["c"], &["y"], attributes));
    assert_eq!(then("Relu", vec![]), Layout::Spatial);
    assert_eq!(then("Transpose", vec![ints("perm", &[0, 2, 1])]), Layout::Sequence);
    assert_eq!(then("Transpose", vec![ints("perm", &[1, 0, 2])]), Layout::Unknown);
    assert_eq!(then("Flatten", vec![]), Layout::Features);
    let dense = || Net::new().input("x", 1, "N T 8").weight("w", &[8, 4]).node("MatMul", &["x", "w"], &["m"], vec![]);
    assert_eq!(layout_of_y(dense().weight("b", &[4]).node("Add", &["b", "m"], &["y"], vec![])), Layout::Sequence);
    assert_eq!(layout_of_y(dense().node("Transpose", &["m"], &["y"], vec![ints("perm", &[0, 2, 1])])), Layout::Spatial);
    let embedding = Net::new().input("x", 7, "N T").weight("w", &[100, 4]).node("Gather", &["w", "x"], &["y"], vec![]);
    assert_eq!(layout_of_y(embedding), Layout::Sequence);
    let norm = Net::new().input("x", 1, "N 3 7").weight("s", &[3]).node(
        "BatchNormalization",
        &["x", "s", "s", "s", "s"],
        &["y"],
        vec![],
    );
    assert_eq!(layout_of_y(norm), Layout::Spatial);
}

#[test]
fn inference_alone_finds_what_the_dynamo_exporter_declared() {
    for name in ["mlp_relu", "cnn11_elu", "fixup_resnet20", "gpt_gelu", "seq_lstm_lm"] {
        let mut model = open_model(&format!("{name}.dyn"));
        let declared = std::mem::take(&mut model.graph.value_info);
        let outputs = std::mem::take(&mut model.graph.outputs);
        model.graph.outputs = outputs
            .iter()
            .map(|o| crate::onnx::ValueInfoProto { name: o.name.clone(), ..Default::default() })
            .collect();
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        for declaration in declared.iter().chain(&outputs) {
            let value = graph.find(declaration.name()).unwrap();
            assert_eq!(*types.get(value), TensorType::of_value(declaration).unwrap(), "{name} {}", declaration.name());
        }
    }
}

#[test]
fn every_value_of_a_reference_model_has_a_known_rank_and_type() {
    for name in [
        "bn_resnet8.ts17",
        "cnn11_elu.ts17",
        "fixup_resnet20.ts17",
        "gpt_gelu.ts17",
        "mlp_relu.ts13",
        "seq_lstm_lm.ts17",
    ] {
        let model = open_model(name);
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        for value in graph.values() {
            let known = types.get(value);
            let all = known.dims.as_ref().is_some_and(|d| d.iter().all(|d| *d != Dim::Unknown));
            // Only the flattened batch, N·T, has no name.
            let flattened =
                known.rank() == Some(2) && known.dims.as_ref().unwrap()[0] == Dim::Unknown || known.rank() == Some(1);
            assert!(known.elem != 0 && (all || flattened), "{name} {} {known}", graph.name(value));
        }
    }
}

#[test]
fn activations_of_the_reference_models_have_the_layout_they_should() {
    for (name, tensor, layout) in [
        ("cnn11_elu.dyn", "val_45", Layout::Spatial),
        ("fixup_resnet20.ts17", "/net/net.10/relu2/Relu_output_0", Layout::Spatial),
        ("gpt_gelu.dyn", "gelu", Layout::Sequence),
        ("gpt_gelu.ts17", "/b/b.1/g/Mul_1_output_0", Layout::Sequence),
        ("seq_lstm_lm.dyn", "getitem_3", Layout::Sequence),
        ("seq_lstm_lm.ts17", "/l1/LSTM_output_0", Layout::Sequence),
        ("seq_lstm_lm.ts17", "/l2/Squeeze_output_0", Layout::Sequence),
        ("mlp_relu.ts17", "/net/net.1/Relu_output_0", Layout::Features),
    ] {
        let model = open_model(name);
        let graph = Graph::of(&model).unwrap();
        assert_eq!(Types::of(&graph, &model).layout(graph.find(tensor).unwrap()), layout, "{name} {tensor}");
    }
}

#[test]
fn hostile_attributes_and_shapes_never_panic() {
    let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
    let operators = [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "Gemm",
        "MatMul",
        "Reshape",
        "Flatten",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Gather",
        "GatherND",
        "Expand",
        "Where",
        "LayerNormalization",
        "BatchNormalization",
        "ReduceMean",
        "ArgMax",
        "LSTM",
        "GRU",
        "Pad",
        "Shape",
        "ConstantOfShape",
        "Range",
        "Tile",
        "TopK",
        "OneHot",
        "Resize",
        "DepthToSpace",
        "SpaceToDepth",
        "Einsum",
        "SoftmaxCrossEntropyLoss",
        "Constant",
        "RandomNormal",
        "Mod",
        "Div",
        "Upsample",
        "GridSample",
        "If",
        "ReduceProd",
        "Det",
        "Dropout",
    ];
    let names = [
        "kernel_shape",
        "strides",
        "pads",
        "dilations",
        "axes",
        "perm",
        "split",
        "starts",
        "ends",
        "shape",
        "output_shape",
        "output_padding",
    ];
    let single = [
        "axis",
        "group",
        "ceil_mode",
        "keepdims",
        "k",
        "blocksize",
        "start",
        "end",
        "hidden_size",
        "layout",
        "to",
        "dtype",
        "batch_dims",
    ];
    for op in operators {
        for (i, extreme) in extremes.iter().enumerate() {
            for rank in 0..6 {
                let shape = vec!["9223372036854775807"; rank].join(" ");
                let mut attributes: Vec<_> = names.iter().map(|n| ints(n, &vec![*extreme; (rank + i) % 5])).collect();
                attributes.extend(single.iter().map(|n| Net::int(n, *extreme)));
                attributes.push(strings("equation", ["", "->", "ab,b->a", "...", "a,a"][i]));
                let net = Net::new()
                    .input("x", 1, &shape)
                    .numbers("w", &vec![*extreme; (rank + 2 * i) % 4])
                    .input("z", 1, &shape);
                for inputs in [&["x", "w", "w", "w", "w"][..], &["w", "w"], &["x"], &[], &["x", "z", "w"], &["", "x"]] {
                    for attributes in [attributes.clone(), vec![]] {
                        let net = net.clone().node(op, inputs, &["y", "", "y2"], attributes);
                        type_of_y(net);
                    }
                }
            }
        }
    }
}
