use std::collections::BTreeSet;

use super::*;
use crate::graph::testing::{Net, ints, open_model};
use crate::wire::Model;

fn roles_of(model: &Model) -> Vec<(String, Role, String)> {
    let graph = Graph::of(model).unwrap();
    let types = Types::of(&graph, model);
    roles(&graph, &types)
        .into_iter()
        .map(|r| (graph.name(r.value).to_owned(), r.role, r.because.explain(&graph)))
        .collect()
}

/// The role of initializer `w`.
fn role_of_w(net: Net) -> Role {
    roles_of(&net.build()).into_iter().find(|(name, ..)| name == "w").unwrap().1
}

fn trained(name: &str) -> BTreeSet<String> {
    roles_of(&open_model(name)).into_iter().filter(|(_, role, _)| role.is_trainable()).map(|(name, ..)| name).collect()
}

fn names(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// `prefix.suffix` for each of both.
fn product(prefixes: &str, suffixes: &str) -> BTreeSet<String> {
    prefixes.split_whitespace().flat_map(|p| suffixes.split_whitespace().map(move |s| format!("{p}.{s}"))).collect()
}

// The parameters of the TorchScript exports are what PyTorch has gradients of: the `grad:` keys of the reference data.

#[test]
fn the_parameters_of_the_mlp_are_those_of_pytorch() {
    let expected = product("net.0 net.2 net.4", "weight bias");
    assert_eq!(trained("mlp_relu.ts13"), expected);
    assert_eq!(trained("mlp_relu.ts17"), expected);
    assert_eq!(trained("mlp_relu.dyn"), expected);
}

#[test]
fn the_parameters_of_the_elu_network_are_those_of_pytorch() {
    let expected = product("net.0 net.3 net.5 net.8 net.10 net.13 net.15 net.18 net.20 net.23 net.25", "weight bias");
    assert_eq!(trained("cnn11_elu.ts17"), expected);
    assert_eq!(trained("cnn11_elu.dyn"), expected);
}

#[test]
fn the_parameters_of_the_batch_normalised_network_are_those_of_pytorch() {
    let mut expected = product("net.3 net.4 net.5", "c1.weight n1.weight n1.bias c2.weight n2.weight n2.bias");
    expected.extend(product("net.4 net.5", "sc.0.weight sc.1.weight sc.1.bias"));
    expected.extend(names("net.0.weight net.1.weight net.1.bias net.8.weight net.8.bias"));
    assert_eq!(trained("bn_resnet8.ts17"), expected);
    let statistics = roles_of(&open_model("bn_resnet8.ts17")).into_iter().filter(|(name, ..)| name.contains("running"));
    assert!(statistics.map(|(_, role, _)| role).all(|r| r == Role::State));
}

#[test]
fn the_parameters_of_fixup_with_their_single_elements_are_those_of_pytorch() {
    let blocks = "net.2 net.3 net.4 net.5 net.6 net.7 net.8 net.9 net.10";
    let mut expected = product(blocks, "b1a b1b b2a scale b2b c1.weight c2.weight");
    expected.extend(names("net.0.weight net.13.weight net.13.bias"));
    assert_eq!(trained("fixup_resnet20.ts17"), expected);
    // The dynamo exporter merged the nine equal scales, and wrote the shortcut's zeros out.
    let merged: BTreeSet<String> =
        expected.into_iter().filter(|n| !n.ends_with("scale") || n == "net.2.scale").collect();
    assert_eq!(trained("fixup_resnet20.dyn"), merged);
    for (name, role, because) in roles_of(&open_model("fixup_resnet20.dyn")) {
        match name.as_str() {
            "zeros_like" | "zeros_like_1" => assert_eq!(role, Role::Padding, "{because}"),
            "val_103" | "val_107" => assert_eq!(role, Role::Shape, "{because}"),
            "net.2.scale" => assert_eq!((role, because.as_str()), (Role::Scale, "input 1 (B) of \"node_mul\" (Mul)")),
            _ => {}
        }
    }
}

#[test]
fn the_parameters_of_the_transformer_are_those_of_pytorch() {
    let mut expected = product("b.0 b.1", "n1.weight n1.bias qkv.weight qkv.bias pr.weight pr.bias");
    expected.extend(product("b.0 b.1", "n2.weight n2.bias f1.weight f1.bias f2.weight f2.bias"));
    expected.extend(names("p e.weight n.weight n.bias o.weight o.bias"));
    assert_eq!(trained("gpt_gelu.ts17"), expected);
    // The dynamo exporter transposed the weights under new names and merged the equal normalisations.
    let dynamo = "p e.weight b.0.n1.weight b.0.n1.bias b.0.qkv.bias b.0.pr.bias b.0.f1.bias b.0.f2.bias b.1.qkv.bias b.1.pr.bias \
                  b.1.f1.bias b.1.f2.bias o.bias val_2 val_34 val_38 val_40 val_44 val_71 val_75 val_77 val_81";
    assert_eq!(trained("gpt_gelu.dyn"), names(dynamo));
    let found = roles_of(&open_model("gpt_gelu.dyn"));
    let role = |name: &str| found.iter().find(|(n, ..)| n == name).unwrap().1;
    assert_eq!(
        ["triu", "val_24", "val_10", "val_11", "p", "e.weight", "val_40", "o.bias", "b.0.n1.weight", "b.0.n1.bias"]
            .map(role),
        [
            Role::Mask,
            Role::Constant,
            Role::Shape,
            Role::Shape,
            Role::Embedding,
            Role::Embedding,
            Role::Weight,
            Role::Bias,
            Role::Scale,
            Role::Shift
        ]
    );
}

#[test]
fn the_parameters_of_the_lstm_are_those_of_pytorch_also_packed() {
    let mut expected = product("l1 l2", "weight_ih_l0 weight_hh_l0 bias_ih_l0 bias_hh_l0");
    expected.extend(names("e.weight o.bias"));
    assert_eq!(trained("seq_lstm_lm.ts17"), expected);
    let dynamo = "l1.weight_hh_l0 o.weight o.bias val_40 val_63 val_113 val_114 val_136 val_148";
    assert_eq!(trained("seq_lstm_lm.dyn"), names(dynamo));
    for (name, role, because) in roles_of(&open_model("seq_lstm_lm.dyn")) {
        match name.as_str() {
            "val_15" | "val_91" => assert_eq!(role, Role::InitialState, "{because}"),
            "l1.weight_hh_l0" => assert_eq!(because, "input 2 (R) of \"node_lstm__2\" (LSTM)"),
            _ => {}
        }
    }
}

#[test]
fn numbers_of_a_formula_are_told_from_parameters_of_one_element() {
    let gelu = || {
        Net::new()
            .input("x", 1, "N 8")
            .floats("root", &[1], &[std::f32::consts::SQRT_2])
            .floats("one", &[1], &[1.0])
            .floats("half", &[1], &[0.5])
            .node("Div", &["x", "root"], &["d"], vec![])
            .node("Erf", &["d"], &["e"], vec![])
            .node("Add", &["e", "one"], &["a"], vec![])
            .node("Mul", &["x", "a"], &["m"], vec![])
            .node("Mul", &["m", "half"], &["y"], vec![])
    };
    assert!(roles_of(&gelu().build()).iter().all(|(_, role, _)| *role == Role::Constant));
    let epsilon = Net::new().input("x", 1, "N 8").floats("w", &[1], &[1e-5]).node("Add", &["x", "w"], &["v"], vec![]);
    assert_eq!(role_of_w(epsilon.node("Sqrt", &["v"], &["y"], vec![])), Role::Constant);
    let attention =
        Net::new().input("x", 1, "N 8 8").floats("w", &[1], &[0.125]).node("Mul", &["x", "w"], &["v"], vec![]);
    assert_eq!(role_of_w(attention.node("Softmax", &["v"], &["y"], vec![])), Role::Constant);
    let fresh_fixup = |op: &str, value: f32| {
        let net = Net::new().input("x", 1, "N 8 4 4").node("Tanh", &["x"], &["t"], vec![]).floats("w", &[1], &[value]);
        role_of_w(net.node(op, &["t", "w"], &["v"], vec![]).node("Tanh", &["v"], &["y"], vec![]))
    };
    assert_eq!((fresh_fixup("Add", 0.0), fresh_fixup("Mul", 1.0)), (Role::Bias, Role::Scale));
}

#[test]
fn tables_of_sines_masks_and_input_statistics_are_no_parameters() {
    let positions: Vec<f32> =
        (0..6u8).flat_map(|t| [f32::from(t), f32::from(t) / 100.0].map(|a| [a.sin(), a.cos()])).flatten().collect();
    let added = |w: Net| role_of_w(w.input("x", 1, "N 6 4").node("Add", &["x", "w"], &["y"], vec![]));
    assert_eq!(added(Net::new().floats("w", &[6, 4], &positions)), Role::Constant);
    assert_eq!(added(Net::new().weight("w", &[6, 4])), Role::Embedding);
    assert_eq!(added(Net::new().floats("w", &[4], &[0.0, -1e4, f32::NEG_INFINITY, 0.0])), Role::Mask);
    assert_eq!(added(Net::new().floats("w", &[4], &[0.0; 4])), Role::Bias);
    let normalised =
        Net::new().input("x", 1, "N 3 8 8").weight("w", &[1, 3, 1, 1]).node("Sub", &["x", "w"], &["y"], vec![]);
    assert_eq!(role_of_w(normalised), Role::Constant);
    let frequencies = Net::new().input("x", 1, "N 1").weight("w", &[1, 16]).node("MatMul", &["x", "w"], &["a"], vec![]);
    assert_eq!(role_of_w(frequencies.node("Sin", &["a"], &["y"], vec![])), Role::Constant);
}

#[test]
fn what_operators_read_beside_their_data_is_not_trained() {
    let at = |op: &str, slot: usize, dims: &[i64]| {
        let mut inputs = vec!["x"; slot + 1];
        inputs[slot] = "w";
        role_of_w(Net::new().input("x", 1, "N 8").weight("w", dims).node(op, &inputs, &["y"], vec![]))
    };
    assert_eq!(at("Clip", 1, &[1]), Role::Constant);
    assert_eq!(at("Pad", 2, &[]), Role::Constant);
    assert_eq!(at("Dropout", 1, &[]), Role::Constant);
    assert_eq!(at("Resize", 2, &[2]), Role::Constant);
    assert_eq!(at("Pow", 1, &[1]), Role::Constant);
    assert_eq!(at("Where", 2, &[1]), Role::Constant);
    assert_eq!(at("SoftmaxCrossEntropyLoss", 2, &[8]), Role::Constant);
    assert_eq!(at("DequantizeLinear", 1, &[8]), Role::Quantization);
    assert_eq!(at("Greater", 1, &[8]), Role::Constant);
    assert_eq!(at("PRelu", 1, &[8]), Role::Weight);
    assert_eq!(at("LSTM", 7, &[1, 24]), Role::Weight);
    assert_eq!(at("LSTM", 6, &[1, 1, 8]), Role::InitialState);
    assert_eq!(at("Exp", 0, &[8]), Role::Weight);
}

#[test]
fn rearrangements_are_looked_through_and_a_trainable_reader_wins() {
    let net = Net::new()
        .input("x", 1, "N 8")
        .weight("w", &[4, 8])
        .weight("v", &[4, 8])
        .weight("idle", &[3])
        .node("Concat", &["w", "v"], &["c"], vec![Net::int("axis", 0)])
        .node("Transpose", &["c"], &["t"], vec![ints("perm", &[1, 0])])
        .node("Shape", &["w"], &["s"], vec![])
        .node("MatMul", &["x", "t"], &["y"], vec![]);
    let found = roles_of(&net.build());
    assert_eq!(found[0].1, Role::Weight);
    assert_eq!(found[1].2, "input 1 (B) of node 3 (MatMul)");
    assert_eq!((found[2].1, found[2].2.as_str()), (Role::Unused, "no node reads it"));
}

#[test]
fn initializers_of_old_models_are_inputs_too_and_still_have_roles() {
    let net = Net::new().ir_version(3).opset(8).input("x", 1, "N 8").input("w", 1, "8 4").weight("w", &[8, 4]);
    assert_eq!(role_of_w(net.node("MatMul", &["x", "w"], &["y"], vec![])), Role::Weight);
}

#[test]
fn overrides_select_and_freeze_but_train_no_whole_numbers() {
    let net = Net::new().input("x", 1, "N 8").weight("w", &[8, 4]).numbers("s", &[2, -1]).node(
        "MatMul",
        &["x", "w"],
        &["m"],
        vec![],
    );
    let model = net.node("Reshape", &["m", "s"], &["y"], vec![]).build();
    let graph = Graph::of(&model).unwrap();
    let roles = roles(&graph, &Types::of(&graph, &model));
    assert_eq!(apply_overrides(&roles, None, None), [true, false]);
    assert_eq!(apply_overrides(&roles, Some(&[true, true]), None), [true, false]);
    assert_eq!(apply_overrides(&roles, Some(&[false]), None), [false, false]);
    assert_eq!(apply_overrides(&roles, None, Some(&[true, true])), [false, false]);
}
