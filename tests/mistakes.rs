//! What a person reads: mistakes made on purpose, and the reports when all goes well. Snapshots are terminal sessions.
//!
//! After a change of wording: `INSTA_UPDATE=always cargo test --test mistakes`, then read the difference.
#![cfg(unix)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use per_inject::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TrainingInfoProto, TypeProto,
    ValueInfoProto, type_proto,
};
use prost::Message;

/// Width that reports keep, in characters.
const COLUMNS: usize = 100;

/// A folder with copies of some models, in which commands are run.
struct Session {
    folder: tempfile::TempDir,
    transcript: String,
}

impl Session {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in [("mlp_relu.ts13", "mlp.onnx"), ("gpt_gelu.dyn", "gpt.onnx"), ("cnn11_elu.ts17", "cnn.onnx")]
        {
            std::fs::copy(format!("models/{from}.onnx"), folder.path().join(to)).unwrap();
        }
        Session { folder, transcript: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn output(&self, line: &str, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("per-inject"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PER_INJECT")) {
            command.env_remove(name);
        }
        command.args(words(line)).envs(environment.iter().copied()).current_dir(self.folder.path()).output().unwrap()
    }

    /// Runs a command line, with single quotes as in a shell, and writes down what was printed and the exit code.
    fn run(&mut self, line: &str) -> &mut Self {
        self.run_with(&[], line)
    }

    fn run_with(&mut self, environment: &[(&str, &str)], line: &str) -> &mut Self {
        let output = self.output(line, environment);
        let variables: String = environment.iter().map(|(k, v)| format!("{k}={v} ")).collect();
        let _ = writeln!(self.transcript, "$ {variables}per-inject {line}");
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8(text.clone()).unwrap();
            assert!(!text.contains('\x1b'), "colour codes without a terminal: {text:?}");
            self.transcript.push_str(&text);
        }
        let _ = writeln!(self.transcript, "[{}]\n", output.status.code().unwrap());
        self
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn compare(&self, name: &str) {
        let folder = self.folder.path().to_str().unwrap();
        insta::with_settings!({ omit_expression => true, filters => vec![(folder, "/folder")] }, {
            insta::assert_snapshot!(name, &self.transcript);
        });
    }
}

/// Splits at spaces, but for those between single quotes.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => out.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

fn value(name: &str, dims: Option<usize>) -> ValueInfoProto {
    let shape = dims.map(|n| TensorShapeProto { dim: vec![Default::default(); n] });
    let tensor = type_proto::Tensor { elem_type: Some(1), shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|i| (*i).to_owned()).collect();
    NodeProto {
        name: Some(format!("/{op}")),
        op_type: Some(op.into()),
        input,
        output: vec![output.into()],
        ..Default::default()
    }
}

/// x → MatMul with w → Relu → logits → the nodes given, with the outputs given.
fn model(nodes: Vec<NodeProto>, outputs: Vec<ValueInfoProto>) -> ModelProto {
    let mut all = vec![node("MatMul", &["x", "w"], "z"), node("Relu", &["z"], "logits")];
    all.extend(nodes);
    let w = TensorProto {
        name: Some("w".into()),
        dims: vec![2, 2],
        data_type: Some(1),
        raw_data: Some(vec![0; 16].into()),
        ..Default::default()
    };
    let graph = GraphProto {
        node: all,
        input: vec![value("x", Some(2))],
        output: outputs,
        initializer: vec![w],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(17) }];
    ModelProto { ir_version: Some(8), opset_import, graph: Some(graph), ..Default::default() }
}

fn save(session: &Session, name: &str, model: &ModelProto) {
    std::fs::write(session.path(name), model.encode_to_vec()).unwrap();
}

