//! Two models on the same inputs: what differs, by how much, and where first.

use per_inject::compare::{
    FirstDifference, Inputs, Options, Outcome, Pairs, RunComparison, TensorDifference, first_difference, run,
};
use per_inject::engine::{Arrays, EngineResult, Fill, Tensor};
use per_inject::inject;
use per_inject::onnx::tensor_proto::DataType;
use per_inject::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use per_inject::wire::{Model, splice};
use prost::Message;

use crate::{model, runtime};

fn compare(a: &Model, b: &Model, pairs: &Pairs, options: &Options) -> EngineResult<(RunComparison, FirstDifference)> {
    compare_on(a, b, pairs, options, &Arrays::default())
}

fn compare_on(
    a: &Model,
    b: &Model,
    pairs: &Pairs,
    options: &Options,
    arrays: &Arrays,
) -> EngineResult<(RunComparison, FirstDifference)> {
    let inputs = Inputs::of(a, b, pairs, &Fill::default(), arrays)?;
    let found = run(&runtime(), a, b, pairs, &inputs, options)?;
    Ok((found, first_difference(&runtime(), a, b, pairs, &inputs, options)?))
}

fn difference(outcome: &Outcome) -> &TensorDifference {
    match outcome {
        Outcome::Compared(difference) => difference,
        other => panic!("{other:?}"),
    }
}

/// A node of one output.
fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{op}_{output}")),
        input: inputs.iter().map(|i| (*i).into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// A model of an input `x`, float[2], with these scalars; its last node makes the output.
fn small(nodes: Vec<NodeProto>, scalars: &[(&str, f32)]) -> Model {
    let declare = |name: &str| {
        let known = per_inject::graph::types::TensorType {
            elem: DataType::Float as i32,
            dims: Some(vec![per_inject::graph::types::Dim::Known(2)]),
        };
        known.declare(name).unwrap()
    };
    let output = nodes.last().unwrap().output[0].clone();
    let scalar = |(name, value): &(&str, f32)| TensorProto {
        name: Some((*name).into()),
        data_type: Some(DataType::Float as i32),
        float_data: vec![*value],
        ..TensorProto::default()
    };
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        input: vec![declare("x")],
        output: vec![declare(&output)],
        initializer: scalars.iter().map(scalar).collect(),
        ..GraphProto::default()
    };
    let whole = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    Model::from_bytes(whole.encode_to_vec()).unwrap()
}

#[test]
fn a_model_agrees_with_itself_to_the_last_bit_in_one_pass() {
    for name in
        ["mlp_relu.ts17", "cnn11_elu.dyn", "fixup_resnet20.ts17", "bn_resnet8.ts17", "seq_lstm_lm.ts17", "gpt_gelu.dyn"]
    {
        let model = model(name);
        let pairs = Pairs::by_name(&model, &model).unwrap();
        let (found, first) = compare(&model, &model, &pairs, &Options::default()).unwrap();
        assert!(found.agree, "{name}: {found:?}");
        assert_eq!(found.outputs.len(), 2, "{name}");
        assert!(found.outputs.iter().all(|o| difference(&o.outcome).max_ulp == Some(0)));
        assert_eq!((first.found, first.passes, first.alone, first.skipped), (None, 1, 0, 0), "{name}");
        assert_eq!(first.compared, pairs.values.len());
        assert_eq!((found.seed, found.notes.len()), (Some(0), 0));
    }
}

