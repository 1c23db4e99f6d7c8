//! Files that no exporter writes: each ends in one clear sentence and exit code 1, in bounded time and memory, and nothing is written.
//!
//! The binary runs with its address space limited, so that memory out of proportion to the file is a failure too.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;
use per_inject::graph::Graph;
use per_inject::inject::{Options, plan};
use per_inject::inspect::inspect;
use per_inject::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use per_inject::wire::{Model, splice};
use prost::Message;

/// Address space of the binary beyond the size of its file, in KiB: thread stacks, the mapping, and what it allocates.
// Two gigabytes of it are address space that the allocator reserves for each thread without touching it.
const ADDRESS_SPACE: u64 = (400 << 10) + 2_000_000;

/// Most time for one file; the slowest takes a tenth of it.
const TIME: Duration = Duration::from_secs(60);

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { op_type: Some(op.into()), input: strings(inputs), output: strings(outputs), ..Default::default() }
}

fn call(function: &str, input: &str, output: &str) -> NodeProto {
    NodeProto { domain: Some("local".into()), ..node(function, &[input], &[output]) }
}

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    let [input, output] = [strings(&["x"]), strings(&["y"])];
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input,
        output,
        node: nodes,
        ..Default::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: None };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

fn weight(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        raw_data: Some(vec![0; 64].into()),
        ..Default::default()
    }
}

/// A loss behind `nodes`, which take `v0` (which depends on the weight `w`) to `h`.
fn graph(nodes: Vec<NodeProto>) -> GraphProto {
    let mut all = vec![node("MatMul", &["x", "w"], &["v0"])];
    all.extend(nodes);
    all.push(node("ReduceMean", &["h"], &["m"]));
    all.push(node("Reshape", &["m", "scalar"], &["loss"]));
    let scalar = TensorProto { name: Some("scalar".into()), dims: vec![0], data_type: Some(7), ..Default::default() };
    GraphProto {
        node: all,
        input: vec![value("x"), value("c")],
        output: vec![value("loss")],
        initializer: vec![weight("w", &[4, 4]), scalar],
        ..Default::default()
    }
}

fn proto(graph: GraphProto) -> ModelProto {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("local", 1)],
        graph: Some(graph),
        ..Default::default()
    }
}

fn model(nodes: Vec<NodeProto>) -> Vec<u8> {
    proto(graph(nodes)).encode_to_vec()
}

/// v0 → v1 → … → h through `count` nodes that take their operators from `ops` in turn.
fn chain(count: usize, ops: &[&str]) -> Vec<NodeProto> {
    let name = |i: usize| if i == count { "h".to_owned() } else { format!("v{i}") };
    let one = |i: usize| {
        let op = ops[i % ops.len()];
        let second = matches!(op, "Mul" | "Add" | "Div" | "Sub" | "Max").then(|| name(i.saturating_sub(1)));
        NodeProto {
            op_type: Some(op.into()),
            input: std::iter::once(name(i)).chain(second).collect(),
            output: vec![name(i + 1)],
            ..Default::default()
        }
    };
    (0..count).map(one).collect()
}

