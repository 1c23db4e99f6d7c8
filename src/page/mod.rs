//! A model, or the difference of two, as one HTML file: overview, list and pictures of the graph.
//!
//! The file loads nothing and works offline. A page is data ([`data::Page`]): a list of rows and a graph with marks. Pictures
//! are laid out here, not in the browser ([`layout`]), and large graphs are cut into pictures that can be looked at ([`scenes`]).

mod data;
mod document;
mod inspection;
mod layout;
mod network;
mod operators;
mod packed;
mod scenes;
mod text;

use crate::analysis::Analysis;
use crate::inspect::Inspection;

/// The page of a model, from what an inspection found.
///
/// # Errors
/// None that is known: JSON can be made of everything in a page.
pub fn of_inspection(analysis: &Analysis, found: &Inspection) -> Result<String, serde_json::Error> {
    let page = inspection::page(analysis, found);
    Ok(document::document(&format!("{} · per-inject inspect", page.title), &page.json()?))
}
