//! A model, or the difference of two, as one HTML file: overview, list and pictures of the graph.
//!
//! The file loads nothing and works offline. A page is data (`data::Page`): a list of rows and a graph with marks, whoever made it.
//! Pictures are laid out here, not in the browser (`layout`), and large graphs are cut into pictures that can be looked at
//! (`scenes`); of a difference only what is near a change is drawn, where all of it would be too much (`focus`).

mod data;
mod difference;
mod document;
mod entries;
mod focus;
mod inspection;
mod layout;
mod merged;
mod network;
mod operators;
mod packed;
mod reduce;
mod scenes;
mod text;
mod words;

use crate::analysis::Analysis;
use crate::diff::Diff;
use crate::inspect::Inspection;
use crate::wire::Model;

/// The page of a model, from what an inspection found.
///
/// # Errors
/// None that is known: JSON can be made of everything in a page.
pub fn of_inspection(analysis: &Analysis, found: &Inspection) -> Result<String, serde_json::Error> {
    let page = inspection::page(analysis, found);
    Ok(document::document(&format!("{} · per-inject inspect", page.title), &page.json()?))
}

/// The page of the difference `found` between two models. `expand` opens what per-inject added.
///
/// # Errors
/// None that is known, as above.
pub fn of_diff(a: &Model, b: &Model, found: &Diff, expand: bool) -> Result<String, serde_json::Error> {
    let page = difference::page(a, b, found, expand);
    Ok(document::document(&format!("{} · per-inject diff", page.title), &page.json()?))
}