#[test]
fn selectors() {
    let mut session = Session::new();
    for layers in [
        "reul",
        "",
        "!relu",
        "#9",
        "relu,#9",
        "relu,!#1,!#2",
        "gelu",
        "name:net.2*",
        "op:Rleu",
        "tensor:lss",
        "re:(",
        "layer:1",
        "relu,,elu",
    ] {
        session.run(&format!("mlp.onnx --layers '{layers}' --coef 3e-5 -o out.onnx"));
    }
    session.run("mlp.onnx --layers relu --coef 3e-5 --wrt 'nothing*' -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --freeze '*,weight' -o out.onnx");
    session.run("mlp.onnx --layers tensor:loss --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --layers tensor:x --coef 3e-5 --strict -o out.onnx");
    session.run("inspect mlp.onnx --wrt 'net.1.wieght'");
    assert!(!session.has("out.onnx"));
    session.compare("selectors");
}

#[test]
fn coefficients() {
    let mut session = Session::new();
    for coef in [
        "--coef 3e5",
        "--coef abc",
        "--coef 3,5",
        "--coef -1",
        "--coef nan",
        "--coef 1e999",
        "--coef =3",
        "",
        "--coef '#1=1e-4'",
    ] {
        session.run(&format!("mlp.onnx --layers relu {coef} -o out.onnx"));
    }
    session.run("mlp.onnx --layers relu --coef 3e-5 --coef 'elu=1e-4' -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --coef 'reul=1e-4' -o out.onnx");
    session.run("mlp.onnx --layers relu --coef relu=1e-4 --dry-run");
    session.run("mlp.onnx --layers relu --coef 3e-5 --slices 0 -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --slices many -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --seed -1 -o out.onnx");
    assert!(!session.has("out.onnx"));
    session.compare("coefficients");
}

#[test]
fn arguments() {
    let mut session = Session::new();
    session.run("--layers relu --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5");
    session.run("mlp.onnx --layer relu --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --estimator exakt -o out.onnx");
    session.run("mlp.onnx gpt.onnx --layers relu --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --json -o -");
    session.run("mlp.onnx --layers relu --coef 3e-5 --as-output --outputs task -o out.onnx");
    session.run("inspct mlp.onnx");
    session.run("strip mlp.onnx");
    session.run("completions");
    assert!(!session.has("out.onnx"));
    session.compare("arguments");
}

#[test]
fn steps() {
    let mut session = Session::new();
    for options in [
        "--group '*bias'",
        "--group '=lr:0.1'",
        "--group '*bias=lr'",
        "--group '*bias=lr:fast'",
        "--group '*bias=lr:-1'",
        "--group '*bias=deacy:0'",
        "--group 'net.1.wieght=lr:0.1'",
        "--group '*bias=lr:0.1;name:head*=lr:2'",
        "--group '*bias=beta1:0.5'",
        "--group '*bias=momentum:0.5,lr:0.1' --optimizer adam",
        "--clip-norm -1",
        "--clip-norm 0",
        "--clip-value nan",
        "--clip-norm 1 --clip-value 1",
        "--loss-scale 0",
        "--loss-scale 2 --loss-scale-input",
        "--weight-decay=-0.1",
    ] {
        let optimizer = if options.contains("--optimizer") { "" } else { " --optimizer sgd" };
        session.run(&format!("differentiate mlp.onnx {options}{optimizer} -o step.onnx"));
    }
    session.run("differentiate mlp.onnx --accumulate -o step.onnx");
    session.run("differentiate mlp.onnx --group '*bias=lr:0.1' -o step.onnx");
    session.run("differentiate mlp.onnx --optimizer adam --beta1 1 -o step.onnx");
    assert!(!session.has("step.onnx"));
    session.run(
        "differentiate mlp.onnx --optimizer adam --group '*bias=lr:0.1,decay:0' --clip-norm 0.25 --accumulate \
         --loss-scale-input -o step.onnx",
    );
    session.run("differentiate step.onnx -o again.onnx");
    session.run("strip step.onnx -o back.onnx");
    session.compare("steps");
}

