//! The language of selectors: its items, read and written.
//!
//! Items stand between commas. A comma that belongs to an item is written `\,`; between the braces of a `name:` or `re:` item it
//! needs no backslash. Any other backslash is the item's own. Spaces around items do not count.

use std::fmt;

use super::activation::Activation;
use super::error::ParseError;
use super::name_pattern::NamePattern;
use super::suggest::{did_you_mean, nearest};

/// One item of a selector.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Whether it stands behind a `!` and removes.
    pub removes: bool,
    /// What it matches.
    pub what: What,
}

/// What an item matches.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// `relu`: an activation by name.
    Activation(Activation),
    /// `all`: every activation.
    All,
    /// `none`: nothing; forgets what was chosen before.
    None,
    /// `op:TYPE`: every node of this operator type, whatever its domain.
    Operator(String),
    /// `name:GLOB` or `re:REGEX` on node names.
    Node(NamePattern),
    /// `tensor:NAME`.
    Tensor(String),
    /// `#3`, `#2..5`, `#2..`, `#..5`: keeps these of what was chosen before.
    Positions {
        /// The first that is kept, from 1.
        first: usize,
        /// The last that is kept; `None` keeps all from `first` on.
        last: Option<usize>,
    },
}

/// The items of a selector as texts, commas unescaped.
///
/// `braces` says of an item's beginning whether commas between its braces belong to it.
pub(super) fn split(spec: &str, braces: impl Fn(&str) -> bool) -> Result<Vec<String>, ParseError> {
    let mut items = vec![String::new()];
    let mut rest = spec.char_indices();
    let mut closing = 0;
    while let Some((at, c)) = rest.next() {
        let items_so_far = items.len();
        let item = &mut items[items_so_far - 1];
        match c {
            '\\' => match rest.next() {
                Some((_, ',')) => item.push(','),
                Some((_, other)) => item.extend(['\\', other]),
                None => item.push('\\'),
            },
            ',' if at >= closing => items.push(String::new()),
            '{' if at >= closing && braces(item.trim_start().trim_start_matches('!')) => {
                closing = spec[at..].find('}').map_or(closing, |length| at + length);
                item.push(c);
            }
            c => item.push(c),
        }
    }
    let items: Vec<String> = items.into_iter().map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        return Err(ParseError::Empty { spec: spec.into() });
    }
    Ok(items)
}

/// The items of a selector of layers.
pub(super) fn parse_items(spec: &str) -> Result<Vec<Item>, ParseError> {
    let has_braces = |start: &str| start.trim_start().starts_with("name:") || start.trim_start().starts_with("re:");
    split(spec, has_braces)?.iter().map(|text| parse_item(text)).collect()
}

fn parse_item(text: &str) -> Result<Item, ParseError> {
    let (removes, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let refuse = |reason| Err(ParseError::Removal { item: text.into(), reason });
    if removes {
        match text {
            "" => return refuse("nothing stands behind it"),
            "none" => return refuse("`none` matches nothing"),
            _ if text.starts_with('!') => return refuse("one `!` is enough"),
            _ => {}
        }
    }
    Ok(Item { removes, what: parse_what(text)? })
}

fn parse_what(text: &str) -> Result<What, ParseError> {
    const KINDS: [&str; 4] = ["op:", "name:", "re:", "tensor:"];
    if let Some(range) = text.strip_prefix('#') {
        return parse_positions(text, range.trim());
    }
    let Some((kind, argument)) = text.split_once(':') else {
        return match text.to_ascii_lowercase().as_str() {
            "all" => Ok(What::All),
            "none" => Ok(What::None),
            _ => Ok(What::Activation(text.parse()?)),
        };
    };
    let Some(kind) = KINDS.into_iter().find(|k| k.strip_suffix(':') == Some(kind)) else {
        let hint = did_you_mean("", nearest(kind, KINDS.iter().copied()));
        return Err(ParseError::UnknownKind { kind: kind.into(), item: text.into(), hint });
    };
    if argument.is_empty() {
        return Err(ParseError::Incomplete { item: text.into(), kind });
    }
    Ok(match kind {
        "op:" => What::Operator(argument.into()),
        "name:" => What::Node(NamePattern::glob(argument)?),
        "re:" => What::Node(NamePattern::regex(argument)?),
        _ => What::Tensor(argument.into()),
    })
}

fn parse_positions(item: &str, range: &str) -> Result<What, ParseError> {
    let wrong = |reason| ParseError::Positions { item: item.into(), reason };
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(0) => Err(wrong("positions count from 1")),
        Ok(n) => Ok(n),
        Err(_) => Err(wrong("its ends must be whole numbers")),
    };
    let Some((first, last)) = range.split_once("..") else {
        let only = number(range)?;
        return Ok(What::Positions { first: only, last: Some(only) });
    };
    let last = last.strip_prefix('=').unwrap_or(last);
    if first.trim().is_empty() && last.trim().is_empty() {
        return Err(wrong("it has no ends"));
    }
    let first = if first.trim().is_empty() { 1 } else { number(first)? };
    let last = if last.trim().is_empty() { None } else { Some(number(last)?) };
    if last.is_some_and(|last| last < first) {
        return Err(wrong("it ends before it begins"));
    }
    Ok(What::Positions { first, last })
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.removes { "!" } else { "" }, self.what)
    }
}

