//! Which array is for which initializer: the one of its name, or the one that a rule sends to it.

use std::collections::{HashMap, HashSet};

use regex_lite::Regex;

use super::array::{Array, describe};
use super::error::{WeightsError, WeightsResult};
use super::{Candidate, Source, initializers};
use crate::onnx::tensor_proto::DataType;
use crate::select::nearest;
use crate::wire::Initializer;

/// A rule `FROM=TO`: the array FROM is for the initializer TO. A `*` in FROM stands for any text, and a `*` in TO for the same text, the first
/// for the first. `:T` behind TO transposes a matrix.
#[derive(Debug, Clone)]
pub struct Rule {
    from: String,
    to: String,
    pattern: Option<Regex>,
    /// Whether the array is transposed.
    pub is_transposed: bool,
}

impl Rule {
    /// Reads one.
    ///
    /// # Errors
    /// When it has no `=`, nothing on one side of it, or stars in TO that FROM has no text for.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "write it as FROM=TO, the array's name and the initializer's, such as fc.weight=val_40; with :T behind it to transpose";
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        let (to, is_transposed) = to.strip_suffix(":T").map_or((to, false), |to| (to, true));
        if from.is_empty() || to.is_empty() {
            return Err(wrong().into());
        }
        let stars = |text: &str| text.matches('*').count();
        if stars(to) > stars(from) {
            return Err(format!("{to:?} has more * than {from:?}, and each stands for the text of one there"));
        }
        let pattern = from.contains('*').then(|| {
            let parts: Vec<String> = from.split('*').map(regex_lite::escape).collect();
            Regex::new(&format!("(?s)^{}$", parts.join("(.*)")))
        });
        let pattern = pattern.transpose().map_err(|e| e.to_string())?;
        Ok(Rule { from: from.to_owned(), to: to.to_owned(), pattern, is_transposed })
    }

    /// The initializer that it sends an array to.
    fn target(&self, array: &str) -> Option<String> {
        let Some(pattern) = self.pattern.as_ref().filter(|_| array != self.from) else {
            return (array == self.from).then(|| self.to.clone());
        };
        let found = pattern.captures(array)?;
        let mut texts = found.iter().skip(1).flatten();
        let mut pieces = self.to.split('*');
        let mut target = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            target.push_str(texts.next().map_or("", |m| m.as_str()));
            target.push_str(piece);
        }
        Some(target)
    }
}

/// An array that is for an initializer.
#[derive(Debug)]
pub struct Match {
    /// Position of the initializer.
    pub initializer: usize,
    /// Position of the array.
    pub array: usize,
    /// The array as the initializer has it.
    pub value: Array,
    /// Whether it was transposed for it.
    pub is_transposed: bool,
}

/// What became of the arrays and the initializers.
#[derive(Debug, Default)]
pub struct Matching {
    /// Arrays with the initializer that they are for, in the order of the model.
    pub matched: Vec<Match>,
    /// Positions of wanted initializers that no array is for.
    pub missing: Vec<usize>,
    /// Positions of arrays that no initializer takes.
    pub unknown: Vec<usize>,
    /// Positions of arrays of initializers that are not wanted.
    pub left: Vec<usize>,
}

/// Matches the arrays of a source with the [`stored`](super::stored) initializers of a model. A rule takes an array to where it says, wanted or not; arrays that
/// no rule is about go to the wanted initializer of their name.
///
/// # Errors
/// For a rule that is about no array, or sends one array to an initializer that is not there; for two arrays for one initializer; for an
/// array of another type or shape than the initializer.
pub fn match_up(
    all: &[Initializer],
    candidates: &[Candidate],
    source: &Source,
    rules: &[Rule],
) -> WeightsResult<Matching> {
    let positions: HashMap<&str, usize> = all.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    for rule in rules {
        check_rule(rule, source, &positions)?;
    }
    let mut found = Matching::default();
    let mut takers: HashMap<usize, usize> = HashMap::new();
    for (a, array) in source.arrays.iter().enumerate() {
        let mut targets: Vec<(String, bool)> =
            rules.iter().filter_map(|r| Some((r.target(&array.name)?, r.is_transposed))).collect();
        let is_mapped = !targets.is_empty();
        if !is_mapped {
            targets.push((array.name.clone(), false));
        }
        let is_minor = source.minor.get(a).copied().unwrap_or(false);
        let mut is_known = false;
        for (target, is_transposed) in targets {
            let Some(i) = positions.get(target.as_str()).copied() else { continue };
            is_known = true;
            if !is_mapped && !candidates.get(i).is_some_and(|c| c.is_wanted) {
                found.left.extend((!is_minor).then_some(a));
                continue;
            }
            if let Some(other) = takers.insert(i, a) {
                let first = source.arrays.get(other).map_or("", |o| o.name.as_str());
                return Err(WeightsError::Options(format!(
                    "the arrays {first:?} and {:?} are both for the initializer {target:?}; --map FROM=TO sends one of them elsewhere",
                    array.name
                )));
            }
            let value = fitted(all, i, array, is_transposed)?;
            found.matched.push(Match { initializer: i, array: a, value, is_transposed });
        }
        if !is_known && !is_minor {
            found.unknown.push(a);
        }
    }
    found.matched.sort_unstable_by_key(|m| m.initializer);
    let taken: HashSet<usize> = takers.into_keys().collect();
    let is_missing = |i: &usize| candidates.get(*i).is_some_and(|c| c.is_wanted) && !taken.contains(i);
    found.missing = (0..all.len()).filter(is_missing).collect();
    Ok(found)
}

