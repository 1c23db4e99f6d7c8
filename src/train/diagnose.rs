//! Which value of a step went wrong first: the step is run once more with its inner values as outputs.

use super::error::TrainResult;
use super::session::Session;
use crate::compare::expose;
use crate::engine::{Data, LoadOptions, Optimisation, Tensor, graph_of};
use crate::graph::infer::Types;
use crate::wire::Model;

/// Values that are looked at in one run.
const AT_ONCE: usize = 64;

/// Looks for the first value in execution order that is not finite, in the step that was made last.
///
/// A mask may hold infinities and do no harm, so it is the first NaN that is named, with the first infinity before it.
pub fn first_not_finite(session: &Session<'_>, step: Option<&Model>) -> TrainResult<String> {
    let feeds = session.last_feeds()?;
    if let Some((name, _)) = feeds.iter().find(|(_, t)| worst(t).is_some()) {
        return Ok(format!("{name:?} was not finite before the step"));
    }
    let Some(step) = step else { return Ok("the engine shows nothing of what is inside its step".into()) };
    let graph = graph_of(step)?;
    let types = Types::of(&graph, step);
    let mut order: Vec<&str> = Vec::new();
    for id in graph.topological_order() {
        let made = graph.outputs_of(*id).iter().flatten();
        order.extend(made.filter(|v| types.get(**v).is_float() != Some(false)).map(|v| graph.name(*v)));
    }
    let describe = |name: &str| {
        let maker = graph.find(name).and_then(|v| graph.producer(v));
        maker.map_or_else(|| "an input".into(), |(id, _)| graph.describe(id))
    };
    let (engine, options) = session.engine();
    let mut options = LoadOptions { optimisation: Optimisation::Basic, placements: false, ..*options };
    options.cuda.graph = false;
    let mut infinite: Option<&str> = None;
    for names in order.chunks(AT_ONCE) {
        let mut program = expose::load(engine, step, names, &options)?;
        let taken: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        for (name, value) in program.run(&taken, Some(names))? {
            let Some(name) = names.iter().find(|n| **n == name) else { continue };
            match worst(&value) {
                Some(Worst::Nan) => {
                    let before = infinite
                        .map_or(String::new(), |v| format!("; before it {v:?} was infinite, made by {}", describe(v)));
                    return Ok(format!("the first NaN is in {name:?}, made by {}{before}", describe(name)));
                }
                Some(Worst::Infinite) => infinite = infinite.or(Some(name)),
                None => {}
            }
        }
    }
    Ok(match infinite {
        Some(v) => format!("{v:?} was infinite first, made by {}", describe(v)),
        None => "with every value looked at, none is, so it lies at the border of what float32 holds".into(),
    })
}

enum Worst {
    Infinite,
    Nan,
}

/// Whether a tensor holds NaN, else whether it holds an infinity.
fn worst(tensor: &Tensor) -> Option<Worst> {
    fn of<T: Copy + Into<f64>>(values: &[T]) -> Option<Worst> {
        let mut infinite = false;
        for value in values {
            let value: f64 = (*value).into();
            if value.is_nan() {
                return Some(Worst::Nan);
            }
            infinite |= value.is_infinite();
        }
        infinite.then_some(Worst::Infinite)
    }
    match tensor.data() {
        Data::Float(values) => of(values),
        Data::Double(values) => of(values),
        Data::Float16(values) => of(values),
        Data::Bfloat16(values) => of(values),
        _ => None,
    }
}
