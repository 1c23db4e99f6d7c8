//! Another reader of the format than ours: the crate `onnx-protobuf`, whose code comes from `rust-protobuf`, sees the same graph in every
//! injected model, and the original again after `strip`.

use std::collections::HashSet;
use std::path::PathBuf;

use onnx_protobuf::ModelProto;
use per_inject::inject::{Estimator, Options, Outputs, plan};
use per_inject::{strip, wire};
use protobuf::Message;

fn models() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("models").unwrap().map(|e| e.unwrap().path());
    let mut models: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    models.sort();
    assert_eq!(models.len(), 12);
    models
}

fn injections() -> Vec<Options> {
    let options = |estimator, outputs| Options { coef: Some(3e-5), estimator, outputs, ..Options::default() };
    let all = Outputs { task: true, per: true, layers: true };
    vec![
        options(Estimator::Sampled, Outputs::default()),
        Options { seed: Some(7), coef_input: true, ..options(Estimator::Sampled, all) },
        options(Estimator::Exact, all),
        Options { as_output: true, ..options(Estimator::Exact, Outputs { task: false, ..all }) },
    ]
}

/// The node that makes a value.
fn producer<'m>(model: &'m ModelProto, value: &str) -> &'m onnx_protobuf::NodeProto {
    let mut makers = model.graph.node.iter().filter(|n| n.output.iter().any(|o| o == value));
    let maker = makers.next().unwrap_or_else(|| panic!("nothing makes {value}"));
    assert!(makers.next().is_none(), "{value} is made twice");
    maker
}

fn names(model: &ModelProto) -> Vec<&str> {
    model.graph.node.iter().map(|n| n.name.as_str()).collect()
}

#[test]
fn rust_protobuf_reads_every_injected_model_and_sees_the_graph_that_was_planned() {
    for path in models() {
        let bytes = std::fs::read(&path).unwrap();
        let before = ModelProto::parse_from_bytes(&bytes).unwrap();
        for options in injections() {
            let model = wire::Model::open(&path).unwrap();
            let plan = plan(&model, &options).unwrap();
            let injected = wire::splice(&model, &plan.patch).unwrap().to_vec(&bytes);
            let after = ModelProto::parse_from_bytes(&injected).unwrap();
            let context = format!("{} with {options:?}", path.display());

            assert_eq!(after.graph.node.len(), before.graph.node.len() + plan.patch.added_nodes(), "{context}");
            assert_eq!(after.graph.initializer.len(), before.graph.initializer.len() + plan.report.added.initializers);
            assert_eq!(after.graph.input.len(), before.graph.input.len() + plan.report.added.inputs, "{context}");
            assert_eq!(after.graph.output.len(), before.graph.output.len() + plan.report.added.outputs, "{context}");

            // The original's nodes are there, in their order, and the others have names of their own.
            let kept: Vec<&str> = names(&after).into_iter().filter(|n| !n.starts_with("per_inject/")).collect();
            assert_eq!(kept, names(&before), "{context}");
            let added: HashSet<&str> = names(&after).into_iter().filter(|n| n.starts_with("per_inject/")).collect();
            assert_eq!(added.len(), plan.patch.added_nodes(), "{context}");

            let loss = producer(&after, "loss");
            match plan.report.losses.first() {
                Some(report) => {
                    assert_eq!((loss.name.as_str(), loss.op_type.as_str()), ("per_inject/total", "Add"), "{context}");
                    assert_eq!(loss.input[0], report.task, "{context}");
                    let task = producer(&after, &report.task);
                    assert_eq!(task.name, producer(&before, "loss").name, "{context}");
                }
                None => {
                    assert_eq!(loss, producer(&before, "loss"), "{context}");
                    assert_eq!(producer(&after, "per_loss").name, "per_inject/output", "{context}");
                }
            }
            assert_eq!(after.graph.output[0].name, before.graph.output[0].name, "{context}");

            let injected = wire::Model::from_bytes(injected).unwrap();
            let (undo, record) = strip::plan(&injected).unwrap();
            let stripped = wire::splice(&injected, &undo).unwrap().to_vec(&injected.file.bytes);
            assert!(stripped == bytes, "{context}");
            assert!(strip::is_original(&wire::ModelFile::from_bytes(stripped), &record).unwrap(), "{context}");
        }
    }
}
