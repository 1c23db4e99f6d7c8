//! The nearest name to one that a person wrote.

/// Names beyond this many are not compared: an error message is not worth more time.
const COMPARED: usize = 20_000;

/// How alike two names must be (Jaro–Winkler, 1 is equal) for one to be suggested for the other.
const ALIKE: f64 = 0.72;

/// The candidate nearest to `written`, ignoring case first; `None` when none is near.
pub fn nearest<'c>(written: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let lower = written.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates.take(COMPARED) {
        let score = strsim::jaro_winkler(&lower, &candidate.to_lowercase());
        if score >= ALIKE && best.is_none_or(|(s, _)| score > s) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, name)| name)
}

/// What is left of a glob or regex when its special characters are taken out, for comparing it with names.
pub fn without_wildcards(pattern: &str) -> String {
    pattern.chars().filter(|c| !matches!(c, '*' | '?' | '^' | '$' | '\\' | '(' | ')' | '[' | ']' | '{' | '}')).collect()
}

/// `; did you mean `x`?`, or nothing.
pub fn did_you_mean(prefix: &str, name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean `{prefix}{name}`?"))
}
