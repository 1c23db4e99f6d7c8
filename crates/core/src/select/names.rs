//! Selectors over lists of names, such as initializers for `--wrt` and `--freeze`.

use super::error::{ParseError, SelectError};
use super::name_pattern::NamePattern;
use super::parse::split;
use super::suggest::{did_you_mean, nearest, without_wildcards};

/// Which of `names` a selector chooses: one answer for each name, in order.
///
/// Items, separated by commas and read left to right: a glob, alone or as `name:GLOB`; `re:REGEX`; `all`; `none`; and `!item`, which
/// removes. A name that equals an item letter by letter matches it, so that names such as `onnx::MatMul_12` and `w[0]` need no
/// escapes. Commas inside items are written `\,` or stand between braces.
///
/// # Errors
/// Text that is no selector, an item that matches nothing, and a `!item` that removes nothing.
pub fn select_names(spec: &str, names: &[&str]) -> Result<Vec<bool>, SelectError> {
    let mut chosen = vec![false; names.len()];
    for item in split(spec, |_| true)? {
        let (removes, text) = match item.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, item.as_str()),
        };
        if text.is_empty() {
            return Err(ParseError::Removal { item: item.clone(), reason: "nothing stands behind it" }.into());
        }
        if removes && !chosen.contains(&true) {
            return Err(SelectError::NothingBefore { item: item.clone() });
        }
        if text == "none" && !removes {
            chosen.fill(false);
            continue;
        }
        let matches = matches(text, names)?;
        let count = matches.iter().filter(|m| **m).count();
        if count == 0 {
            return Err(nothing(text, names));
        }
        if removes && !chosen.iter().zip(&matches).any(|(c, m)| *c && *m) {
            return Err(SelectError::NothingRemoved { item: text.into(), matches: count });
        }
        chosen.iter_mut().zip(&matches).filter(|(_, m)| **m).for_each(|(c, _)| *c = !removes);
    }
    Ok(chosen)
}

fn matches(item: &str, names: &[&str]) -> Result<Vec<bool>, ParseError> {
    if item == "all" {
        return Ok(vec![true; names.len()]);
    }
    if names.contains(&item) {
        return Ok(names.iter().map(|name| *name == item).collect());
    }
    let pattern = match (item.strip_prefix("name:"), item.strip_prefix("re:")) {
        (Some(""), _) => return Err(ParseError::Incomplete { item: item.into(), kind: "name:" }),
        (_, Some("")) => return Err(ParseError::Incomplete { item: item.into(), kind: "re:" }),
        (Some(glob), _) => NamePattern::glob(glob)?,
        (_, Some(regex)) => NamePattern::regex(regex)?,
        (None, None) => NamePattern::glob(item)?,
    };
    Ok(names.iter().map(|name| pattern.matches(name)).collect())
}

fn nothing(item: &str, names: &[&str]) -> SelectError {
    let bare = item.strip_prefix("name:").or(item.strip_prefix("re:")).unwrap_or(item);
    let near = nearest(&without_wildcards(bare), names.iter().copied());
    let there = match names {
        [] => "there is nothing to choose from".into(),
        _ => format!("none of the {} names fits", names.len()),
    };
    SelectError::NoMatch { item: item.into(), there, hint: did_you_mean("", near) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["fc.weight", "fc.bias", "head.weight", "onnx::MatMul_12", "w[0]"];

    fn chosen(spec: &str) -> Vec<&'static str> {
        let chosen = select_names(spec, &NAMES).unwrap();
        NAMES.into_iter().zip(chosen).filter(|(_, c)| *c).map(|(n, _)| n).collect()
    }

    fn refusal(spec: &str) -> String {
        select_names(spec, &NAMES).unwrap_err().to_string()
    }

    #[test]
    fn items_add_and_remove_from_left_to_right() {
        assert_eq!(chosen("*.weight,!head*"), ["fc.weight"]);
        assert_eq!(chosen("all,!re:^fc"), ["head.weight", "onnx::MatMul_12", "w[0]"]);
        assert_eq!(chosen("name:fc.{weight,bias}"), ["fc.weight", "fc.bias"]);
        assert_eq!(chosen("all,none"), [""; 0]);
        assert_eq!(chosen("onnx::MatMul_12,w[0]"), ["onnx::MatMul_12", "w[0]"]);
    }

    #[test]
    fn slips_are_refused_with_the_nearest_name() {
        assert!(refusal("fc.wieght").contains("did you mean `fc.weight`"));
        assert!(refusal("fc*,!head*").contains("removes nothing"));
        assert!(refusal("!head*").contains("chose nothing"));
        assert!(refusal("fc*,").contains("empty item"));
    }
}