/// A length-delimited record.
fn record(field: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Room(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs the binary in the room with a limit on its address space.
    fn run(&self, file: &Path, arguments: &[&str]) -> Output {
        let size = std::fs::metadata(file).map_or(0, |m| m.len()) >> 10;
        let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", ADDRESS_SPACE + 40 * size);
        Command::new("sh")
            .args(["-c", &script])
            .arg(assert_cmd::cargo::cargo_bin!("per-inject"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("RAYON_NUM_THREADS", "2")
            .timeout(TIME)
            .output()
            .unwrap()
    }

    /// Inspects, injects into and strips a file that is refused each time; returns what the injection said.
    fn refusal(&self, file: &Path) -> String {
        let name = file.to_str().unwrap();
        let before = self.names();
        let mut said = String::new();
        for arguments in [
            &["inspect", name][..],
            &["strip", name, "-o", "out.onnx"],
            &[name, "--layers=all", "--coef=1", "-o", "out.onnx"],
        ] {
            let output = self.run(file, arguments);
            said = String::from_utf8(output.stderr).unwrap();
            let short: String = said.chars().take(500).collect();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {short}");
            assert!(output.stdout.is_empty(), "{arguments:?}");
            is_one_clear_sentence(&said);
            let base = file.file_name().unwrap().to_str().unwrap();
            assert!(said.contains(base), "{arguments:?} does not name the file: {short}");
        }
        assert_eq!(self.names(), before, "something was written");
        said
    }

    /// Inspects and injects into a file that is odd but a model; what was injected strips to the same bytes.
    fn goes_through(&self, file: &Path) {
        let name = file.to_str().unwrap();
        let ok = |arguments: &[&str]| {
            let output = self.run(file, arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
            is_harmless(&String::from_utf8(output.stdout).unwrap());
        };
        ok(&["inspect", name]);
        ok(&["inspect", name, "--json"]);
        ok(&["inspect", name, "--initializers"]);
        ok(&[name, "--layers=all", "--coef=1", "--loss=loss", "-o", "out.onnx"]);
        ok(&["strip", "out.onnx", "-o", "back.onnx"]);
        assert!(std::fs::read(file).unwrap() == std::fs::read(self.0.path().join("back.onnx")).unwrap());
    }

    fn names(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names
    }
}

fn is_one_clear_sentence(said: &str) {
    let short: String = said.chars().take(500).collect();
    assert!(said.starts_with("  × "), "{short}");
    assert_eq!(said.trim().lines().count(), 1, "{short}");
    assert!((30..5000).contains(&said.len()), "{} bytes: {short}", said.len());
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{short}");
    is_harmless(said);
}

fn is_harmless(said: &str) {
    let harmful = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!said.contains(harmful), "{:?}", said.chars().take(500).collect::<String>());
}

/// Decodes, inspects and injects, in this process.
fn take_apart(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes.to_vec()) else { return };
    let _ = Graph::of(&model).map(|g| g.value_count());
    let _ = inspect(&model, None, None);
    if let Ok(planned) = plan(&model, &Options { coef: Some(1e-5), ..Options::default() }) {
        let injected = splice(&model, &planned.patch).unwrap().to_vec(bytes);
        Model::from_bytes(injected).unwrap();
    }
}

#[test]
fn other_formats_are_named_with_what_to_do() {
    let room = Room::new();
    let flatbuffer = |magic: &[u8; 4]| [b"\x1c\0\0\0", &magic[..], &[0; 40]].concat();
    let safetensors =
        [&60u64.to_le_bytes()[..], b"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}    \0\0\0\0"];
    let random: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes, words) in [
        ("empty.onnx", vec![], "it is empty (0 bytes)"),
        ("random.onnx", random, "its bytes are not those of a model"),
        ("read.me", b"# A model\n\nIt is elsewhere.\n".to_vec(), "it is a text file"),
        ("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n".to_vec(), "git lfs pull"),
        ("model.pt", b"PK\x03\x04\x14\0\x08\x08archive/data.pkl".to_vec(), "torch.onnx.export"),
        ("model.pth", b"\x80\x02}q\0(X\x06\0\0\0weightq\x01".to_vec(), "Python pickle"),
        ("model.tflite", flatbuffer(b"TFL3"), "tf2onnx"),
        ("model.ort", flatbuffer(b"ORTM"), "holds no training graph"),
        ("model.onnx.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), "unpack it first"),
        ("model.safetensors", safetensors.concat(), "weights without a graph"),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), "HDF5"),
        ("weights.npy", b"\x93NUMPY\x01\0v\0{'descr'".to_vec(), "NumPy"),
    ] {
        let said = room.refusal(&room.file(name, &bytes));
        assert!(said.contains("is not an ONNX model") && said.contains(words), "{name}: {said}");
    }
}

#[test]
fn a_folder_and_a_missing_file_are_told_apart() {
    let room = Room::new();
    assert!(room.refusal(room.0.path()).contains("it is a folder"));
    assert!(room.refusal(&room.0.path().join("missing.onnx")).contains("No such file"));
    let tensor = weight("w", &[4, 4]).encode_to_vec();
    assert!(room.refusal(&room.file("tensor.pb", &tensor)).contains("is not an ONNX model"));
}

#[test]
fn a_cut_anywhere_is_refused_or_leaves_a_smaller_model() {
    let small = model(chain(5, &["Relu", "Neg", "Sigmoid", "Mul"]));
    let room = Room::new();
    for cut in 0..small.len() {
        take_apart(&small[..cut]);
    }
    for cut in (1..small.len()).step_by(small.len() / 12) {
        if Model::from_bytes(small[..cut].to_vec()).is_err() {
            room.refusal(&room.file("cut.onnx", &small[..cut]));
        }
    }
    let said = room.refusal(&room.file("cut.onnx", &small[..small.len() - 30]));
    assert!(said.contains("cut.onnx: the file is cut off or damaged: field 7 at byte 2 runs past the end"), "{said}");
}

