//! From two models to their difference: the main graphs, and what is around them.

use std::cell::RefCell;
use std::collections::HashMap;

use super::change::{
    Counts, Diff, FunctionChange, FunctionsDiff, GraphDiff, SCHEMA, Summary, TrainingDiff, ValuesDiff,
};
use super::compare::{Context, graphs, properties};
use super::matching::Matching;
use super::pairing::Pairs;
use super::side::Value;
use super::view::View;
use super::weights::Store;
use super::{DiffError, Options};
use crate::graph::NodeId;
use crate::inject::report::ModelSummary;
use crate::onnx::{FunctionProto, StringStringEntryProto, TrainingInfoProto};
use crate::wire::{Model, WireError, records};

/// Compares two models.
pub fn models(a: &Model, b: &Model, options: &Options) -> Result<Diff, DiffError> {
    let warnings = RefCell::new(Vec::new());
    let (store_a, store_b) = rayon::join(|| Store::of(a), || Store::of(b));
    let context = Context { options, a: &store_a, b: &store_b, warnings: &warnings };
    let wire = |model: &Model| {
        let model = model.file.display_name().display().to_string();
        move |source: WireError| DiffError::Wire { model, source }
    };
    let (view_a, view_b) = (View::of_model(a).map_err(wire(a))?, View::of_model(b).map_err(wire(b))?);
    let mut matching = Matching::default();
    let graph = graphs(&context, view_a, view_b, &|name| Some(name.to_owned()), "", &mut |pairs| {
        matching = matching_of(pairs);
    });
    let whole = (model_properties(a).map_err(wire(a))?, model_properties(b).map_err(wire(b))?);
    let mut diff = Diff {
        schema: SCHEMA,
        a: ModelSummary::from(a),
        b: ModelSummary::from(b),
        ignored: options.ignore.names(),
        equal: false,
        summary: summary(&graph, &matching),
        model: properties(&context, &whole.0, &whole.1),
        graph,
        functions: functions(&context, &a.functions, &b.functions),
        training_info: training(&context, (a, b), &matching, &wire)?,
        folds: Vec::new(),
        warnings: Vec::new(),
        run: None,
        matching,
    };
    diff.warnings = warnings.take();
    super::fold::fold(&mut diff, a, b);
    let functions = &diff.functions;
    diff.equal = diff.model.is_empty()
        && diff.graph.is_empty()
        && functions.added.is_empty()
        && functions.removed.is_empty()
        && functions.changed.is_empty()
        && diff.training_info.is_empty();
    Ok(diff)
}

fn matching_of(pairs: &Pairs) -> Matching {
    let (a, b) = (pairs.a, pairs.b);
    let ids = |count: usize, other: &dyn Fn(u32) -> Option<u32>| {
        (0..count as u32).map(|v| other(v).map(NodeId)).collect::<Vec<_>>()
    };
    let mut values = HashMap::with_capacity(a.vertices());
    let mut put = |x: Value, y: Value| {
        let (x, y) = (a.value_name(x), b.value_name(y));
        if !x.is_empty() && !y.is_empty() {
            values.insert(x.to_owned(), y.to_owned());
        }
    };
    for x in 0..a.vertices() as u32 {
        let Some(y) = pairs.in_b(x) else { continue };
        let outs = if a.is_node(x) { a.view.nodes[x as usize].output.len() } else { 1 };
        (0..outs as u32).for_each(|out| put(Value { vertex: x, out }, Value { vertex: y, out }));
    }
    Matching::new(ids(a.nodes(), &|v| pairs.in_b(v)), ids(b.nodes(), &|v| pairs.in_a(v)), values)
}

fn summary(graph: &GraphDiff, matching: &Matching) -> Summary {
    let values = |v: &ValuesDiff| Counts {
        added: v.added.len(),
        removed: v.removed.len(),
        changed: v.changed.len(),
        renamed: v.renamed.len(),
        moved: v.moved.len(),
    };
    let (nodes, initializers) = (&graph.nodes, &graph.initializers);
    Summary {
        nodes: Counts {
            added: nodes.added.len(),
            removed: nodes.removed.len(),
            changed: nodes.changed.len(),
            renamed: nodes.renamed.len(),
            moved: nodes.moved.len(),
        },
        initializers: Counts {
            added: initializers.added.len(),
            removed: initializers.removed.len(),
            changed: initializers.changed.len(),
            renamed: initializers.renamed.len(),
            moved: 0,
        },
        inputs: values(&graph.inputs),
        outputs: values(&graph.outputs),
        values_renamed: graph.values_renamed.len(),
        nodes_matched: matching.a_to_b.iter().flatten().count(),
    }
}