#[test]
fn files() {
    let mut session = Session::new();
    std::fs::write(session.path("model.pt"), b"PK\x03\x04\x14\0\x08\x08archive/data.pkl").unwrap();
    std::fs::write(session.path("notes.txt"), "to do: train\n").unwrap();
    std::fs::write(session.path("random"), [0x17, 0xf7, 0x01, 0xee, 0x9a, 0x5b, 0x80]).unwrap();
    let whole = std::fs::read(session.path("mlp.onnx")).unwrap();
    std::fs::write(session.path("cut.onnx"), &whole[..whole.len() / 2]).unwrap();
    std::fs::create_dir(session.path("there")).unwrap();
    for file in ["model.pt", "notes.txt", "random", "cut.onnx", "missing.onnx", "there"] {
        session.run(&format!("inspect {file}"));
    }
    session.run("model.pt --layers relu --coef 3e-5 -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 -o nowhere/out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 -o there");
    session.run("strip mlp.onnx -o out.onnx");
    session.run("strip cut.onnx -o out.onnx");
    assert!(!session.has("out.onnx"));
    session.compare("files");
}

#[test]
fn losses() {
    let mut session = Session::new();
    save(&session, "logits.onnx", &model(Vec::new(), vec![value("logits", Some(2))]));
    let two = vec![node("ReduceSum", &["logits"], "loss"), node("Exp", &["loss"], "perplexity")];
    save(&session, "two.onnx", &model(two, vec![value("loss", Some(0)), value("perplexity", Some(0))]));
    let name = "w_grad.accumulation.out";
    let backward = vec![node("ReduceSum", &["logits"], "loss"), node("InPlaceAccumulatorV2", &["loss"], name)];
    save(&session, "backward.onnx", &model(backward, vec![value("loss", Some(0)), value(name, Some(2))]));
    let mut training = model(vec![node("ReduceSum", &["logits"], "loss")], vec![value("loss", Some(0))]);
    training.training_info.push(TrainingInfoProto::default());
    save(&session, "training.onnx", &training);
    for file in ["logits.onnx", "two.onnx", "backward.onnx", "training.onnx"] {
        session.run(&format!("{file} --layers relu --coef 3e-5 -o out.onnx"));
    }
    session.run("mlp.onnx --layers relu --coef 3e-5 --loss lss -o out.onnx");
    session.run("two.onnx --layers relu --coef 3e-5 --loss logits -o out.onnx");
    session.run("two.onnx --layers relu --coef 3e-5 --loss x -o out.onnx");
    assert!(!session.has("out.onnx"));
    session.run("backward.onnx --layers relu --coef 3e-5 --form loss -o out.onnx");
    session.run("backward.onnx --layers relu --coef 3e-5 --form gradient --as-output -o out.onnx");
    session.run("backward.onnx --layers relu --coef 3e-5 --loss loss -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --form gradient -o out.onnx");
    session.run("mlp.onnx --layers relu --coef 3e-5 --loss-term -o out.onnx");
    assert!(!session.has("out.onnx"));
    session.run("inspect backward.onnx");
    session.run("inspect two.onnx");
    session.run("two.onnx --layers relu --coef 3e-5 --loss loss -o out.onnx");
    session.run("logits.onnx --layers relu --as-output -o out.onnx");
    session.compare("losses");
}

#[test]
fn an_injection_and_back() {
    let mut session = Session::new();
    session.run("mlp.onnx --layers relu --coef 3e-5 --dry-run");
    assert!(!session.has("per.onnx"));
    session.run("cnn.onnx --layers 'all,!#2..' --coef 3e-5 --estimator exact --outputs task,per -o per.onnx");
    session.run("inspect per.onnx");
    session.run("per.onnx --layers '#1,elu' --coef 1e-5 --dry-run");
    session.run("per.onnx --layers elu --coef 1e-5 --seed 3 --coef '#1=1e-4' --coef-input -o twice.onnx");
    session.run("strip twice.onnx --all -o back.onnx");
    session.run("mlp.onnx --layers none --coef 1 -o same.onnx");
    assert!(std::fs::read(session.path("back.onnx")).unwrap() == std::fs::read(session.path("cnn.onnx")).unwrap());
    assert!(std::fs::read(session.path("same.onnx")).unwrap() == std::fs::read(session.path("mlp.onnx")).unwrap());
    session.compare("injection");
}