#[test]
fn a_changed_weight_shows_first_in_the_node_that_reads_it() {
    let a = model("mlp_relu.ts17");
    let weight = a.graph.initializers.iter().position(|t| t.name == "net.2.bias").unwrap();
    let at = a.graph.initializers[weight].payload[0].1.start;
    let mut bytes = a.file.bytes.to_vec();
    bytes[at] ^= 1;
    let b = Model::from_bytes(bytes).unwrap();
    let pairs = Pairs::by_name(&a, &b).unwrap();
    let arrays = Arrays::read("models/mlp_relu.inputs.npz".as_ref()).unwrap();
    let (found, first) = compare_on(&a, &b, &pairs, &Options::default(), &arrays).unwrap();
    assert!(!found.agree && found.seed.is_none(), "{found:?}");
    let first = first.found.unwrap();
    let reader = a.graph.nodes.iter().position(|n| n.input.contains(&"net.2.bias".to_owned())).unwrap();
    assert_eq!((first.node_a, first.node_b, &first.a), (reader, reader, &a.graph.nodes[reader].output[0]));
    assert!(first.made_by.contains("Gemm") && first.unmatched_inputs.is_empty(), "{first:?}");
    let difference = difference(&first.outcome);
    assert!(
        difference.differing > 0 && difference.worst.as_ref().unwrap().index[1] == 0,
        "the bias of unit 0: {difference:?}"
    );
    let loose = Options { tolerance: 1e-3, ..Options::default() };
    let (found, first) = compare_on(&a, &b, &pairs, &loose, &arrays).unwrap();
    assert!(found.agree && first.found.is_none(), "an ulp of a bias is below 1e-3");
}

#[test]
fn a_difference_that_vanishes_again_is_found_all_the_same() {
    // x + c, then times zero, then a long way without any difference, then another one.
    let mut nodes = vec![
        node("Add", &["x", "c"], "early"),
        node("Mul", &["early", "zero"], "gone"),
        node("Add", &["x", "gone"], "v0"),
    ];
    for i in 0..60 {
        nodes.push(node("Abs", &[&format!("v{i}")], &format!("v{}", i + 1)));
    }
    nodes.push(node("Mul", &["v60", "d"], "late"));
    let of = |c, d| small(nodes.clone(), &[("c", c), ("zero", 0.0), ("d", d)]);
    let (a, b) = (of(1.0, 1.0), of(2.0, 3.0));
    let pairs = Pairs::by_name(&a, &b).unwrap();
    for budget in [1 << 20, 64, 8] {
        let options = Options { budget, ..Options::default() };
        let (_, first) = compare(&a, &b, &pairs, &options).unwrap();
        assert_eq!((first.found.as_ref().unwrap().a.as_str(), first.passes), ("early", 1));
        let same_start = of(1.0, 3.0);
        let (_, first) = compare(&a, &same_start, &pairs, &options).unwrap();
        assert_eq!(first.found.as_ref().unwrap().a, "late");
        assert_eq!(first.compared, nodes.len());
        // float[2] takes 8 bytes.
        assert_eq!(
            first.passes,
            match budget {
                8 => 64,
                64 => 8,
                _ => 1,
            }
        );
    }
}

#[test]
fn nan_on_one_side_alone_is_counted_and_on_both_agrees() {
    let of = |c| small(vec![node("Sub", &["x", "c"], "s"), node("Sqrt", &["s"], "y")], &[("c", c)]);
    let (a, b) = (of(1e9), of(-1e9));
    let pairs = Pairs::by_name(&a, &b).unwrap();
    let (found, first) = compare(&a, &b, &pairs, &Options::default()).unwrap();
    let y = difference(&found.outputs[0].outcome);
    assert_eq!((y.special, y.beyond, y.nan_in_both, y.max_abs), (2, 2, 0, 0.0));
    assert_eq!(y.worst.as_ref().unwrap().a, "NaN");
    assert_eq!(first.found.unwrap().a, "s");
    let (found, _) = compare(&a, &a, &pairs, &Options::default()).unwrap();
    assert!(found.agree && difference(&found.outputs[0].outcome).nan_in_both == 2);
}

