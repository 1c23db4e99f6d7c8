//! What tract 0.23.9 alone would get wrong.

use super::Tract;
use crate::engine::{Data, Device, Engine, LoadOptions, Source, Tensor};
use crate::graph::testing::{Net, ints};
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use crate::wire::Model;

fn run(model: &Model, feeds: &[(&str, Tensor)]) -> Result<Vec<Vec<f32>>, String> {
    let mut program = Tract.load(Source::of(model), &LoadOptions::default()).map_err(|e| e.to_string())?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let made = program.run(&feeds, None).map_err(|e| e.to_string())?;
    let floats = |(name, tensor): (String, Tensor)| match tensor.into_data() {
        Data::Float(values) => values,
        other => panic!("{name} is {other:?}"),
    };
    Ok(made.into_iter().map(floats).collect())
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape.to_vec(), values.to_vec()).unwrap()
}

/// x → op → y.
fn single(op: &str, shape: &str, attributes: Vec<AttributeProto>) -> Model {
    Net::new().input("x", 1, shape).node(op, &["x"], &["y"], attributes).output("y", 1, None).build()
}

#[test]
fn a_probability_that_underflows_has_a_logarithm() {
    let made = run(&single("LogSoftmax", "N 2", vec![]), &[("x", floats(&[1, 2], &[0.0, 200.0]))]).unwrap();
    assert_eq!(made[0], [-200.0, 0.0]);
}

#[test]
fn a_relu_hands_on_what_is_no_number() {
    let x = floats(&[4], &[f32::NAN, -1.0, 2.0, f32::INFINITY]);
    let made = run(&single("Relu", "N", vec![]), &[("x", x)]).unwrap();
    assert!(made[0][0].is_nan() && made[0][1..] == [0.0, 2.0, f32::INFINITY], "{made:?}");
}

