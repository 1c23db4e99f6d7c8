//! Properties over random graphs, random selectors and damaged models.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::sync::LazyLock;

use per_inject::graph::Graph;
use per_inject::inject::{At, Estimator, Options, Outputs, plan};
use per_inject::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use per_inject::regularizer::{Reduction, View};
use per_inject::select::{Catalog, Selector, select_names};
use per_inject::strip;
use per_inject::wire::{Model, ModelFile, splice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

/// Operators by their number of inputs; some that nobody knows.
const OPERATORS: [(&str, usize); 24] = [
    ("Relu", 1),
    ("Sigmoid", 1),
    ("Tanh", 1),
    ("Elu", 1),
    ("Erf", 1),
    ("Softplus", 1),
    ("Neg", 1),
    ("Exp", 1),
    ("Identity", 1),
    ("Shape", 1),
    ("Flatten", 1),
    ("Transpose", 1),
    ("Mystery", 1),
    ("Add", 2),
    ("Mul", 2),
    ("Div", 2),
    ("Max", 2),
    ("MatMul", 2),
    ("Gemm", 3),
    ("Clip", 3),
    ("Where", 3),
    ("Conv", 3),
    ("LSTM", 3),
    ("If", 1),
];

#[derive(Debug, Clone)]
struct RandomNode {
    operator: usize,
    /// Which earlier values it reads, counted back from it; `None` leaves an input out.
    reads: Vec<Option<usize>>,
    name: String,
    /// Whether it has a second output.
    two: bool,
}

/// Names as exporters and other people make them; some look like ours.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z/._:]{1,12}",
        "\\PC{1,6}",
        select(
            &[
                "per_inject",
                "per_inject/",
                "per_inject/const/x",
                "per_inject/3/coef",
                "per_inject/0",
                "const",
                "coef",
                "7/x"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

fn random_node() -> impl Strategy<Value = RandomNode> {
    (0..OPERATORS.len(), vec(proptest::option::weighted(0.9, 0usize..6), 3), name(), any::<bool>())
        .prop_map(|(operator, reads, name, two)| RandomNode { operator, reads, name, two })
}

fn value(name: &str, dims: Option<&[i64]>) -> ValueInfoProto {
    use per_inject::onnx::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |d: &i64| Dimension { value: (*d >= 0).then_some(Value::DimValue(*d)), denotation: None };
    let shape = dims.map(|dims| per_inject::onnx::TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(1), shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

/// A graph whose every value depends on the initializer `w` or on the input `x`, with a scalar loss at its end.
fn build(nodes: &[RandomNode], shape: Option<Vec<i64>>, prefix: &str, ir_version: i64, opset: i64) -> ModelProto {
    let mut values = vec!["x".to_owned(), "w".to_owned()];
    let mut graph = GraphProto::default();
    for (i, random) in nodes.iter().enumerate() {
        let (op, inputs) = OPERATORS[random.operator];
        let read =
            |back: &Option<usize>| back.map_or(String::new(), |b| values[values.len() - 1 - b % values.len()].clone());
        let mut node = NodeProto {
            name: Some(random.name.clone()),
            op_type: Some(op.into()),
            input: random.reads.iter().take(inputs).map(read).collect(),
            output: vec![format!("{prefix}v{i}")],
            ..Default::default()
        };
        if node.input.iter().all(String::is_empty) {
            node.input[0] = "w".into();
        }
        if op == "If" {
            let inner = NodeProto {
                op_type: Some("Relu".into()),
                input: vec![values[values.len() - 1].clone()],
                output: vec!["inner".into()],
                ..Default::default()
            };
            let body = GraphProto { node: vec![inner], output: vec![value("inner", None)], ..Default::default() };
            node.attribute.push(AttributeProto {
                name: Some("then_branch".into()),
                r#type: Some(AttributeType::Graph as i32),
                g: Some(Box::new(body)),
                ..Default::default()
            });
        }
        values.push(node.output[0].clone());
        if random.two {
            node.output.push(format!("{prefix}u{i}"));
            values.push(node.output[1].clone());
        }
        graph.node.push(node);
    }
    let last = values[values.len() - 1].clone();
    let axes = AttributeProto {
        name: Some("keepdims".into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(0),
        ..Default::default()
    };
    graph.node.push(NodeProto {
        op_type: Some("ReduceMean".into()),
        input: vec![last],
        output: vec!["loss".into()],
        attribute: vec![axes],
        ..Default::default()
    });
    graph.input = vec![value("x", shape.as_deref())];
    if ir_version < 4 {
        graph.input.push(value("w", Some(&[4, 4])));
    }
    graph.output = vec![value("loss", Some(&[]))];
    graph.initializer = vec![TensorProto {
        name: Some("w".into()),
        dims: vec![4, 4],
        data_type: Some(1),
        raw_data: Some(vec![1; 64].into()),
        ..Default::default()
    }];
    ModelProto {
        ir_version: Some(ir_version),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        graph: Some(graph),
        metadata_props: vec![StringStringEntryProto { key: Some("author".into()), value: Some("someone".into()) }],
        ..Default::default()
    }
}

fn options() -> impl Strategy<Value = Options> {
    let layers = select(
        &["all", "all,!#1", "name:*", "tensor:x,all", "tensor:v0", "op:Relu,op:Elu", "#1..", "relu", "op:LSTM"][..],
    );
    let views = select(vec![None, Some(View::Flatten), Some(View::Channel), Some(View::Last)]);
    let flags = vec(any::<bool>(), 10);
    (layers, views, flags, proptest::option::of(any::<u64>()), select(vec!["*", "w", "none"])).prop_map(
        |(layers, view, flags, seed, wrt)| Options {
            layers: layers.into(),
            at: if flags[0] { At::Pre } else { At::Post },
            coef: Some(1e-4),
            coef_overrides: if flags[1] { vec![("#1".into(), 2.0)] } else { Vec::new() },
            coef_input: flags[2],
            estimator: if flags[3] { Estimator::Exact } else { Estimator::Sampled },
            view,
            reduction: if flags[4] { Reduction::Sum } else { Reduction::Mean },
            seed,
            share_slices: flags[9],
            as_output: flags[5],
            outputs: Outputs { task: flags[6] && !flags[5], per: flags[7], layers: flags[8] },
            wrt: flags[6].then(|| wrt.into()),
            ..Options::default()
        },
    )
}

/// Field 999 with a string, unknown to every schema, and a group.
const UNKNOWN: &[u8] = b"\xba\x3e\x03new\xf3\x01\x08\x05\xf4\x01";

/// The model, with unknown fields behind some messages and its length prefixes wider than needed.
fn odd(proto: &ModelProto, unknown: bool, padding: usize) -> Vec<u8> {
    let mut graph = proto.graph.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    if unknown {
        graph.extend_from_slice(UNKNOWN);
    }
    let mut out = ModelProto { graph: None, ..proto.clone() }.encode_to_vec();
    out.push(7 << 3 | 2);
    let mut length = Vec::new();
    prost::encoding::encode_varint(graph.len() as u64, &mut length);
    for _ in 0..padding {
        *length.last_mut().unwrap() |= 0x80;
        length.push(0);
    }
    out.extend_from_slice(&length);
    out.extend_from_slice(&graph);
    if unknown {
        out.extend_from_slice(UNKNOWN);
    }
    out
}

/// Injects twice where it can be done, and takes both out again.
fn there_and_back(original: &[u8], first: &Options, second: &Options) -> Result<usize, TestCaseError> {
    let mut stack = vec![original.to_vec()];
    for options in [first, second] {
        let bytes = stack[stack.len() - 1].clone();
        let model = Model::from_bytes(bytes.clone()).unwrap();
        let Ok(planned) = plan(&model, options) else { continue };
        if planned.patch.is_empty() {
            continue;
        }
        let injected = splice(&model, &planned.patch).unwrap().to_vec(&bytes);
        let model = Model::from_bytes(injected.clone()).unwrap();
        if let Err(error) = Graph::of(&model) {
            return Err(TestCaseError::fail(format!("the injected graph is none: {error}")));
        }
        stack.push(injected);
    }
    let injections = stack.len() - 1;
    while stack.len() > 1 {
        let injected = stack.pop().unwrap();
        let model = Model::from_bytes(injected.clone()).unwrap();
        let (patch, record) = strip::plan(&model).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let stripped = splice(&model, &patch).unwrap().to_vec(&injected);
        prop_assert!(&stripped == stack.last().unwrap(), "strip gave other bytes");
        prop_assert!(strip::is_original(&ModelFile::from_bytes(stripped), &record).unwrap());
    }
    Ok(injections)
}

fn models() -> &'static [(String, bytes::Bytes)] {
    static MODELS: LazyLock<Vec<(String, bytes::Bytes)>> = LazyLock::new(|| {
        let paths = std::fs::read_dir("models").unwrap().map(|e| e.unwrap().path());
        let mut models: Vec<_> = paths
            .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
            .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap().into()))
            .collect();
        models.sort();
        models
    });
    &MODELS
}

/// Text made of what selectors are made of, and of anything.
fn selector_text() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        6 => select(&[
            "relu", "gelu", "all", "none", "op:", "name:", "re:", "tensor:", "#", "..", ",", "!", "*", "?", "[", "]", "{", "}", "(",
            ")", "\\", "^", "$", "|", "loss", "1", "2", "99999999999999999999", " ", "/net", "Relu", "=", ":", "-", "é", "\u{202e}", "\n",
        ][..]).prop_map(str::to_owned),
        1 => "\\PC{0,5}",
    ];
    vec(token, 0..10).prop_map(|tokens| tokens.concat())
}

/// 400 cases, or what PROPTEST_CASES says.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 400 };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_graphs_are_injected_and_stripped_to_the_same_bytes(
        nodes in vec(random_node(), 1..25),
        shape in proptest::option::of(vec(select(vec![-1i64, 0, 1, 4, 4, 7]), 0..5)),
        prefix in select(vec!["", "", "per_inject/", "per_inject/2/", "per_inject/task_loss/"]),
        (ir_version, opset) in select(vec![(3, 9), (7, 12), (8, 13), (8, 17), (10, 21)]),
        first in options(), second in options(), unknown: bool, padding in 0usize..3,
    ) {
        let bytes = odd(&build(&nodes, shape, prefix, ir_version, opset), unknown, padding);
        there_and_back(&bytes, &first, &second)?;
    }

    #[test]
    fn a_single_activation_is_always_injected(
        activation in 0usize..4, more in vec(random_node(), 0..6), unknown: bool, padding in 0usize..3, exact: bool,
    ) {
        let node = |operator| RandomNode { operator, reads: vec![Some(0), Some(1), None], name: String::new(), two: false };
        let matmul = OPERATORS.iter().position(|(op, _)| *op == "MatMul").unwrap();
        let mut nodes = vec![node(matmul), node(activation)];
        let activations = |n: &RandomNode| ["Neg", "Identity", "Exp"].contains(&OPERATORS[n.operator].0);
        nodes.extend(more.into_iter().filter(activations).map(|n| RandomNode { reads: vec![Some(0)], two: false, ..n }));
        let bytes = odd(&build(&nodes, Some(vec![-1, 4]), "", 8, 17), unknown, padding);
        let estimator = if exact { Estimator::Exact } else { Estimator::Sampled };
        let options = Options { coef: Some(1.0), estimator, ..Options::default() };
        prop_assert_eq!(there_and_back(&bytes, &options, &options)?, 2);
    }

    #[test]
    fn selectors_never_panic_on_any_text(text in selector_text(), which in 0usize..12) {
        let (_, bytes) = &models()[which % models().len()];
        let model = Model::from_bytes(bytes.clone()).unwrap();
        let graph = Graph::of(&model).unwrap();
        let catalog = Catalog::of(&graph, &model);
        match text.parse::<Selector>().map(|s| s.select(&graph, &catalog)) {
            Ok(Ok(taps)) => prop_assert!(taps.iter().all(|t| t.value.index() < graph.value_count())),
            Ok(Err(error)) => prop_assert!(!error.to_string().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        let names: Vec<&str> = model.graph.initializers.iter().map(|t| t.name.as_str()).collect();
        if let Ok(chosen) = select_names(&text, &names) {
            prop_assert_eq!(chosen.len(), names.len());
        }
    }

    #[test]
    fn real_models_with_flipped_bytes_never_panic(
        which in 0usize..12, flips in vec((any::<prop::sample::Index>(), 1u8..), 1..8), head: [u8; 7], front: bool,
    ) {
        let (_, bytes) = &models()[which % models().len()];
        let mut damaged = bytes.to_vec();
        // The structure is at both ends, the weights are between.
        let length = damaged.len().min(20_000);
        let start = if front { 0 } else { damaged.len() - length };
        for (at, bits) in &flips {
            damaged[start + at.index(length)] ^= bits;
        }
        properties::parse(&damaged);
        properties::inject(&[&[0], &head[..], &damaged].concat());
    }
}
