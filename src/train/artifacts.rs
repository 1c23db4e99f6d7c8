//! From a model to what ONNX Runtime's training API loads: the forward pass with measurements and regulariser, written so that
//! `generate_artifacts` takes it, and the artifacts that a Python with onnxruntime-training makes of it.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::edit::as_inputs;
use super::error::{TrainError, TrainResult};
use super::graphs::{Forward, Interface, Outputs, Recipe, Traffic, forward, inference, warnings_of};
use super::noise;
use crate::analysis::Analysis;
use crate::autodiff::{LossScale, Optimizer};
use crate::engine::Artifacts;
use crate::graph::{Attributes, Graph};
use crate::hoist::hoist;
use crate::lower::Target;
use crate::onnx::NodeProto;
use crate::wire::{Model, external_files};

/// What makes the artifacts, for a Python to run.
const SCRIPT: &str = include_str!("make_artifacts.py");

/// The exit status with which the script says that a Python has not what it needs.
const NOT_THERE: i32 = 3;

/// Makes artifacts in `folder`, which is made where it is not there, by one of `pythons`: the first that has onnxruntime-training.
///
/// # Errors
/// When the training API has not what the recipe asks for; when no Python has onnxruntime-training; when it does not take the model.
pub fn make(model: &Model, recipe: &Recipe, pythons: &[PathBuf], folder: &Path) -> TrainResult<(Artifacts, Interface)> {
    let optimizer = optimizer(recipe)?;
    if !external_files(model)?.is_empty() {
        let problem = "generate_artifacts takes models in one file here, and this one keeps tensors in others; make the artifacts \
                       yourself and give their folder instead of the model, or use --engine ort";
        return Err(TrainError::Options(problem.into()));
    }
    let Forward { model: forward, interface, outputs, .. } = forward(model, recipe, Some(Target::OrtTraining))?;
    let fed = noise::feed(&forward)?;
    let coefficients: HashSet<&str> = interface.coefficients.iter().map(|c| c.input.as_str()).collect();
    let whole = as_inputs(&fed.model, &coefficients)?;
    let trained: Vec<String> = {
        let analysis = Analysis::with_overrides(model, recipe.wrt.as_deref(), recipe.freeze.as_deref())?;
        if let Some(inner) = hoist(&analysis)?.as_ref().and_then(|h| h.moved.iter().find(|m| m.is_trained)) {
            return Err(TrainError::Options(format!(
                "the initializer {:?} of the body {} is trained, and generate_artifacts trains those of the main graph alone; use \
                 --engine ort, or keep it as it is with --freeze",
                inner.name, inner.body
            )));
        }
        let all = analysis.roles.iter().zip(&analysis.trained).filter(|(_, trained)| **trained);
        all.map(|(role, _)| analysis.graph.name(role.value).to_owned()).collect()
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TrainError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let file = folder.join("forward_model.onnx");
    std::fs::write(&file, &whole.file.bytes).map_err(failed(&file))?;
    let request = folder.join("request.json");
    let text = json!({ "model": file, "folder": folder, "trained": trained, "optimizer": optimizer }).to_string();
    std::fs::write(&request, text).map_err(failed(&request))?;
    run(pythons, &request)?;
    // What generate_artifacts makes to evaluate with is in training mode where the model is, and no runtime loads it where that is
    // BatchNormalization.
    let evaluation = noise::feed(&inference(&forward)?)?;
    let given: HashSet<&str> = trained.iter().map(String::as_str).chain(coefficients).collect();
    let file = folder.join("eval_model.onnx");
    std::fs::write(&file, &as_inputs(&evaluation.model, &given)?.file.bytes).map_err(failed(&file))?;
    let asks = fed.draws.iter().chain(&evaluation.draws).any(|d| d.asks_for().is_some());
    let mut interface = Interface {
        step: Traffic { draws: fed.draws, outputs: outputs.clone() },
        evaluation: Traffic { draws: evaluation.draws, outputs },
        forward: Some(forward).filter(|_| asks),
        stored: trained,
        ..interface
    };
    interface.warnings.extend(warnings_of(&fed.left));
    if has_running_statistics(model)? {
        interface.warnings.push(
            "ONNX Runtime's training API leaves the running statistics of BatchNormalization as they came, with which evaluations and the \
             trained model work; --engine ort goes on with them"
                .into(),
        );
    }
    let artifacts = Artifacts::at(folder)?;
    let missing = || TrainError::Options(format!("no artifacts were made in {}", folder.display()));
    Ok((artifacts.ok_or_else(missing)?, interface))
}

/// Whether a step of the model changes running statistics.
fn has_running_statistics(model: &Model) -> TrainResult<bool> {
    let graph = Graph::of(model)?;
    let changes = |node: &NodeProto| {
        node.op_type() == "BatchNormalization"
            && (node.int("training_mode") == Some(1) || node.output.get(1).is_some_and(|o| !o.is_empty()))
    };
    Ok(graph.nodes.iter().any(changes))
}

/// AdamW's constants as the script takes them; null for plain gradient descent.
fn optimizer(recipe: &Recipe) -> TrainResult<serde_json::Value> {
    let refuse = |what: String| {
        Err(TrainError::Options(format!(
            "ONNX Runtime's training API has {what}; use --engine ort, whose optimisers are per-inject's own"
        )))
    };
    if !recipe.groups.is_empty() {
        return refuse("no parameters with settings of their own (--group)".into());
    }
    if recipe.clip.is_some() {
        return refuse("no clipping of gradients here".into());
    }
    if recipe.accumulate {
        return refuse("no sum of gradients over batches here (--accumulate)".into());
    }
    if recipe.loss_scale != LossScale::None {
        return refuse("no scale of the loss (--loss-scale)".into());
    }
    match recipe.optimizer {
        Optimizer::Sgd { decay: 0.0 } => Ok(serde_json::Value::Null),
        Optimizer::Sgd { .. } => refuse("no weight decay beside plain gradient descent".into()),
        Optimizer::Adam { betas, epsilon, decay, is_decoupled: true } => {
            Ok(json!({ "betas": betas, "epsilon": epsilon, "decay": decay }))
        }
        other => refuse(format!("sgd and adamw, and no {}", other.name())),
    }
}

/// Runs the script by the first Python that has what it needs.
fn run(pythons: &[PathBuf], request: &Path) -> TrainResult<()> {
    let mut tried = Vec::new();
    for python in pythons {
        let problem = match by(python, request) {
            Ok(None) => return Ok(()),
            Ok(Some((status, said))) if status == Some(NOT_THERE) => said,
            Ok(Some((status, said))) => {
                let status = status.map_or("it was killed".to_owned(), |s| format!("exit status {s}"));
                let said = if said.is_empty() { status } else { said };
                return Err(TrainError::Options(format!(
                    "generate_artifacts, run by {}, does not take the model: {said}; --engine ort needs no artifacts",
                    python.display()
                )));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "it is not there".into(),
            Err(e) => e.to_string(),
        };
        tried.push(format!("{}: {problem}", python.display()));
    }
    Err(TrainError::Options(format!(
        "no Python that can make artifacts was found ({}); name one with --python PATH whose environment has onnxruntime-training or \
         onnxruntime-training-cpu and onnx<1.18, give the folder of artifacts instead of a model, or use --engine ort",
        tried.join("; ")
    )))
}

/// `None` where it worked, else the exit status and the last line that was said.
fn by(python: &Path, request: &Path) -> std::io::Result<Option<(Option<i32>, String)>> {
    let mut child = Command::new(python)
        .arg("-")
        .arg(request)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A Python that does not read has an exit status that says more.
        let _ = input.write_all(SCRIPT.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(Some((output.status.code(), last.trim().to_owned())))
}

/// What a run of given artifacts feeds and reads: the loss is the first output, or the one that is named.
///
/// # Errors
/// When there is no output, or none of that name.
pub fn interface_of(outputs: &[String], loss: Option<&str>) -> TrainResult<Interface> {
    let found = match loss {
        None => outputs.first(),
        Some(loss) => outputs.iter().find(|name| *name == loss),
    };
    let all = outputs.join(", ");
    let missing = || {
        TrainError::Options(format!("the training model has no output {:?}; it has {all}", loss.unwrap_or_default()))
    };
    let loss = found.ok_or_else(missing)?.clone();
    let task = outputs.iter().find(|name| name.ends_with("per_inject/task_loss")).unwrap_or(&loss).clone();
    let outputs = Outputs { loss, task, ..Outputs::default() };
    let traffic = Traffic { outputs, ..Traffic::default() };
    Ok(Interface {
        step: traffic.clone(),
        evaluation: traffic,
        metric: super::metrics::Metric::None,
        ..Interface::default()
    })
}