impl fmt::Display for What {
    /// As it is written in a selector, commas escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Activation(activation) => write!(f, "{activation}"),
            What::All => f.write_str("all"),
            What::None => f.write_str("none"),
            What::Operator(name) => write!(f, "op:{}", name.replace(',', "\\,")),
            What::Node(pattern) => write!(f, "{}{}", pattern.kind(), pattern.source().replace(',', "\\,")),
            What::Tensor(name) => write!(f, "tensor:{}", name.replace(',', "\\,")),
            What::Positions { first, last: Some(last) } if first == last => write!(f, "#{first}"),
            What::Positions { first, last: Some(last) } => write!(f, "#{first}..{last}"),
            What::Positions { first, last: None } => write!(f, "#{first}.."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(spec: &str) -> Vec<String> {
        parse_items(spec).unwrap().iter().map(ToString::to_string).collect()
    }

    fn refusal(spec: &str) -> String {
        parse_items(spec).unwrap_err().to_string()
    }

    #[test]
    fn items_are_read_left_to_right() {
        assert_eq!(
            written(" Swish, !name:/head*,op:Conv , tensor:x:0,#2..5,#3,#2..,#..=4,!re:fc[12]$"),
            ["silu", "!name:/head*", "op:Conv", "tensor:x:0", "#2..5", "#3", "#2..", "#1..4", "!re:fc[12]$"]
        );
    }

    #[test]
    fn commas_inside_items_are_escaped_or_stand_in_braces() {
        assert_eq!(written(r"name:/{a,b}/*,re:x{1,2}"), [r"name:/{a\,b}/*", r"re:x{1\,2}"]);
        assert_eq!(parse_items(r"tensor:a\,b,re:\d+\,x").unwrap().len(), 2);
        assert!(matches!(&parse_items(r"tensor:{a\,b").unwrap()[0].what, What::Tensor(t) if t == "{a,b"));
        assert_eq!(parse_items("name:a\\{b,relu").unwrap().len(), 2);
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (spec, words) in [
            ("relu,,elu", "empty item"),
            ("", "empty item"),
            ("nmae:/x", "did you mean `name:`"),
            ("op:", "lacks what should stand behind `op:`"),
            ("#0", "count from 1"),
            ("#..", "no ends"),
            ("#5..2", "ends before it begins"),
            ("#x", "whole numbers"),
            ("#99999999999999999999", "whole numbers"),
            ("!!relu", "one `!` is enough"),
            ("!none", "`none` matches nothing"),
            ("re:(", "no regular expression: found open group without closing ')'"),
            ("name:[", "no glob"),
        ] {
            let message = refusal(spec);
            assert!(message.contains(words), "{spec}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error_and_what_is_written_reads_back(
            spec in prop_oneof![
                any::<String>(),
                "(!?(relu|name:|re:|tensor:|op:|#|all)[a-c,{}\\\\. 0-9*!\\[\\]:/]{0,6},?){1,4}",
            ]
        ) {
            if let Ok(items) = parse_items(&spec) {
                let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse_items(&texts.join(",")).unwrap(), items);
            }
        }
    }
}