#[test]
fn a_celu_divides_by_alpha_once() {
    let alpha = AttributeProto {
        name: Some("alpha".into()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(2.0),
        ..AttributeProto::default()
    };
    let made = run(&single("Celu", "N", vec![alpha]), &[("x", floats(&[2], &[-2.0, 3.0]))]).unwrap();
    // α·(exp(x/α) − 1).
    assert!((made[0][0] - 2.0 * ((-1f32).exp() - 1.0)).abs() < 1e-6 && made[0][1] == 3.0, "{made:?}");
}

#[test]
fn long_sums_lose_little() {
    let values = vec![0.1f32; 1024 * 1024];
    let expected = f64::from(0.1f32) * f64::from(1 << 20);
    for (op, shape, axes, scale) in
        [("ReduceSum", [1024, 1024], None, 1.0), ("ReduceMean", [1024, 1024], Some([0, 1]), f64::from(1 << 20))]
    {
        let attributes: Vec<_> = axes.iter().filter(|_| op == "ReduceMean").map(|a| ints("axes", a)).collect();
        let made = run(&single(op, "N 1024", attributes), &[("x", floats(&shape, &values))]).unwrap();
        // One after another in float32 it would be 4e-2 off; at each of four levels some 32 additions round by 6e-8.
        assert!((f64::from(made[0][0]) * scale / expected - 1.0).abs() < 1e-5, "{op}: {made:?}");
    }
    // Rows that leave something over at every level.
    let made = run(&single("ReduceSum", "2 N", vec![]), &[("x", floats(&[2, 300_001], &vec![0.1; 600_002]))]).unwrap();
    assert!((f64::from(made[0][0]) / (f64::from(0.1f32) * 600_002.0) - 1.0).abs() < 1e-5, "{made:?}");
}

#[test]
fn values_go_back_to_where_their_maximum_was() {
    let model = Net::new()
        .input("x", 1, "N 1 2 4")
        .node("MaxPool", &["x"], &["m", "i"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
        .node("Shape", &["x"], &["s"], vec![])
        .node("MaxUnpool", &["m", "i", "s"], &["y"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
        .output("y", 1, None)
        .build();
    let x = [1.0, 4.0, 2.0, 3.0, 0.0, -1.0, 5.0, 1.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -0.5];
    let made = run(&model, &[("x", floats(&[2, 1, 2, 4], &x))]).unwrap();
    assert_eq!(made[0], [0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5]);
}

#[test]
fn a_scan_may_read_what_it_gives_and_starts_anew_in_every_run() {
    let value = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
    let node = |op: &str, inputs: [&str; 2], output: &str| NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    };
    // z = s·x goes out, and the next s = z + x reads it.
    let nodes = vec![node("Mul", ["s", "xi"], "z"), node("Add", ["z", "xi"], "next")];
    let declared = |name: &str| crate::graph::types::TensorType { elem: 1, dims: None }.declare(name).unwrap();
    let body = GraphProto {
        node: nodes,
        input: vec![declared("s"), declared("xi")],
        output: vec![value("next"), value("z")],
        ..GraphProto::default()
    };
    let body = AttributeProto {
        name: Some("body".into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(body)),
        ..AttributeProto::default()
    };
    let model = Net::new()
        .input("s0", 1, "2")
        .input("x", 1, "N 2")
        .node("Scan", &["s0", "x"], &["end", "all"], vec![Net::int("num_scan_inputs", 1), body])
        .output("end", 1, None)
        .output("all", 1, None)
        .build();
    let mut program = Tract.load(Source::of(&model), &LoadOptions::default()).unwrap();
    let (start, x) = (floats(&[2], &[1.0, 2.0]), floats(&[2, 2], &[3.0, 4.0, 5.0, 6.0]));
    for _ in 0..2 {
        let made = program.run(&[("s0", &start), ("x", &x)], None).unwrap();
        assert_eq!(made[1].1, floats(&[2, 2], &[3.0, 8.0, 30.0, 72.0]));
        assert_eq!(made[0].1, floats(&[2], &[35.0, 78.0]));
    }
}

#[test]
fn of_three_equal_nodes_each_is_computed() {
    let model = Net::new()
        .input("x", 1, "N")
        .input("w", 1, "N")
        .node("Mul", &["x", "w"], &["a"], vec![])
        .node("Mul", &["x", "w"], &["b"], vec![])
        .node("Mul", &["x", "w"], &["c"], vec![])
        .node("Neg", &["b"], &["d"], vec![])
        .output("a", 1, None)
        .output("c", 1, None)
        .output("d", 1, None)
        .build();
    let made = run(&model, &[("x", floats(&[2], &[1.0, 2.0])), ("w", floats(&[2], &[3.0, 5.0]))]).unwrap();
    assert_eq!(made, [vec![3.0, 10.0], vec![3.0, 10.0], vec![-3.0, -10.0]]);
}

#[test]
fn what_it_lacks_is_named_and_only_where_it_is_asked_for() {
    let model = Net::new()
        .input("x", 1, "N")
        .node("Neg", &["x"], &["y"], vec![])
        .node("Unique", &["x"], &["u"], vec![])
        .output("y", 1, None)
        .output("u", 1, None)
        .build();
    let x = floats(&[2], &[1.0, 2.0]);
    let mut program = Tract.load(Source::of(&model), &LoadOptions::default()).unwrap();
    assert_eq!(program.run(&[("x", &x)], Some(&["y"])).unwrap()[0].1, floats(&[2], &[-1.0, -2.0]));
    let message = program.run(&[("x", &x)], None).unwrap_err().to_string();
    assert!(message.contains(r#"the node that makes "u" (Unique)"#) && message.contains("--engine ort"), "{message}");
    let gpu = LoadOptions { device: Device::Cuda { index: 0 }, ..LoadOptions::default() };
    let message = Tract.load(Source::of(&model), &gpu).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("on the CPU alone"), "{message}");
}

#[test]
fn the_version_is_the_one_that_the_manifest_pins() {
    let pinned = format!("tract-onnx = {{ version = \"={}\"", super::VERSION);
    assert!(include_str!("../../../Cargo.toml").contains(&pinned));
}
