use super::*;
use crate::graph::kind::kind;
use crate::graph::role::{apply_overrides, roles};
use crate::graph::testing::{Net, ints, open_model};

fn warnings_of(model: &Model) -> Vec<Warning> {
    let graph = Graph::of(model).unwrap();
    let types = Types::of(&graph, model);
    let roles = roles(&graph, &types);
    let reach = Reach::of(&graph, &types, &apply_overrides(&roles, None, None));
    let kind = kind(&graph, &types, model, &reach);
    warnings(&graph, model, &types, &roles, &reach, &kind)
}

fn sentences(model: &Model) -> Vec<String> {
    warnings_of(model).iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_export_gives_no_warning() {
    for name in
        ["mlp_relu.ts13", "mlp_relu.ts17", "cnn11_elu.ts17", "fixup_resnet20.ts17", "bn_resnet8.ts17", "gpt_gelu.ts17"]
    {
        assert_eq!(sentences(&open_model(name)), [""; 0], "{name}");
    }
}

#[test]
fn the_scales_that_the_dynamo_exporter_merged_are_named() {
    let found = sentences(&open_model("fixup_resnet20.dyn"));
    assert!(
        found[0].starts_with("\"net.2.scale\" is one parameter of 9 nodes: \"node_mul\" (Mul), \"node_mul_1\" (Mul)"),
        "{found:?}"
    );
    let batch = "batch size 4 is baked in: every dimension of the inputs is fixed (x [4, 3, 32, 32], y [4])";
    assert!(found[1].starts_with(batch), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn a_tied_embedding_that_came_apart_is_found() {
    let found = warnings_of(&open_model("seq_lstm_lm.dyn"));
    assert_eq!(found[0], Warning::Transposed { first: "o.weight".into(), second: "val_148".into() });
    assert_eq!(found[1], Warning::BatchBakedIn { inputs: vec!["x [9, 5]".into(), "y [9, 5]".into()], batch: None });
    assert_eq!(found.len(), 2);
    // Still tied, it is one parameter of two layers.
    let Warning::Shared { initializer, consumers } = &warnings_of(&open_model("seq_lstm_lm.ts17"))[0] else { panic!() };
    assert_eq!((initializer.as_str(), consumers.len()), ("e.weight", 2));
}

#[test]
fn equal_parameters_are_found_unless_they_are_one_number_throughout() {
    let net = |a: &[f32], b: &[f32]| {
        let net = Net::new().input("x", 1, "N 2").floats("a", &[2, 2], a).floats("b", &[2, 2], b);
        let net = net.node("MatMul", &["x", "a"], &["h"], vec![]).node("MatMul", &["h", "b"], &["y"], vec![]);
        warnings_of(&net.build())
    };
    let equal = Warning::Equal { initializers: vec!["a".into(), "b".into()] };
    assert_eq!(net(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0]), [equal]);
    assert_eq!(net(&[1.0; 4], &[1.0; 4]), []);
    let transposed = Warning::Transposed { first: "a".into(), second: "b".into() };
    assert_eq!(net(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]), [transposed]);
    assert_eq!(net(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 5.0]), []);
}

#[test]
fn normalisation_in_inference_mode_is_named_only_where_there_is_a_loss() {
    let net = |opset: i64, outputs: &[&str], training: i64| {
        let net = Net::new().opset(opset).input("x", 1, "N 3 4 4").weight("s", &[3]).floats("m", &[3], &[0.0; 3]);
        let net = net.node(
            "BatchNormalization",
            &["x", "s", "s", "m", "m"],
            outputs,
            vec![Net::int("training_mode", training)],
        );
        net.node("ReduceMean", &["y"], &["loss"], vec![ints("axes", &[0, 1, 2, 3]), Net::int("keepdims", 0)])
    };
    let frozen =
        |net: Net| warnings_of(&net.build()).iter().any(|w| matches!(w, Warning::FrozenBatchNormalization { .. }));
    assert!(frozen(net(17, &["y"], 0).output("loss", 1, None)));
    assert!(!frozen(net(17, &["y", "m2", "v2"], 1).output("loss", 1, None)));
    assert!(frozen(net(9, &["y"], 1).output("loss", 1, None)));
    assert!(!frozen(net(9, &["y", "m2", "v2"], 0).output("loss", 1, None)));
    assert!(!frozen(net(17, &["y"], 0).output("y", 1, None)));
}

#[test]
fn a_loss_that_no_parameter_reaches_is_named() {
    let net = Net::new().input("x", 1, "N 2").weight("w", &[2, 2]).node("MatMul", &["x", "w"], &["y"], vec![]);
    let net = net
        .node("ReduceMean", &["x"], &["loss"], vec![Net::int("keepdims", 0)])
        .output("y", 1, None)
        .output("loss", 1, None);
    assert_eq!(warnings_of(&net.build()), [Warning::UnreachedLoss { loss: "loss".into() }]);
    let bare = Net::new().input("x", 1, "N 2").node("ReduceMean", &["x"], &["loss"], vec![Net::int("keepdims", 0)]);
    assert_eq!(warnings_of(&bare.output("loss", 1, None).build()), [Warning::NothingTrained { loss: "loss".into() }]);
}
