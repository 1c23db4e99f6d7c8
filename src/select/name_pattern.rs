//! Globs and regular expressions on the names of nodes and initializers.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use super::error::ParseError;

/// A glob or regular expression on names.
///
/// In a glob `*` and `?` match `/` too, `[ab]` and `{a,b}` are alternatives, and a name that equals the glob letter by letter matches.
/// A regular expression matches anywhere in a name unless it says `^` and `$`.
#[derive(Debug, Clone)]
pub struct NamePattern {
    source: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    Glob(Box<GlobMatcher>),
    Regex(Regex),
}

impl NamePattern {
    /// A glob; see the type.
    pub fn glob(source: &str) -> Result<Self, ParseError> {
        let built = GlobBuilder::new(source).literal_separator(false).backslash_escape(true).build();
        let glob = built
            .map_err(|e| ParseError::Glob { pattern: source.into(), reason: e.kind().to_string() })?
            .compile_matcher();
        Ok(NamePattern { source: source.into(), matcher: Matcher::Glob(Box::new(glob)) })
    }

    /// A regular expression; see the type.
    pub fn regex(source: &str) -> Result<Self, ParseError> {
        let regex = Regex::new(source).map_err(|e| {
            // The crate's message draws the pattern over several lines; its last line says what is wrong.
            let text = e.to_string();
            let last = text.lines().last().unwrap_or_default();
            let reason = last.trim_start_matches("error: ").to_owned();
            ParseError::Regex { pattern: source.into(), reason }
        })?;
        Ok(NamePattern { source: source.into(), matcher: Matcher::Regex(regex) })
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => name == self.source || glob.is_match(name),
            Matcher::Regex(regex) => regex.is_match(name),
        }
    }

    /// What it was built from.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.matcher {
            Matcher::Glob(_) => "name:",
            Matcher::Regex(_) => "re:",
        }
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.source == other.source
    }
}
