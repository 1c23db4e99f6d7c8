//! A model with inner values among its outputs, ready to run.

use std::collections::HashSet;

use crate::engine::{Engine, EngineError, EngineResult, LoadOptions, Program, Source};
use crate::onnx::ValueInfoProto;
use crate::patch::{Change, Patch};
use crate::wire::{Model, external_files, splice};

/// Loads a model such that all of `names` are outputs. Nothing is written: the changed model goes to the engine in memory, and its
/// external data is read where it is.
pub fn load(
    engine: &dyn Engine,
    model: &Model,
    names: &[&str],
    options: &LoadOptions,
) -> EngineResult<Box<dyn Program>> {
    let mut there: HashSet<&str> = model.graph.outputs.iter().map(ValueInfoProto::name).collect();
    // Their types are left to the engine: a declaration that it infers otherwise would be refused.
    let declare = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let outputs: Vec<_> = names.iter().filter(|name| there.insert(name)).map(|name| declare(name)).collect();
    if outputs.is_empty() {
        return engine.load(source(model)?, options);
    }
    let change = Change { reason: "inner values are looked at".into(), outputs, ..Change::default() };
    let patch = Patch { changes: vec![change], ..Patch::default() };
    let bytes = splice(model, &patch)?.to_vec(&model.file.bytes);
    let Source::Memory { folder, name, .. } = in_memory(model)? else { return engine.load(source(model)?, options) };
    engine.load(Source::Memory { bytes: &bytes, folder, name }, options)
}

/// The model as it is.
pub fn source(model: &Model) -> EngineResult<Source<'_>> {
    match Source::of(model) {
        file @ Source::File(_) => Ok(file),
        Source::Memory { .. } => in_memory(model),
    }
}

fn in_memory(model: &Model) -> EngineResult<Source<'_>> {
    let is_external = !external_files(model)?.is_empty();
    let folder = model.file.folder();
    if is_external && folder.is_none() {
        return Err(EngineError::NoFolder { model: Source::of(model).name() });
    }
    Ok(Source::Memory { bytes: &model.file.bytes, folder: folder.filter(|_| is_external), name: &model.file.path })
}
