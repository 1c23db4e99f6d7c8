//! State that stays where it is from run to run.

use per_inject::engine::{Carried, Data, LoadOptions, Residence, Resident, Source, Tensor};
use per_inject::graph::types::{Dim, TensorType};
use per_inject::onnx::attribute_proto::AttributeType;
use per_inject::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use prost::Message;

use crate::runtime;

/// `s_next` = s + the mean of the rows of d, and `total`, its sum.
fn model() -> Vec<u8> {
    let value = |name: &str, dims: &[Dim]| -> ValueInfoProto {
        TensorType { elem: 1, dims: Some(dims.to_vec()) }.declare(name).unwrap()
    };
    let number = |name: &str, i| AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(i),
        ..AttributeProto::default()
    };
    let axes = AttributeProto {
        name: Some("axes".into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: vec![0],
        ..AttributeProto::default()
    };
    let node = |op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    };
    let (two, rows) = (Dim::Known(2), Dim::Symbol("N".into()));
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![
            node("ReduceMean", &["d"], "mean", vec![axes, number("keepdims", 0)]),
            node("Add", &["s", "mean"], "s_next", vec![]),
            node("ReduceSum", &["s_next"], "total", vec![number("keepdims", 0)]),
        ],
        input: vec![value("s", std::slice::from_ref(&two)), value("d", &[rows, two.clone()])],
        output: vec![value("s_next", &[two]), value("total", &[])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
        .encode_to_vec()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let Data::Float(values) = tensor.data() else { panic!("float32") };
    values.clone()
}

fn load(carried: &[(&str, &str)], wanted: &[&str], options: &LoadOptions) -> Result<Resident, String> {
    let bytes = model();
    let start = || Tensor::new(vec![2], vec![1f32, 2.0]).unwrap();
    let carried = carried
        .iter()
        .map(|(input, output)| (Carried { input: (*input).to_owned(), output: (*output).to_owned() }, start()));
    let plan = Residence { carried: carried.collect(), wanted: wanted.iter().map(|w| (*w).to_owned()).collect() };
    let source = Source::Memory { bytes: &bytes, folder: None, name: "m".as_ref() };
    runtime().resident(source, options, &plan).map_err(|e| e.to_string())
}

fn rows(values: &[f32]) -> Vec<(String, Tensor)> {
    vec![("d".to_owned(), Tensor::new(vec![values.len() / 2, 2], values.to_vec()).unwrap())]
}

#[test]
fn a_run_counts_when_it_is_said_so_and_starts_over_otherwise() {
    let mut resident = load(&[("s", "s_next")], &["total"], &LoadOptions::default()).unwrap();
    let state = |resident: &Resident| floats(&resident.get("s").unwrap());
    assert_eq!(state(&resident), [1.0, 2.0]);
    for _ in 0..3 {
        assert_eq!(floats(&resident.run(rows(&[10.0, 20.0])).unwrap()[0]), [33.0]);
        assert_eq!(state(&resident), [1.0, 2.0]);
    }
    resident.advance();
    assert_eq!(state(&resident), [11.0, 22.0]);
    // Batches of other sizes, and the last one again where none is fed.
    let batches: [&[f32]; 4] = [&[1.0, 1.0, 3.0, 5.0], &[0.5, 0.5], &[], &[2.0; 6]];
    let mut expected = [11.0, 22.0];
    let mut last = [0.0; 2];
    for batch in batches {
        let feeds = if batch.is_empty() { Vec::new() } else { rows(batch) };
        if !batch.is_empty() {
            let n = (batch.len() / 2) as f32;
            last = [batch.iter().step_by(2).sum::<f32>() / n, batch.iter().skip(1).step_by(2).sum::<f32>() / n];
        }
        expected = [expected[0] + last[0], expected[1] + last[1]];
        let total = resident.run(feeds).unwrap();
        resident.advance();
        assert_eq!(floats(&total[0]), [expected[0] + expected[1]]);
        assert_eq!(state(&resident), expected);
    }
    assert_eq!(resident.fed().unwrap(), rows(&[2.0; 6]));
    resident.set("s", &Tensor::new(vec![2], vec![0f32, -1.0]).unwrap()).unwrap();
    assert_eq!(floats(&resident.run(rows(&[1.0, 1.0])).unwrap()[0]), [1.0]);
}

#[test]
fn state_is_lent_as_it_is_at_that_time() {
    let mut trained = load(&[("s", "s_next")], &["total"], &LoadOptions::default()).unwrap();
    let mut other = load(&[], &["total", "s_next"], &LoadOptions::default()).unwrap();
    for i in 1..4u8 {
        trained.run(rows(&[1.0, 1.0])).unwrap();
        trained.advance();
        trained.lend(&mut other).unwrap();
        let seen = other.run(rows(&[0.0, 0.0])).unwrap();
        assert_eq!(floats(&seen[1]), [1.0 + f32::from(i), 2.0 + f32::from(i)]);
        assert_eq!(floats(&seen[0]), [3.0 + 2.0 * f32::from(i)]);
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let options = LoadOptions::default();
    let refused = |carried: &[(&str, &str)], wanted: &[&str]| load(carried, wanted, &options).err().unwrap();
    assert!(refused(&[("s", "next")], &[]).contains("no output \"next\""));
    assert!(refused(&[("t", "s_next")], &[]).contains("no input \"t\""));
    assert!(refused(&[("s", "s_next")], &["loss"]).contains("no output \"loss\""));
    let mut resident = load(&[("s", "s_next")], &["total"], &options).unwrap();
    let message = resident.run(vec![("e".into(), Tensor::scalar(1f32))]).unwrap_err().to_string();
    assert!(message.contains("no input \"e\""), "{message}");
    let message = resident.run(vec![("d".into(), Tensor::new(vec![1, 3], vec![0f32; 3]).unwrap())]).unwrap_err();
    assert!(message.to_string().contains("axis 1 must have 2 elements"), "{message}");
    let message = resident.set("s", &Tensor::new(vec![3], vec![0f32; 3]).unwrap()).unwrap_err().to_string();
    assert!(message.contains("axis 0 must have 2 elements"), "{message}");
    assert!(resident.get("d").unwrap_err().to_string().contains("no input \"d\""));
    // Nothing was fed yet.
    assert!(load(&[], &["total"], &options).unwrap().run(Vec::new()).is_err());
}

#[test]
fn the_runtime_says_where_it_put_the_nodes() {
    let options = LoadOptions { placements: true, ..LoadOptions::default() };
    let resident = load(&[("s", "s_next")], &["total"], &options).unwrap();
    let placed = resident.placed();
    assert_eq!(placed.len(), 1, "{placed:?}");
    assert!(placed[0].is_cpu() && (1..=3).contains(&placed[0].count), "{placed:?}");
    assert!(load(&[], &["total"], &LoadOptions::default()).unwrap().placed().is_empty());
}
