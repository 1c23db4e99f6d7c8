//! Numbers and names as pages write them.

use std::path::Path;

use super::text;
pub(crate) use crate::diff::grouped;

/// What stands behind the last separator of a path.
pub fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().map_or(path.into(), |n| n.to_string_lossy());
    text::name(&name)
}

/// A number of things.
pub fn count(n: usize) -> String {
    grouped(n as u64)
}

/// 1234567 as 1.23 M.
pub fn scaled(n: f64) -> String {
    let units = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)];
    let (unit, scale) = units.iter().rfind(|(_, s)| n >= *s).copied().unwrap_or(("", 1.0));
    let digits = if scale == 1.0 { 0 } else { 2 };
    format!("{:.digits$} {unit}", n / scale)
}