/// What a model says of itself: which, key, value.
fn model_properties(model: &Model) -> Result<Vec<(&'static str, String, String)>, WireError> {
    let bytes = &model.file.bytes;
    let mut found: HashMap<&'static str, String> = HashMap::new();
    for record in records(bytes, 0..bytes.len()) {
        let record = record?;
        // Fields of ModelProto that only a comparison looks at. Of several the last one counts.
        let what = match (record.field, record.wire_type) {
            (2, 2) => "producer_name",
            (3, 2) => "producer_version",
            (4, 2) => "domain",
            (5, 0) => "model_version",
            (6, 2) => "doc_string",
            _ => continue,
        };
        let value = if record.wire_type == 0 {
            let (value, _) = crate::wire::read_varint(bytes, record.payload.start, record.payload.end)?;
            value.cast_signed().to_string()
        } else {
            String::from_utf8_lossy(&bytes[record.payload]).into_owned()
        };
        found.insert(what, value);
    }
    let mut list = vec![("ir_version", String::new(), model.ir_version.to_string())];
    let imports = model.opset_imports.iter();
    // ONNX's own domain has two spellings.
    let domain = |d: &str| if d == "ai.onnx" { String::new() } else { d.to_owned() };
    list.extend(imports.map(|o| ("opset_import", domain(o.domain()), o.version().to_string())));
    for what in ["producer_name", "producer_version", "domain", "model_version", "doc_string"] {
        list.extend(found.remove(what).filter(|v| !v.is_empty() && v != "0").map(|value| (what, String::new(), value)));
    }
    list.extend(model.metadata.iter().map(|e| ("metadata", e.key().to_owned(), e.value().to_owned())));
    Ok(list)
}

fn functions(context: &Context, a: &[FunctionProto], b: &[FunctionProto]) -> FunctionsDiff {
    let name = |f: &FunctionProto| match f.overload() {
        "" => format!("{}::{}", f.domain(), f.name()),
        overload => format!("{}::{}:{overload}", f.domain(), f.name()),
    };
    let mut of_a: HashMap<String, &FunctionProto> = a.iter().map(|f| (name(f), f)).collect();
    let mut found = FunctionsDiff::default();
    for function in b {
        let name = name(function);
        let Some(before) = of_a.remove(&name) else {
            found.added.push(name);
            continue;
        };
        if before == function {
            continue;
        }
        let (x, y) = (View::of_function(before), View::of_function(function));
        let diff = graphs(context, x, y, &|name| Some(name.to_owned()), &name, &mut |_| {});
        if !diff.is_empty() {
            found.changed.push(FunctionChange { function: name, diff });
        }
    }
    found.removed = of_a.into_keys().collect();
    found.removed.sort_unstable();
    found.added.sort_unstable();
    found.changed.sort_unstable_by(|x, y| x.function.cmp(&y.function));
    found
}

fn training<E: FnOnce(WireError) -> DiffError>(
    context: &Context,
    (a, b): (&Model, &Model),
    matching: &Matching,
    wire: &dyn Fn(&Model) -> E,
) -> Result<Vec<TrainingDiff>, DiffError> {
    let mut found = Vec::new();
    let outer = |name: &str| matching.value(name).map(str::to_owned);
    for position in 0..a.training_info.len().max(b.training_info.len()) {
        let decode = |model: &Model| match model.training_info.len() > position {
            true => model.decode_training_info(position).map_err(wire(model)),
            false => Ok(TrainingInfoProto::default()),
        };
        let (x, y) = (decode(a)?, decode(b)?);
        let status = match (position < a.training_info.len(), position < b.training_info.len()) {
            (false, _) => "added",
            (_, false) => "removed",
            _ => "changed",
        };
        let compare = |x: &Option<crate::onnx::GraphProto>, y: &Option<crate::onnx::GraphProto>, part: &str| {
            let (x, y) = (x.clone().unwrap_or_default(), y.clone().unwrap_or_default());
            let path = format!("training_info {position}/{part}");
            graphs(context, View::of_graph(&x), View::of_graph(&y), &outer, &path, &mut |_| {})
        };
        let list = |t: &TrainingInfoProto| {
            let entries = |what: &'static str, list: &[StringStringEntryProto]| {
                list.iter().map(move |e| (what, e.key().to_owned(), e.value().to_owned())).collect::<Vec<_>>()
            };
            let mut all = entries("initialization_binding", &t.initialization_binding);
            all.extend(entries("update_binding", &t.update_binding));
            all
        };
        let step = TrainingDiff {
            position,
            status,
            bindings: properties(context, &list(&x), &list(&y)),
            initialization: compare(&x.initialization, &y.initialization, "initialization"),
            algorithm: compare(&x.algorithm, &y.algorithm, "algorithm"),
        };
        let is_same = step.bindings.is_empty() && step.initialization.is_empty() && step.algorithm.is_empty();
        if status != "changed" || !is_same {
            found.push(step);
        }
    }
    Ok(found)
}