fn check_rule(rule: &Rule, source: &Source, positions: &HashMap<&str, usize>) -> WeightsResult<()> {
    let targets: Vec<String> = source.arrays.iter().filter_map(|a| rule.target(&a.name)).collect();
    let meant = |found: Option<&str>| found.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
    if targets.is_empty() {
        let near = nearest(&rule.from, source.arrays.iter().map(|a| a.name.as_str()));
        return Err(WeightsError::Options(format!("--map: no array is called {:?}{}", rule.from, meant(near))));
    }
    if !targets.iter().any(|t| positions.contains_key(t.as_str())) {
        let (target, near) = (&targets[0], nearest(&targets[0], positions.keys().copied()));
        let advice = near
            .map_or_else(|| "; 'per-inject inspect --initializers' lists all of them".to_owned(), |n| meant(Some(n)));
        return Err(WeightsError::Options(format!("--map: the model has no initializer {target:?}{advice}")));
    }
    Ok(())
}

/// The array as an initializer has it.
fn fitted(all: &[Initializer], i: usize, array: &Array, is_transposed: bool) -> WeightsResult<Array> {
    let unknown = || WeightsError::Options(format!("there is no initializer {i}"));
    let initializer = all.get(i).ok_or_else(unknown)?;
    let refuse = |problem: String| WeightsError::Initializer { name: initializer.name.clone(), problem };
    let (elem, shape) = initializers::declared(initializer).map_err(refuse)?;
    let misfit = |problem: String| WeightsError::Misfit {
        array: array.name.clone(),
        given: array.describe(),
        initializer: initializer.name.clone(),
        wanted: describe(elem as i32, &shape),
        problem,
    };
    let array = match elem {
        // NumPy lacks the type, and keeps its numbers in this one.
        DataType::Bfloat16 => array.as_bfloat16().unwrap_or_else(|| array.clone()),
        _ => array.clone(),
    };
    if array.elem != elem {
        return Err(misfit("its type is another one; weights are not rounded here, so convert the array first".into()));
    }
    let value = if is_transposed {
        let value = array.transposed();
        value.ok_or_else(|| misfit("only a matrix, of two axes, can be transposed with :T".into()))?
    } else {
        array
    };
    if value.shape == shape {
        return Ok(value);
    }
    let turned: Vec<usize> = value.shape.iter().rev().copied().collect();
    if turned == shape && shape.len() == 2 {
        let advice = if is_transposed {
            "it fits as it is, without :T".to_owned()
        } else {
            format!("it would fit transposed: --map '{}={}:T'", value.name, initializer.name)
        };
        return Err(misfit(advice));
    }
    Err(misfit("its shape is another one; is it of this model? --map FROM=TO sends it elsewhere".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(rule: &str, name: &str) -> Option<String> {
        Rule::parse(rule).unwrap().target(name)
    }

    #[test]
    fn stars_carry_their_text_over() {
        assert_eq!(target("module.*=*", "module.fc.weight").as_deref(), Some("fc.weight"));
        assert_eq!(target("*.*.weight=w_*_of_*", "a.b.weight").as_deref(), Some("w_a_of_b"));
        assert_eq!(target("module.*=*", "fc.weight"), None);
        assert_eq!(target("a.c=x", "abc"), None);
        assert_eq!(target("w*=v*", "w*").as_deref(), Some("v*"));
        let turned = Rule::parse("fc.weight=val_40:T").unwrap();
        assert_eq!((turned.target("fc.weight").as_deref(), turned.is_transposed), (Some("val_40"), true));
    }

    #[test]
    fn a_rule_that_is_none_is_refused() {
        for (text, words) in
            [("fc", "FROM=TO"), ("=w", "FROM=TO"), ("w=", "FROM=TO"), ("w=:T", "FROM=TO"), ("w=a*", "more *")]
        {
            let message = Rule::parse(text).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