#[test]
fn real_models_cut_at_every_97th_byte_are_refused() {
    for entry in std::fs::read_dir("models").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let bytes = bytes::Bytes::from(std::fs::read(&path).unwrap());
            for cut in (0..bytes.len()).step_by(97) {
                // Only a cut behind the graph leaves a graph.
                if let Ok(model) = Model::from_bytes(bytes.slice(..cut)) {
                    assert!(bytes.len() - cut < 4096, "{} cut at {cut}", path.display());
                    assert!(Graph::of(&model).is_ok());
                }
            }
        }
    }
}

#[test]
fn nesting_is_refused_before_the_stack_ends() {
    let room = Room::new();
    let mut body =
        GraphProto { node: vec![node("Relu", &["v0"], &["y"])], output: vec![value("y")], ..Default::default() };
    for _ in 0..200 {
        let attribute = AttributeProto {
            name: Some("then_branch".into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(Box::new(body)),
            ..Default::default()
        };
        let inner = NodeProto { attribute: vec![attribute], ..node("If", &["c"], &["y"]) };
        body = GraphProto { node: vec![inner], output: vec![value("y")], ..Default::default() };
    }
    let outer = NodeProto { output: strings(&["h"]), ..body.node.remove(0) };
    let said = room.refusal(&room.file("ifs.onnx", &model(vec![outer])));
    assert!(said.contains("node 1 at byte") && said.contains("recursion limit"), "{said}");

    // Groups, which only unknown fields can be.
    let groups = [&[0x08, 0x08][..], &vec![0xf3; 10_000], &[0x01; 10_000]].concat();
    room.refusal(&room.file("groups.onnx", &groups));
    let graph = graph(chain(3, &["Relu"])).encode_to_vec();
    let deep = [&record(7, &graph)[..], &[0x9b, 0x06].repeat(10_000)].concat();
    assert!(room.refusal(&room.file("deep.onnx", &deep)).contains("groups nested too deep"));

    // Length-delimited records in each other: as an unknown field they are one record, as a type they are decoded.
    let mut nested = vec![];
    for _ in 0..10_000 {
        nested = record(4, &nested);
    }
    let unknown = [model(chain(3, &["Relu"])), record(15, &nested)].concat();
    room.goes_through(&room.file("unknown.onnx", &unknown));
    let mut sequence = TypeProto::default().encode_to_vec();
    for _ in 0..10_000 {
        sequence = record(4, &record(1, &sequence));
    }
    let info = [record(1, b"v0"), record(2, &sequence)].concat();
    let typed = [graph, record(13, &info)].concat();
    let said = room.refusal(&room.file("types.onnx", &[&[0x08, 0x08][..], &record(7, &typed)].concat()));
    assert!(said.contains("value_info 0 at byte"), "{said}");
}

#[test]
fn broken_graphs_are_refused_with_the_node() {
    let room = Room::new();
    let cycle = vec![node("Add", &["v0", "b"], &["a"]), node("Relu", &["a"], &["b"]), node("Neg", &["b"], &["h"])];
    let twice = vec![node("Relu", &["v0"], &["h"]), node("Neg", &["v0"], &["h"])];
    let same_node = vec![node("Split", &["v0"], &["h", "h"])];
    let dangling = vec![node("Relu", &["nowhere"], &["h"])];
    let itself = vec![node("Relu", &["h"], &["h"])];
    for (name, nodes, words) in [
        ("cycle", cycle, "a cycle of 2 node(s)"),
        ("itself", itself, "a cycle of 1 node(s)"),
        (
            "twice",
            twice,
            "tensor \"h\" is defined twice, as the output of node 1 (Relu) and as the output of node 2 (Neg)",
        ),
        ("same_node", same_node, "\"h\" is defined twice, as the output of node 1 (Split)"),
        ("dangling", dangling, "node 1 (Relu) reads tensor \"nowhere\" as its input 0"),
    ] {
        let path = room.file(&format!("{name}.onnx"), &model(nodes));
        let said = String::from_utf8(room.run(&path, &["inspect", path.to_str().unwrap()]).stderr).unwrap();
        is_one_clear_sentence(&said);
        assert!(said.contains(words) && said.contains(&format!("{name}.onnx: ")), "{said}");
    }
    let mut output = graph(chain(2, &["Relu"]));
    output.output.push(value("nowhere"));
    let mut initializers = graph(chain(2, &["Relu"]));
    initializers.initializer.push(weight("w", &[1]));
    let mut inputs = graph(chain(2, &["Relu"]));
    inputs.input.push(value("x"));
    for (name, graph, words) in [
        ("output", output, "graph output \"nowhere\" is defined by no node"),
        ("initializers", initializers, "\"w\" is defined twice, as an initializer and as another initializer"),
        ("inputs", inputs, "\"x\" is defined twice, as a graph input"),
    ] {
        let path = room.file(&format!("{name}.onnx"), &proto(graph).encode_to_vec());
        let said = String::from_utf8(room.run(&path, &["inspect", path.to_str().unwrap()]).stderr).unwrap();
        is_one_clear_sentence(&said);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_model_without_a_graph_or_without_nodes_says_so() {
    let room = Room::new();
    let none = ModelProto { graph: None, ..proto(GraphProto::default()) };
    assert!(room.refusal(&room.file("none.onnx", &none.encode_to_vec())).contains("it holds no graph"));
    let path = room.file("bare.onnx", &proto(GraphProto::default()).encode_to_vec());
    let output = room.run(&path, &["bare.onnx", "--layers=all", "--coef=1", "-o", "out.onnx"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    is_one_clear_sentence(&said);
    assert!(said.contains("bare.onnx: the graph has no nodes"), "{said}");
    assert_eq!(room.names().len(), 2);
}

#[test]
fn huge_lengths_and_dimensions_cost_no_memory() {
    let room = Room::new();
    for (name, length) in [("gigabyte", 1u64 << 30), ("exabyte", 1 << 60), ("all_ones", u64::MAX)] {
        let mut bytes = vec![0x08, 0x08, 0x3a];
        prost::encoding::encode_varint(length, &mut bytes);
        bytes.extend_from_slice(b"\x0a\x02\x22\x00");
        let said = room.refusal(&room.file(&format!("{name}.onnx"), &bytes));
        assert!(said.contains("runs past the end of its message"), "{said}");
    }
    // A tensor of 2^60 elements, one of a negative number of them, one whose product overflows, an enormous rank.
    let mut graph = graph(vec![
        node("Add", &["v0", "huge"], &["a"]),
        node("Add", &["a", "negative"], &["b"]),
        node("Conv", &["b", "overflowing"], &["d"]),
        node("MatMul", &["d", "ranked"], &["e"]),
        node("Reshape", &["e", "shape"], &["f"]),
        node("Expand", &["f", "shape"], &["g"]),
        node("ConstantOfShape", &["shape"], &["filled"]),
        node("Add", &["filled", "g"], &["i"]),
        node("Relu", &["i"], &["h"]),
    ]);
    graph.initializer.push(weight("huge", &[1 << 60]));
    graph.initializer.push(weight("negative", &[-1, -4]));
    graph.initializer.push(weight("overflowing", &[i64::MAX, i64::MAX, i64::MIN, 3]));
    graph.initializer.push(weight("ranked", &vec![2; 100_000]));
    graph.initializer.push(TensorProto {
        name: Some("shape".into()),
        dims: vec![4],
        data_type: Some(7),
        int64_data: vec![i64::MAX, -1, i64::MIN, 1 << 40],
        ..Default::default()
    });
    room.goes_through(&room.file("dimensions.onnx", &proto(graph).encode_to_vec()));
}

#[test]
fn names_reach_no_terminal_as_they_are() {
    let room = Room::new();
    // What is not UTF-8 is refused with the part and the byte.
    let mut bytes = model(vec![NodeProto { name: Some("NAME".into()), ..node("Relu", &["v0"], &["h"]) }]);
    let at = bytes.windows(4).position(|w| w == b"NAME").unwrap();
    bytes[at] = 0xff;
    assert!(room.refusal(&room.file("utf8.onnx", &bytes)).contains("node 1 at byte"));
    let mut bytes = model(vec![node("Add", &["v0", "WEIGHT"], &["h"])]);
    let tensor = record(5, &weight("WEIGHT", &[1]).encode_to_vec());
    let at = tensor.windows(6).position(|w| w == b"WEIGHT").unwrap();
    let mut tensor = tensor;
    tensor[at] = 0xff;
    bytes = [bytes, record(7, &tensor)].concat();
    assert!(room.refusal(&room.file("utf8_tensor.onnx", &bytes)).contains("a tensor name that is not UTF-8"));

    // A megabyte, escape sequences, text turned around: in reports that go well, and in errors.
    let evil = "\x1b[2J\x1b]0;owned\x07\u{202e}\u{9b}31mname\r\n\u{200b}\u{2066}\0";
    for (file, name) in [("long.onnx", "n".repeat(1 << 20)), ("evil.onnx", evil.to_owned())] {
        let spelt = |op: &str, input: &str, output: &str| NodeProto {
            name: Some(format!("{op}{name}")),
            domain: (op == "Odd").then(|| name.clone()),
            ..node(op, &[input], &[output])
        };
        let mut fine = proto(graph(vec![
            spelt("Relu", "v0", &name),
            spelt("Odd", &name, "o"),
            node(&name, &["o"], &["p"]),
            spelt("Sigmoid", "p", "h"),
        ]));
        fine.producer_name = Some(name.clone());
        let output = value(&format!("{name}out"));
        let graph = fine.graph.as_mut().unwrap();
        graph.node.push(node("Cast", &["h"], &[output.name()]));
        graph.output.push(output);
        room.goes_through(&room.file(file, &fine.encode_to_vec()));
        let broken = model(vec![spelt("Relu", &format!("{name}!"), "h")]);
        let path = room.file(&format!("broken_{file}"), &broken);
        let output = room.run(&path, &["inspect", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        is_one_clear_sentence(&said);
        assert!(said.contains("but no node, input or initializer of the graph defines it"), "{said}");
    }
}

#[test]
fn functions_that_call_themselves_or_shadow_operators_end() {
    let room = Room::new();
    let body = |callee: &str| vec![call(callee, "x", "y")];
    let mut recursive = proto(graph(vec![
        call("itself", "v0", "a"),
        call("ping", "a", "b"),
        call("first0", "b", "d"),
        node("Sigmoid", &["d"], &["e"]),
        node("Relu", &["e"], &["h"]),
    ]));
    recursive.functions =
        vec![function("itself", body("itself")), function("ping", body("pong")), function("pong", body("ping"))];
    // Each calls the next twice: 2^1000 calls when followed one by one.
    for i in 0..1000 {
        let next = format!("first{}", i + 1);
        recursive.functions.push(function(&format!("first{i}"), vec![call(&next, "x", "a"), call(&next, "a", "y")]));
    }
    recursive.functions.push(function("first1000", vec![node("Tanh", &["x"], &["y"])]));
    // An operator redefined in ONNX's own domain is the function.
    recursive.functions.push(FunctionProto {
        domain: Some(String::new()),
        ..function("Sigmoid", vec![node("Sigmoid", &["x"], &["y"])])
    });
    room.goes_through(&room.file("functions.onnx", &recursive.encode_to_vec()));
}

#[test]
fn a_hundred_thousand_nodes_in_a_row_need_no_stack() {
    let room = Room::new();
    for (name, ops) in [
        ("relu", &["Relu"][..]),
        ("arithmetic", &["Mul", "Add", "Div", "Sub", "Mul", "Max", "Erf", "Tanh", "Sigmoid", "Exp"]),
        ("shapes", &["Mul", "Shape", "Concat", "Cast", "Sigmoid"]),
    ] {
        let path = room.file(&format!("{name}.onnx"), &model(chain(100_000, ops)));
        let out = room.run(&path, &["inspect", path.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        // A term is some 30 kB of nodes before it is written, so that fewer layers stay below the limit.
        let path = room.file("fewer.onnx", &model(chain(5_000, ops)));
        let all = [path.to_str().unwrap(), "--layers=all", "--coef=1", "--loss=loss", "--dry-run"];
        let out = room.run(&path, &all);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() || said.contains("be regularised"), "{name}: {said}");
    }
    // The other way round in the file, and as one long cycle.
    let mut backwards = chain(100_000, &["Relu"]);
    backwards.reverse();
    let path = room.file("backwards.onnx", &model(backwards));
    assert_eq!(room.run(&path, &["inspect", path.to_str().unwrap()]).status.code(), Some(0));
    let mut circle = chain(100_000, &["Relu"]);
    circle[0].input[0] = "h".into();
    let said = room.refusal(&room.file("circle.onnx", &model(circle)));
    assert!(said.contains("a cycle of 100000 node(s)"), "{said}");
}

#[test]
fn wide_graphs_go_through() {
    let room = Room::new();
    let many = vec![
        node("Relu", &["v0"], &["r"]),
        NodeProto { input: vec!["r".into(); 100_000], ..node("Sum", &[], &["s"]) },
        node("Sigmoid", &["s"], &["h"]),
    ];
    room.goes_through(&room.file("inputs.onnx", &model(many)));
    let outputs: Vec<String> = (0..100_000).map(|i| format!("s{i}")).collect();
    let split = NodeProto { output: outputs, ..node("Split", &["v0"], &[]) };
    room.goes_through(&room.file("outputs.onnx", &model(vec![split, node("Relu", &["s7"], &["h"])])));
    // Every layer's nodes are put into a graph with as many declared values.
    let mut declared = graph(chain(4_000, &["Relu"]));
    declared.value_info = (1..4_000).map(|i| value(&format!("v{i}"))).collect();
    room.goes_through(&room.file("declared.onnx", &proto(declared).encode_to_vec()));
}