#[test]
fn a_graph_rewritten_for_a_pipeline_and_back() {
    let mut session = Session::new();
    session.run("cnn.onnx --for ort-training --layers none -o lowered.onnx");
    session.run("gpt.onnx --for ort-training --layers gelu --coef 3e-5 --estimator exact --dry-run");
    session.run("strip lowered.onnx -o back.onnx");
    session.run("cnn.onnx --for ort-training -o lowered.onnx");
    session.run("cnn.onnx --for onnx --coef 0 -o lowered.onnx");
    assert!(std::fs::read(session.path("back.onnx")).unwrap() == std::fs::read(session.path("cnn.onnx")).unwrap());
    session.compare("lowering");
}

#[test]
fn inspections() {
    let mut session = Session::new();
    session.run("inspect mlp.onnx --initializers").run("inspect gpt.onnx").run("inspect cnn.onnx");
    session.compare("inspections");
}

#[test]
fn differences() {
    let mut session = Session::new();
    session.output("mlp.onnx --layers relu --coef 3e-5 --estimator exact -o out.onnx", &[]);
    session.run("diff mlp.onnx out.onnx").run("diff mlp.onnx mlp.onnx").run("diff mlp.onnx cnn.onnx --exit-code");
    session.run("diff mlp.onnx").run("diff mlp.onnx out.onnx cnn.onnx").run("diff - -");
    session
        .run("diff mlp.onnx none.onnx")
        .run("diff mlp.onnx none.onnx --exit-code")
        .run("diff mlp.onnx out.onnx -o out.onnx");
    session.compare("differences");
}

#[test]
fn weights() {
    let mut session = Session::new();
    // What is right, first.
    session.run("weights get mlp.onnx -o w.npz");
    session.run("weights get mlp.onnx --wrt 'net.0.*' -o first.safetensors");
    session.run("weights put mlp.onnx --from first.safetensors -o same.onnx");
    session.run("weights put mlp.onnx --from gpt.onnx --map 'transformer.*=*' --dry-run");
    for line in [
        "get mlp.onnx",
        "get mlp.onnx -o w.pt",
        "get mlp.onnx -o mlp.onnx",
        "get mlp.onnx --wrt 'net.9*' -o x.npz",
        "get mlp.onnx --all --wrt 'net.0*' -o x.npz",
        "get mlp.onnx -o missing/x.npz",
        "get none.onnx -o x.npz",
        "put mlp.onnx -o out.onnx",
        "put mlp.onnx --from w.npz",
        "put mlp.onnx --from w.npz -o w.npz",
        "put mlp.onnx --from none.npz -o out.onnx",
        "put mlp.onnx --from . -o out.onnx",
        "put mlp.onnx --from text.txt -o out.onnx",
        "put mlp.onnx --from empty -o out.onnx",
        "put mlp.onnx --from cut.safetensors -o out.onnx",
        "put mlp.onnx --from cnn.onnx -o out.onnx",
        "put mlp.onnx --from first.safetensors --strict -o out.onnx",
        "put mlp.onnx --from w.npz --map net.0.weight -o out.onnx",
        "put mlp.onnx --from w.npz --map 'net.0.wieght=net.0.weight' -o out.onnx",
        "put mlp.onnx --from w.npz --map 'net.0.weight=net.0.wieght' -o out.onnx",
        "put mlp.onnx --from w.npz --map 'net.0.weight=net.2.weight' -o out.onnx",
        "put mlp.onnx --from w.npz --map 'net.0.weight=net.0.weight:T' -o out.onnx",
        "put mlp.onnx --from w.npz --map 'net.0.bias=net.2.bias' -o out.onnx",
    ] {
        std::fs::write(session.path("text.txt"), "words").unwrap();
        std::fs::write(session.path("empty"), "").unwrap();
        std::fs::write(session.path("cut.safetensors"), "\x08\0\0\0\0\0\0\0{\"w\":").unwrap();
        session.run(&format!("weights {line}"));
    }
    for name in ["out.onnx", "x.npz", "w.pt"] {
        assert!(!session.has(name), "{name}");
    }
    assert_eq!(std::fs::read(session.path("same.onnx")).unwrap(), std::fs::read(session.path("mlp.onnx")).unwrap());
    session.compare("weights");
}

#[test]
fn help() {
    let mut session = Session::new();
    session.run("").run("inspect -h").run("strip -h").run("diff -h").run("--version");
    session.compare("help");
    let lines = session.transcript.lines();
    assert!(lines.clone().all(|l| l.chars().count() <= COLUMNS));
}

