//! Text from a model, made so that a page can show it: short enough to read, with everything invisible spelt out.

/// Longest name that is shown whole; its beginning and end are shown of a longer one.
pub const LONGEST_NAME: usize = 200;

/// Longest value of an attribute.
pub const LONGEST_VALUE: usize = 400;

/// Longest documentation.
pub const LONGEST_DOC: usize = 4000;

/// A name: control characters, line ends and characters that turn text round are shown as escapes.
pub fn name(text: &str) -> String {
    shortened(text, LONGEST_NAME, false)
}

/// What an attribute holds.
pub fn value(text: &str) -> String {
    shortened(text, LONGEST_VALUE, false)
}

/// Documentation: lines may end, else as names.
pub fn doc(text: &str) -> String {
    shortened(text, LONGEST_DOC, true)
}

fn shortened(text: &str, longest: usize, lines: bool) -> String {
    // The number of bytes bounds that of characters.
    let length = if text.len() <= longest { 0 } else { text.chars().count() };
    let mut out = String::with_capacity(text.len().min(4 * longest));
    if length <= longest {
        text.chars().for_each(|c| push(&mut out, c, lines));
        return out;
    }
    let (head, tail) = (longest * 2 / 3, longest / 3);
    text.chars().take(head).for_each(|c| push(&mut out, c, lines));
    out.push_str(&format!("…({length} characters)…"));
    let last = text.char_indices().rev().nth(tail.saturating_sub(1)).map_or(0, |(i, _)| i);
    text[last..].chars().for_each(|c| push(&mut out, c, lines));
    out
}

fn push(out: &mut String, c: char, lines: bool) {
    match c {
        '\n' if lines => out.push(c),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if is_plain(c) => out.push(c),
        c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
    }
}

/// Neither a control character nor one that is invisible or changes the direction of text.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelt_out() {
        assert_eq!(name("a\0b\u{202e}c\n\u{feff}é<b>"), "a\\u{0}b\\u{202e}c\\n\\u{feff}é<b>");
        assert_eq!(doc("two\nlines\u{2028}"), "two\nlines\\u{2028}");
    }

    #[test]
    fn long_names_keep_both_ends_and_say_how_long_they_are() {
        let shown = name(&format!("begin{}end", "é".repeat(1 << 20)));
        assert!(
            shown.starts_with("beginé") && shown.ends_with("éend") && shown.contains("(1048584 characters)"),
            "{shown}"
        );
        assert!(shown.chars().count() < LONGEST_NAME + 30);
        assert_eq!(name(&"é".repeat(LONGEST_NAME)).chars().count(), LONGEST_NAME);
    }
}
