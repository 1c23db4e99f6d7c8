//! `weights put`: arrays of another file into a model.

use std::path::Path;

use bytes::Bytes;
use serde::Serialize;

use super::array::describe;
use super::error::{WeightsError, WeightsResult};
use super::initializers::{self, DataFiles};
use super::matching::{Matching, Rule, match_up};
use super::{SCHEMA, Source, Wanted, candidates, stored};
use crate::wire::{Model, Sync};

/// What is taken, and to where.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which initializers may change.
    pub wanted: Wanted,
    /// Where arrays go whose names are others.
    pub rules: Vec<Rule>,
    /// Whether an initializer without an array, or an array without an initializer, is refused.
    pub strict: bool,
}

/// What is put where. Its report says it, and [`Plan::write`] does it.
#[derive(Debug)]
pub struct Plan {
    /// For people and programs.
    pub report: Report,
    /// Positions among the [`stored`] initializers, and their new elements: only those that differ.
    changes: Vec<(usize, Bytes)>,
}

/// What was put where, as JSON `schemas/weights.schema.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// What kind of file the arrays came from.
    pub source: &'static str,
    /// Initializers that an array is for.
    pub matched: Vec<Matched>,
    /// Initializers that are wanted and no array is for.
    pub missing: Vec<Entry>,
    /// Arrays that no initializer takes.
    pub unknown: Vec<Entry>,
    /// Arrays of initializers that are not wanted.
    pub left: Vec<Entry>,
    /// Initializers that are given NaN or infinite elements.
    pub not_finite: Vec<String>,
}

/// An initializer and its array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// The initializer.
    pub initializer: String,
    /// The array.
    pub array: String,
    /// Element type and shape of the initializer.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether the array was transposed.
    pub transposed: bool,
    /// Whether its elements differ from what the model has.
    pub changed: bool,
}

/// An initializer or an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Element type and shape.
    #[serde(rename = "type")]
    pub ty: String,
    /// What the initializer of this name is for; `None` where there is none.
    pub role: Option<&'static str>,
}

/// Decides what is put where; nothing is written.
///
/// # Errors
/// When an array does not fit, nothing matches at all, or [`Options::strict`] finds something left over.
pub fn plan(model: &Model, source: &Source, options: &Options) -> WeightsResult<Plan> {
    let (candidates, stored) = (candidates(model, &options.wanted)?, stored(model)?);
    let matching = match_up(&stored, &candidates, source, &options.rules)?;
    let role_of = |name: &str| {
        let i = stored.iter().position(|t| t.name == name);
        i.and_then(|i| candidates.get(i)).map(|c| c.role.name())
    };
    let initializer = |i: &usize| {
        let t = stored.get(*i)?;
        let ty =
            initializers::declared(t).map_or_else(|_| String::new(), |(elem, shape)| describe(elem as i32, &shape));
        Some(Entry { name: t.name.clone(), ty, role: candidates.get(*i).map(|c| c.role.name()) })
    };
    let array = |a: &usize| {
        let array = source.arrays.get(*a)?;
        Some(Entry { name: array.name.clone(), ty: array.describe(), role: role_of(&array.name) })
    };
    let Matching { matched, missing, unknown, left } = &matching;
    let mut report = Report {
        schema: SCHEMA,
        source: source.kind,
        matched: Vec::with_capacity(matched.len()),
        missing: missing.iter().filter_map(initializer).collect(),
        unknown: unknown.iter().filter_map(array).collect(),
        left: left.iter().filter_map(array).collect(),
        not_finite: Vec::new(),
    };
    if matching.matched.is_empty() {
        return Err(nothing(&report));
    }
    if options.strict {
        refuse_leftovers(&report)?;
    }
    let mut changes = Vec::new();
    let mut files = DataFiles::default();
    for each in matching.matched {
        let Some(t) = stored.get(each.initializer) else { continue };
        let changed = initializers::read(model, t, &mut files)?.data != each.value.data;
        if !each.value.is_finite() {
            report.not_finite.push(t.name.clone());
        }
        report.matched.push(Matched {
            initializer: t.name.clone(),
            array: source.arrays.get(each.array).map(|a| a.name.clone()).unwrap_or_default(),
            ty: each.value.describe(),
            transposed: each.is_transposed,
            changed,
        });
        if changed {
            changes.push((each.initializer, each.value.data));
        }
    }
    Ok(Plan { report, changes })
}

impl Plan {
    /// Writes the model with its new weights, and its data files beside it.
    ///
    /// # Errors
    /// See [`initializers::write_back`].
    pub fn write(&self, model: &Model, target: &Path, sync: Sync) -> WeightsResult<()> {
        initializers::write_back(model, &self.changes, target, sync)
    }

    /// The model with its new weights, as the bytes of its file.
    ///
    /// # Errors
    /// See [`initializers::with_values`].
    pub fn to_vec(&self, model: &Model) -> WeightsResult<Vec<u8>> {
        initializers::with_values(model, &self.changes)
    }
}

fn nothing(report: &Report) -> WeightsError {
    let Report { missing, unknown, left, .. } = report;
    let some = |entries: &[Entry]| {
        let names: Vec<String> = entries.iter().take(3).map(|e| format!("{:?}", e.name)).collect();
        names.join(", ")
    };
    let problem = if unknown.is_empty() && !left.is_empty() {
        format!(
            "it holds only arrays of initializers that are not trained, such as {}; --all takes them too",
            some(left)
        )
    } else if missing.is_empty() {
        "the model has no initializer that is trained; --all takes the others too".to_owned()
    } else {
        format!(
            "none of its arrays has the name of an initializer: it has {}, and the model {}; --map FROM=TO brings them together",
            some(unknown),
            some(missing)
        )
    };
    WeightsError::Options(problem)
}

fn refuse_leftovers(report: &Report) -> WeightsResult<()> {
    let names = |entries: &[Entry]| entries.iter().map(|e| format!("{:?}", e.name)).collect::<Vec<_>>().join(", ");
    let problem = match (report.missing.as_slice(), report.unknown.as_slice()) {
        ([], []) => return Ok(()),
        (missing, []) => format!("no array is for {}", names(missing)),
        ([], unknown) => format!("no initializer takes {}", names(unknown)),
        (missing, unknown) => {
            format!("no array is for {}, and no initializer takes {}", names(missing), names(unknown))
        }
    };
    Err(WeightsError::Options(format!(
        "{problem}; leave --strict out to do without, or bring them together with --map FROM=TO"
    )))
}
