//! Why a selector was refused.

use thiserror::Error;

use super::activation::Activation;
use super::suggest::{did_you_mean, nearest};

/// Text that is no selector.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// A bare word that is no activation.
    #[error(
        "`{word}` is no activation{hint} (for an operator type write `op:{word}`, for a node `name:{word}`, for a tensor `tensor:{word}`)"
    )]
    UnknownActivation {
        /// What was written.
        word: String,
        /// `; did you mean …?`, or empty.
        hint: String,
    },
    /// A word before a colon that is no kind of item.
    #[error(
        "`{kind}:` in `{item}` is no kind of item{hint} (there are `op:`, `name:`, `re:` and `tensor:`; a node whose name holds a colon is `name:{item}`)"
    )]
    UnknownKind {
        /// What stands before the colon.
        kind: String,
        /// The whole item.
        item: String,
        /// `; did you mean …?`, or empty.
        hint: String,
    },
    /// Nothing between two commas, or nothing at all.
    #[error("the selector {spec:?} has an empty item; items are separated by single commas, as in `relu,!name:/head*`")]
    Empty {
        /// The whole selector.
        spec: String,
    },
    /// A kind of item with nothing behind its colon.
    #[error("`{item}` lacks what should stand behind `{kind}`")]
    Incomplete {
        /// The whole item.
        item: String,
        /// `op:`, `name:` …
        kind: &'static str,
    },
    /// A glob that does not compile.
    #[error(
        "`{pattern}` is no glob: {reason} (`*` and `?` are wildcards, `[ab]` and `{{a,b}}` alternatives, `\\` escapes)"
    )]
    Glob {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A regular expression that does not compile.
    #[error("`{pattern}` is no regular expression: {reason}")]
    Regex {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Positions that are no range from 1 on.
    #[error(
        "`{item}` is no range of positions: {reason} (write `#3`, `#2..5`, `#2..` or `#..5`; both ends count, from 1)"
    )]
    Positions {
        /// The item.
        item: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `!` before something that nothing can be removed by.
    #[error("`{item}` cannot follow a `!`: {reason}")]
    Removal {
        /// What follows the `!`.
        item: String,
        /// Why not.
        reason: &'static str,
    },
}

impl ParseError {
    pub(super) fn unknown_activation(word: &str) -> Self {
        let near = nearest(word, Activation::spellings().chain(["all", "none"]));
        ParseError::UnknownActivation { word: word.into(), hint: did_you_mean("", near) }
    }
}

/// A selector that does not fit the graph.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectError {
    /// It is no selector.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// An item that matches nothing.
    #[error("`{item}` matches nothing: {there}{hint}")]
    NoMatch {
        /// The item.
        item: String,
        /// What is there instead.
        there: String,
        /// `; did you mean …?`, or empty.
        hint: String,
    },
    /// A tensor that is there but is no output of a layer.
    #[error("`{item}` cannot be tapped: {reason}")]
    NotTappable {
        /// The item.
        item: String,
        /// Why not.
        reason: &'static str,
    },
    /// `!item` where nothing that was chosen matches it.
    #[error("`!{item}` removes nothing: it matches {matches} in all, but the items before it chose none of them")]
    NothingRemoved {
        /// The item behind the `!`.
        item: String,
        /// How many it matches in the graph.
        matches: usize,
    },
    /// `#…` or `!…` with nothing chosen before it.
    #[error(
        "`{item}` takes from what the items before it chose, and they chose nothing; write for example `all,{item}`"
    )]
    NothingBefore {
        /// The item.
        item: String,
    },
    /// Positions beyond the last match.
    #[error("`{item}` lies beyond the last match: the items before it chose {count}")]
    BeyondLast {
        /// The item.
        item: String,
        /// How many there are.
        count: usize,
    },
    /// Everything that was chosen was removed again.
    #[error("`{selector}` chooses nothing in the end; write `none` if that is meant")]
    NothingLeft {
        /// The whole selector.
        selector: String,
    },
}
