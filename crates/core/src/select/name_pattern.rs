//! Globs and regular expressions on the names of nodes and initializers.

use regex_lite::Regex;

use super::error::ParseError;

/// A glob or regular expression on names.
///
/// In a glob `*` and `?` match `/` too, `[ab]`, `[a-z]` and `{a,b}` are alternatives, `[!a]` is all but a, `\` escapes, and a name that
/// equals the glob letter by letter matches. A regular expression matches anywhere in a name unless it says `^` and `$`; its
/// `\w`, `\d` and `(?i)` are those of ASCII.
#[derive(Debug, Clone)]
pub struct NamePattern {
    source: String,
    kind: Kind,
    regex: Regex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Glob,
    Regex,
}

impl NamePattern {
    /// A glob; see the type.
    pub fn glob(source: &str) -> Result<Self, ParseError> {
        let failed = |reason: &str| ParseError::Glob { pattern: source.into(), reason: reason.into() };
        let regex = Regex::new(&translated(source).map_err(failed)?).map_err(|e| failed(&e.to_string()))?;
        Ok(NamePattern { source: source.into(), kind: Kind::Glob, regex })
    }

    /// A regular expression; see the type.
    pub fn regex(source: &str) -> Result<Self, ParseError> {
        let failed = |e: regex_lite::Error| ParseError::Regex { pattern: source.into(), reason: e.to_string() };
        Ok(NamePattern { source: source.into(), kind: Kind::Regex, regex: Regex::new(source).map_err(failed)? })
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        (self.kind == Kind::Glob && name == self.source) || self.regex.is_match(name)
    }

    /// What it was built from.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Glob => "name:",
            Kind::Regex => "re:",
        }
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.source == other.source
    }
}

/// The regular expression that matches what a glob does.
fn translated(glob: &str) -> Result<String, &'static str> {
    let mut regex = String::from("^(?s:");
    let mut braces = 0_usize;
    let mut letters = glob.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '\\' => literal(&mut regex, letters.next().ok_or("dangling '\\'")?),
            '{' => {
                braces += 1;
                regex.push_str("(?:");
            }
            '}' => {
                braces = braces
                    .checked_sub(1)
                    .ok_or("unopened alternate group; missing '{' (maybe escape '}' with '[}]'?)")?;
                regex.push(')');
            }
            ',' if braces > 0 => regex.push('|'),
            '[' => class(&mut regex, &mut letters)?,
            other => literal(&mut regex, other),
        }
    }
    if braces > 0 {
        return Err("unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)");
    }
    Ok(regex + ")$")
}

/// What stands between `[` and `]`; a `]` that comes first is a letter.
fn class(regex: &mut String, letters: &mut std::iter::Peekable<std::str::Chars>) -> Result<(), &'static str> {
    const UNCLOSED: &str = "unclosed character class; missing ']'";
    regex.push('[');
    if letters.next_if(|l| matches!(l, '!' | '^')).is_some() {
        regex.push('^');
    }
    let mut low = letters.next().ok_or(UNCLOSED)?;
    loop {
        let mut high = low;
        if letters.next_if_eq(&'-').is_some() {
            match letters.peek() {
                None => return Err(UNCLOSED),
                // A dash before the end is a letter.
                Some(']') => literal(regex, '-'),
                Some(_) => high = letters.next().ok_or(UNCLOSED)?,
            }
        }
        if high < low {
            return Err("invalid range; its end comes before its start");
        }
        literal(regex, low);
        regex.push('-');
        literal(regex, high);
        low = match letters.next().ok_or(UNCLOSED)? {
            ']' => break,
            letter => letter,
        };
    }
    regex.push(']');
    Ok(())
}

fn literal(regex: &mut String, letter: char) {
    // Every other letter stands for itself, inside a class and outside.
    if letter.is_ascii_punctuation() {
        regex.push('\\');
    }
    regex.push(letter);
}

#[cfg(test)]
mod tests {
    use globset::GlobBuilder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The crate globset, which translates too, is the judge: what is a glob, and what it matches. (On ASCII: its `?` is a byte.)
        #[test]
        fn a_glob_matches_what_globset_matches(
            glob in r"([a-c/.+^-]|\*|\?|\[!?[a-c/^-]{1,3}\]|\[|\]|\{[a-c*]{0,2}(,[a-c]{0,2}){1,2}\}|\{|\}|,|\\[*a?\]]){0,8}",
            names in prop::collection::vec("[a-c/.+*,^-]{0,6}", 16),
        ) {
            let theirs = GlobBuilder::new(&glob).literal_separator(false).backslash_escape(true).empty_alternates(true).build();
            let ours = NamePattern::glob(&glob);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?} {:?}", glob, ours, theirs);
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                let theirs = theirs.compile_matcher();
                for name in names.iter().filter(|n| **n != glob) {
                    prop_assert_eq!(ours.matches(name), theirs.is_match(name), "{:?} {:?}", glob, name);
                }
            }
        }
    }
}
