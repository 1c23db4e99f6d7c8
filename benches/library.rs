//! The library's steps, each by itself: a model in memory is decoded, analysed, planned for, spliced and stripped.
//!
//! `cargo bench --bench library`, then `python3 benches/library.py` for the table. As a test (`cargo test --benches`) every step runs
//! once, on the small models only.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use per_inject::graph::Graph;
use per_inject::graph::infer::Types;
use per_inject::graph::role::roles;
use per_inject::inject::{Estimator, Options, Plan, plan};
use per_inject::inspect::inspect;
use per_inject::onnx::attribute_proto::AttributeType;
use per_inject::onnx::tensor_shape_proto::{Dimension, dimension};
use per_inject::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use per_inject::patch::Patch;
use per_inject::select::{Catalog, Selector};
use per_inject::strip;
use per_inject::wire::{Model, splice};
use prost::Message;

/// The allocator of the command, so that the numbers are the command's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANNELS: i64 = 4;
const FLOAT: i32 = 1;
const INT64: i32 = 7;

fn value(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    let batch = Dimension { value: Some(dimension::Value::DimParam("N".into())), denotation: None };
    let fixed = dims.iter().map(|d| Dimension { value: Some(dimension::Value::DimValue(*d)), denotation: None });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(elem), shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

fn weight(name: &str, dims: &[i64], seed: usize) -> TensorProto {
    let count: i64 = dims.iter().product();
    // No two the same: equal initializers are looked for.
    let elements = (0..count).flat_map(|i| (seed as f32 + 1.0 / (i + 2) as f32).to_le_bytes());
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        raw_data: Some(elements.collect::<Vec<u8>>().into()),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = Some(AttributeType::Ints as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, ints: values.to_vec(), ..Default::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, i: Some(value), ..Default::default() }
}

fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    NodeProto {
        name: Some(name.into()),
        op_type: Some(op.into()),
        input: owned(inputs),
        output: owned(outputs),
        attribute,
        ..Default::default()
    }
}

/// Blocks of Conv, BatchNormalization, Relu and Add, one Relu in four nodes: `graphs.py`'s `residual`.
fn residual(nodes: usize) -> Bytes {
    let map = [CHANNELS, 16, 16];
    let mut graph = GraphProto { name: Some("main".into()), ..Default::default() };
    let mut x = "x".to_owned();
    for i in 0..(nodes - 3) / 4 {
        let named = |part: &str| format!("/blocks.{i}/{part}");
        let (conv, normed, relu, total) = (named("conv/out"), named("bn/out"), named("act/out"), named("add/out"));
        let kernel = format!("blocks.{i}.conv.weight");
        let statistics = ["weight", "bias", "running_mean", "running_var"].map(|s| format!("blocks.{i}.bn.{s}"));
        graph.initializer.push(weight(&kernel, &[CHANNELS, CHANNELS, 3, 3], 5 * i));
        graph.initializer.extend(statistics.iter().zip(1..).map(|(s, n)| weight(s, &[CHANNELS], 5 * i + n)));
        let [scale, bias, mean, variance] = &statistics;
        let training = vec![int("training_mode", 1)];
        let (new_mean, new_variance) = (named("bn/mean"), named("bn/var"));
        graph.node.extend([
            node(
                &named("conv"),
                "Conv",
                &[&x, &kernel],
                &[&conv],
                vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4])],
            ),
            node(
                &named("bn"),
                "BatchNormalization",
                &[&conv, scale, bias, mean, variance],
                &[&normed, &new_mean, &new_variance],
                training,
            ),
            node(&named("act"), "Relu", &[&normed], &[&relu], Vec::new()),
            node(&named("add"), "Add", &[&relu, &x], &[&total], Vec::new()),
        ]);
        graph.value_info.extend([&conv, &normed, &relu, &total].map(|v| value(v, FLOAT, &map)));
        x = total;
    }
    graph.node.extend([
        node("/pool", "GlobalAveragePool", &[&x], &["pooled"], Vec::new()),
        node("/flatten", "Flatten", &["pooled"], &["logits"], Vec::new()),
        node("/loss", "SoftmaxCrossEntropyLoss", &["logits", "target"], &["loss"], Vec::new()),
    ]);
    graph.input = vec![value("x", FLOAT, &map), value("target", INT64, &[])];
    let scalar = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(TensorShapeProto::default()) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(scalar)), ..Default::default() };
    graph.output = vec![ValueInfoProto { name: Some("loss".into()), r#type: Some(r#type), ..Default::default() }];
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let model = ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..Default::default() };
    model.encode_to_vec().into()
}

/// The models of `models/`, by name.
fn shipped() -> Vec<(String, Bytes)> {
    let entries = std::fs::read_dir("models").expect("run from the project's folder").flatten().map(|e| e.path());
    let mut models: Vec<(String, Bytes)> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a model can be read").into())
        })
        .collect();
    models.sort();
    models
}

fn read(bytes: &Bytes) -> Model {
    Model::from_bytes(bytes.clone()).expect("a model")
}

fn write(model: &Model, patch: &Patch) -> Vec<u8> {
    splice(model, patch).expect("the patch fits").to_vec(&model.file.bytes)
}

fn planned(model: &Model, estimator: Estimator) -> Plan {
    let options = Options { coef: Some(3e-5), estimator, ..Options::default() };
    plan(model, &options).expect("the model can be injected into")
}

/// Every step on one model.
fn steps(criterion: &mut Criterion, name: &str, bytes: &Bytes) {
    let model = read(bytes);
    let graph = Graph::of(&model).expect("a graph");
    let types = Types::of(&graph, &model);
    let catalog = Catalog::of(&graph, &model);
    let all: Selector = "all".parse().expect("a selector");
    let exact = planned(&model, Estimator::Exact);
    let injected = read(&write(&model, &exact.patch).into());
    assert!(write(&injected, &strip::plan(&injected).expect("an injection").0) == *bytes, "strip gives back the model");

    let mut time = |step: &str, run: &mut dyn FnMut()| {
        let mut group = criterion.benchmark_group(step);
        group.throughput(Throughput::Elements(graph.nodes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(&mut *run));
        group.finish();
    };
    time("decode", &mut || drop(black_box(read(bytes))));
    time("graph", &mut || drop(black_box(Graph::of(&model))));
    time("types", &mut || drop(black_box(Types::of(&graph, &model))));
    time("roles", &mut || drop(black_box(roles(&graph, &types))));
    time("activations", &mut || drop(black_box(Catalog::of(&graph, &model))));
    time("select", &mut || drop(black_box(all.select(&graph, &catalog))));
    time("inspect", &mut || drop(black_box(inspect(&model, None, None))));
    time("plan exact", &mut || drop(black_box(planned(&model, Estimator::Exact))));
    time("plan sampled", &mut || drop(black_box(planned(&model, Estimator::Sampled))));
    time("splice", &mut || drop(black_box(write(&model, &exact.patch))));
    time("strip", &mut || {
        let (patch, record) = strip::plan(&injected).expect("an injection");
        drop(black_box((write(&injected, &patch), record)));
    });
}

fn library(criterion: &mut Criterion) {
    // `cargo bench` says so; without it, this is a test.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let sizes: &[(&str, usize)] = if measured {
        &[("residual, 1k nodes", 1_000), ("residual, 10k nodes", 10_000), ("residual, 100k nodes", 100_000)]
    } else {
        &[("residual, 1k nodes", 1_000)]
    };
    for (name, nodes) in sizes {
        steps(criterion, name, &residual(*nodes));
    }
    for (name, bytes) in shipped() {
        steps(criterion, &name, &bytes);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = library
}
criterion_main!(benches);