#[test]
fn other_names_shapes_and_outputs_are_told() {
    let a = small(vec![node("Abs", &["x"], "h"), node("Neg", &["h"], "y")], &[]);
    let b = small(vec![node("Abs", &["x"], "g"), node("Concat", &["g", "g"], "y")], &[]);
    // Concat wants its axis.
    let error = compare(&a, &b, &Pairs::by_name(&a, &b).unwrap(), &Options::default()).unwrap_err().to_string();
    assert!(
        error.contains("ONNX Runtime 1.") && error.contains("refuses the model") && error.contains("axis"),
        "{error}"
    );
    let c = small(vec![node("Abs", &["x"], "g"), node("ReduceSum", &["g"], "z")], &[]);
    let renamed = |name: &str| match name {
        "h" => Some("g".to_owned()),
        "y" => Some("z".to_owned()),
        _ => None,
    };
    let pairs = Pairs::by(&a, &c, renamed).unwrap();
    assert_eq!(pairs.outputs, [("y".to_owned(), "z".to_owned())]);
    assert_eq!(pairs.values.len(), 2);
    let alone = Pairs::by_name(&a, &c).unwrap();
    let (found, first) = compare(&a, &c, &alone, &Options::default()).unwrap();
    assert_eq!((found.only_a, found.only_b, found.agree), (vec!["y".to_owned()], vec!["z".to_owned()], false));
    assert_eq!((first.compared, first.alone, first.passes), (0, 2, 0));
}

#[test]
fn an_injected_model_computes_what_it_computed_before_and_another_loss() {
    let a = model("cnn11_elu.ts17");
    let options = inject::Options {
        layers: "elu".into(),
        coef: Some(1e-3),
        estimator: inject::Estimator::Exact,
        ..inject::Options::default()
    };
    let plan = inject::plan(&a, &options).unwrap();
    let b = Model::from_bytes(splice(&a, &plan.patch).unwrap().to_vec(&a.file.bytes)).unwrap();
    // The loss of b is another value under the old name; what was the loss has a new one.
    let old_loss = b.graph.nodes.iter().find(|n| n.op_type() == "SoftmaxCrossEntropyLoss").unwrap().output[0].clone();
    assert_ne!(old_loss, "loss");
    let pairs =
        Pairs::by(&a, &b, |name| Some(if name == "loss" { old_loss.clone() } else { name.to_owned() })).unwrap();
    let (found, first) = compare(&a, &b, &pairs, &Options::default()).unwrap();
    let [loss, logits] = &found.outputs[..] else { panic!("{found:?}") };
    assert_eq!((loss.a.as_str(), loss.outcome.agrees(), logits.outcome.agrees()), ("loss", false, true));
    assert_eq!((first.found, first.compared), (None, a.graph.nodes.iter().map(|n| n.output.len()).sum()));
}

#[test]
fn random_numbers_without_a_seed_are_noted() {
    let draws = small(vec![node("RandomNormalLike", &["x"], "y")], &[]);
    let fixed = small(vec![node("Abs", &["x"], "y")], &[]);
    let pairs = Pairs::by_name(&draws, &fixed).unwrap();
    let (found, _) = compare(&draws, &fixed, &pairs, &Options::default()).unwrap();
    assert_eq!(found.notes.len(), 1);
    assert!(
        found.notes[0].starts_with("the first model draws random numbers without a seed (RandomNormalLike)"),
        "{:?}",
        found.notes
    );
}

#[test]
fn inputs_of_one_side_alone_get_values_of_their_own() {
    let a = small(vec![node("Abs", &["x"], "y")], &[]);
    let mut whole = ModelProto::decode(a.file.bytes.clone()).unwrap();
    let graph = whole.graph.as_mut().unwrap();
    let more = ValueInfoProto { name: Some("more".into()), ..graph.input[0].clone() };
    graph.input.push(more);
    graph.node.push(node("Neg", &["more"], "z"));
    let b = Model::from_bytes(whole.encode_to_vec()).unwrap();
    let pairs = Pairs::by_name(&a, &b).unwrap();
    let x = Tensor::new(vec![2], vec![1f32, -2.0]).unwrap();
    let arrays = Arrays { named: vec![("x".into(), x.clone()), ("w".into(), x)], ..Arrays::default() };
    let (found, _) = compare_on(&a, &b, &pairs, &Options::default(), &arrays).unwrap();
    assert!(found.agree);
    let used: Vec<_> = found.inputs.iter().map(|u| (u.a.as_deref(), u.b.as_deref(), u.tensor.as_str())).collect();
    assert_eq!(used, [(Some("x"), Some("x"), "float[2]"), (None, Some("more"), "float[2]")]);
    assert_eq!((found.seed, found.unused), (Some(0), vec!["w".to_owned()]));
}