#[test]
fn completions_and_the_manual_name_every_option() {
    let session = Session::new();
    let said = |line: &str| {
        let output = session.output(line, &[]);
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    let manual = said("man").replace("\\-", "-");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = said(&format!("completions {shell}"));
        for option in ["layers", "coef", "estimator", "as-output", "dry-run"] {
            assert!(script.contains(option), "{shell}: {option}");
            assert!(manual.contains(&format!("--{option}")), "{option}");
        }
    }
    assert!(manual.contains("PER_INJECT_COEF") && manual.contains("inspect"));
}

#[test]
fn every_option_can_come_from_an_environment_variable() {
    let session = Session::new();
    let dry = |environment: &[(&str, &str)]| {
        let output = session.output("mlp.onnx --json", &[environment, &[("PER_INJECT_DRY_RUN", "true")]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let base = [("PER_INJECT_COEF", "3e-5"), ("PER_INJECT_LAYERS", "relu")];
    let report = dry(&base);
    assert_eq!((&report["layers"][1]["coef"], report["layers"].as_array().unwrap().len()), (&3e-5.into(), 2));
    for (name, value, pointer, expected) in [
        ("ESTIMATOR", "exact", "/estimator", serde_json::json!("exact")),
        ("SLICES", "7", "/slices", 7.into()),
        ("VIEW", "channel", "/layers/0/view", "channel".into()),
        ("REDUCTION", "sum", "/reduction", "sum".into()),
        ("AT", "pre", "/layers/0/tensor", "/net/net.0/Gemm_output_0".into()),
        ("LOSS", "loss", "/losses/0/name", "loss".into()),
        ("AS_OUTPUT", "yes", "/losses", serde_json::json!([])),
        ("AS_OUTPUT", "off", "/losses/0/name", "loss".into()),
        ("OUTPUTS", "task,per", "/outputs", serde_json::json!(["per_inject/task_loss", "per_inject/per"])),
        ("COEF_INPUT", "1", "/inputs", serde_json::json!(["per_inject/coef"])),
        ("WRT", "net.2.*", "/layers/0/tensor", "/net/net.3/Relu_output_0".into()),
        ("FREEZE", "net.0.*", "/layers/0/tensor", "/net/net.3/Relu_output_0".into()),
    ] {
        let name = format!("PER_INJECT_{name}");
        let report = dry(&[&base[..], &[(&name, value)]].concat());
        assert_eq!(report.pointer(pointer).unwrap_or(&serde_json::Value::Null), &expected, "{name}={value}");
    }
    let seeded = |seed| dry(&[&base[..], &[("PER_INJECT_SEED", seed)]].concat())["layers"][0]["seed"].clone();
    assert!(seeded("5").is_u64() && seeded("5") == seeded("5") && seeded("5") != seeded("6"));
    for (environment, code) in [
        (&[("PER_INJECT_COEF", "3000"), ("PER_INJECT_DRY_RUN", "1")][..], 2),
        (&[("PER_INJECT_COEF", "3000"), ("PER_INJECT_DRY_RUN", "1"), ("PER_INJECT_ANY_COEF", "true")], 0),
        (&[("PER_INJECT_COEF", "1"), ("PER_INJECT_OUTPUT", "out.onnx"), ("PER_INJECT_SYNC", "true")], 0),
        (&[("PER_INJECT_COEF", "1"), ("PER_INJECT_DRY_RUN", "maybe")], 2),
        (
            &[
                ("PER_INJECT_COEF", "1"),
                ("PER_INJECT_STRICT", "yes"),
                ("PER_INJECT_WRT", "net.2.*"),
                ("PER_INJECT_DRY_RUN", "on"),
            ],
            1,
        ),
        (
            &[
                ("PER_INJECT_COEF", "1"),
                ("PER_INJECT_STRICT", "no"),
                ("PER_INJECT_WRT", "net.2.*"),
                ("PER_INJECT_DRY_RUN", "on"),
            ],
            0,
        ),
    ] {
        let output =
            session.output("mlp.onnx --layers relu", &[environment, &[("PER_INJECT_EXTERNAL", "keep")]].concat());
        assert_eq!(output.status.code(), Some(code), "{environment:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Variables of the injection are no arguments of the other commands, but those that they share are.
    let environment = [&base[..], &[("PER_INJECT_OUTPUT", "back.onnx"), ("PER_INJECT_ALL", "true")]].concat();
    assert!(session.output("strip out.onnx", &environment).status.success());
    assert!(session.has("back.onnx"));
    let output = session.output("inspect mlp.onnx", &[&base[..], &[("PER_INJECT_INITIALIZERS", "1")]].concat());
    assert!(String::from_utf8(output.stdout).unwrap().contains("net.0.weight"));
}

#[test]
fn a_variable_that_is_set_to_nothing_is_as_good_as_not_set() {
    let session = Session::new();
    let help = ["--help", "inspect --help", "strip --help", "diff --help", "differentiate --help"]
        .map(|line| session.output(line, &[]).stdout);
    let help = help.map(|text| String::from_utf8(text).unwrap()).concat();
    let variables =
        help.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|w| w.starts_with("PER_INJECT_"));
    let empty: Vec<(&str, &str)> = variables.map(|name| (name, "")).collect();
    assert!(empty.iter().any(|(name, _)| *name == "PER_INJECT_AS_OUTPUT") && empty.len() > 20, "{empty:?}");
    for line in [
        "mlp.onnx --layers relu --coef 3e-5 --json -o out.onnx",
        "strip out.onnx --all -o back.onnx",
        "inspect out.onnx --json",
        "diff mlp.onnx out.onnx",
        "mlp.onnx --layers relu --coef 3e-5",
        "mlp.onnx --coef 3e-5 --dry-run",
        "strip out.onnx",
    ] {
        let (with, without) = (session.output(line, &empty), session.output(line, &[]));
        assert_eq!(with, without, "{line}");
    }
    let output = session.output("mlp.onnx --layers relu --coef 3e-5 --dry-run", &[("PER_INJECT_STRICT", "perhaps")]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_option_is_documented_with_its_variable() {
    let session = Session::new();
    for command in ["--help", "inspect --help", "strip --help", "diff --help", "differentiate --help"] {
        let output = session.output(command, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let options = text.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with("--")));
        for option in options.filter(|o| !["--help", "--version"].contains(o) && !o.contains('\'')) {
            // Where an injected model goes is no place for a report.
            if ["diff --help", "inspect --help"].contains(&command) && option == "--output" {
                continue;
            }
            let variable = format!("PER_INJECT_{}", option.trim_start_matches('-').replace('-', "_").to_uppercase());
            assert!(text.contains(&variable), "{command}: {option} has no {variable}");
        }
    }
}

#[test]
fn reports_of_every_model_fit_the_columns() {
    let session = Session::new();
    let models = std::fs::read_dir("models").unwrap().map(|e| e.unwrap().path());
    for path in models.filter(|p| p.extension().is_some_and(|e| e == "onnx")) {
        let name = Path::new("model.onnx");
        std::fs::copy(&path, session.path("model.onnx")).unwrap();
        let name = name.display();
        for line in [
            format!("inspect {name}"),
            format!("{name} --layers all --coef 3e-5 --outputs task,per,layers --dry-run"),
            format!("{name} --layers all --coef 3e-5 --estimator exact --coef-input -o out.onnx"),
            "strip out.onnx -o back.onnx".to_owned(),
        ] {
            let output = session.output(&line, &[]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success());
            let long: Vec<&str> = text.lines().filter(|l| l.chars().count() > COLUMNS).collect();
            assert!(long.is_empty(), "{line} of {}: {long:?}", path.display());
        }
    }
}

#[test]
fn nothing_is_coloured_without_a_terminal_even_where_colour_is_asked_for_by_the_terminal_type() {
    let session = Session::new();
    for environment in [&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")][..], &[("NO_COLOR", "1")]] {
        for line in ["inspect gpt.onnx", "mlp.onnx --layers reul --coef 1 --dry-run", "--nonsense", "--help"] {
            let output = session.output(line, environment);
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{line}");
        }
    }
}
