//! What must hold for any bytes. Shared by the fuzz targets and by `tests/fuzz_bounded.rs`.

use per_inject::graph::Graph;
use per_inject::inject::{At, Estimator, Form, Options, Outputs, plan};
use per_inject::inspect::inspect;
use per_inject::lower::Target;
use per_inject::record::Record;
use per_inject::regularizer::{Reduction, View};
use per_inject::strip;
use per_inject::wire::{Model, ModelFile, splice};

/// Bytes in front of the model that choose the options; the first is 0, which no model begins with.
const HEAD: usize = 8;

/// Decodes, builds the graph, inspects and serialises the inspection. Only panics and hangs are failures.
#[allow(dead_code, reason = "each fuzz target uses one of these")]
pub fn parse(input: &[u8]) {
    let Ok(model) = Model::from_bytes(input.to_vec()) else { return };
    for i in 0..model.training_info.len() {
        let _ = model.decode_training_info(i);
    }
    let _ = Graph::of(&model).map(|g| g.value_count());
    if let Ok(found) = inspect(&model, None, None) {
        assert!(!found.kind.is_empty());
    }
    let _ = strip::plan(&model);
}

/// What can be injected is a model again that knows of its injections, and strip gives back the same bytes. Returns whether anything
/// was injected.
#[allow(dead_code, reason = "each fuzz target uses one of these")]
pub fn inject(input: &[u8]) -> bool {
    let (head, original) = match input {
        [0, ..] if input.len() >= HEAD => input.split_at(HEAD),
        _ => (&[0; HEAD][..], input),
    };
    let Some(injected) = there_and_back(original, head) else { return false };
    // A bit that no option takes: once more on top.
    if head[6] & 4 == 4 {
        there_and_back(&injected, head);
    }
    true
}

/// Injects once and takes it out again. Returns the injected file; `None` where nothing was injected.
fn there_and_back(original: &[u8], head: &[u8]) -> Option<Vec<u8>> {
    let model = Model::from_bytes(original.to_vec()).ok()?;
    let planned = plan(&model, &options(head, &model)).ok()?;
    let injected = splice(&model, &planned.patch).expect("a plan fits its model").to_vec(original);
    if planned.patch.is_empty() {
        assert_eq!(injected, original, "an empty patch changes nothing");
        return None;
    }
    let injected = Model::from_bytes(injected).expect("an injected model can be read");
    let found = inspect(&injected, None, None).expect("an injected graph is a graph");
    let before = Record::all(&model).expect("a plan knows the earlier injections").len();
    assert_eq!(found.injections.len(), before + 1, "the injection is recorded");
    let (patch, record) = strip::plan(&injected).expect("an injection can be taken out");
    assert_eq!(found.model.nodes, model.graph.nodes.len() + record.added.nodes, "the record counts the added nodes");
    let stripped = splice(&injected, &patch).expect("the inverse fits").to_vec(&injected.file.bytes);
    assert!(stripped == original, "strip gives back the original, bit for bit");
    assert!(strip::is_original(&ModelFile::from_bytes(stripped), &record).expect("the original was a model"));
    Some(injected.file.bytes.to_vec())
}

/// What strip takes out of any file leaves a graph with nothing of that injection in it. Returns whether anything was taken out.
#[allow(dead_code, reason = "each fuzz target uses one of these")]
pub fn strip(input: &[u8]) -> bool {
    let Ok(mut model) = Model::from_bytes(input.to_vec()) else { return false };
    let mut peeled = false;
    while let Ok((patch, record)) = strip::plan(&model) {
        let injections = Record::all(&model).expect("strip read the records").len();
        let stripped = splice(&model, &patch).expect("the inverse fits").to_vec(&model.file.bytes);
        model = Model::from_bytes(stripped).expect("a stripped model can be read");
        let left = Record::all(&model).expect("the other records stand as they stood").len();
        assert_eq!(left, injections - 1, "one injection is taken out");
        let graph = Graph::of(&model).unwrap_or_else(|e| panic!("a stripped graph is a graph: {e}"));
        let mut made = graph.nodes.iter().flat_map(|n| &n.output);
        assert!(!made.any(|name| name.starts_with(&record.root)), "a node of the injection is left");
        peeled = true;
    }
    peeled
}

fn options(head: &[u8], model: &Model) -> Options {
    let [_, layers, which, flags, outputs, numbers, view, loss] = *head else { return Options::default() };
    // The which-th of the names that the model's nodes make.
    let made = || model.graph.nodes.iter().flat_map(|n| &n.output).map(String::as_str);
    let nth = |n: u8| made().nth(usize::from(n) % made().count().max(1)).unwrap_or("x");
    let on = |bit: u8| flags >> bit & 1 == 1;
    let bit = |bits: u8, bit: u8| bits >> bit & 1 == 1;
    Options {
        layers: match layers % 8 {
            0..=2 => "all".into(),
            3 => format!("tensor:{}", nth(which)),
            4 => format!("all,!#{}", which.max(1)),
            5 => "name:*".into(),
            6 => format!("op:{}", model.graph.nodes.get(usize::from(which)).map_or("Relu", |n| n.op_type())),
            _ => format!("tensor:{},tensor:{}", nth(which), nth(which.wrapping_add(1))),
        },
        at: if on(0) { At::Pre } else { At::Post },
        coef: (!on(1)).then_some(3e-5),
        coef_overrides: if numbers % 4 == 3 { vec![("#1".into(), 0.5)] } else { Vec::new() },
        coef_input: on(2),
        estimator: if on(3) { Estimator::Exact } else { Estimator::Sampled },
        slices: 1 + u64::from(numbers),
        share_slices: numbers % 2 == 1,
        view: [None, Some(View::Flatten), Some(View::Channel), Some(View::Last)][usize::from(view % 4)],
        reduction: if on(4) { Reduction::Sum } else { Reduction::Mean },
        seed: on(5).then_some(u64::from(numbers) << 20),
        loss: (loss % 8 == 7).then(|| nth(loss / 8).to_owned()),
        as_output: on(6),
        form: if bit(outputs, 6) { Form::Gradient } else { Form::Auto },
        loss_term: bit(outputs, 5),
        outputs: Outputs { task: bit(outputs, 0) && !on(6), per: bit(outputs, 1), layers: bit(outputs, 2) },
        wrt: bit(outputs, 3).then(|| "*".into()),
        freeze: bit(outputs, 4).then(|| "*".into()),
        trained: None,
        target: bit(outputs, 5).then_some(Target::OrtTraining),
        strict: on(7),
    }
}
