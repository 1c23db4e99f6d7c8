//! Text for people: what a model holds is made harmless, long sentences are wrapped.

/// Widest line of a report, in characters; tables of long names are wider.
pub const COLUMNS: usize = 100;

/// Longest word that a message shows whole. A name can be as long as the file.
const LONGEST_WORD: usize = 160;

/// Longest message.
const LONGEST_MESSAGE: usize = 4000;

/// A name from the model without control characters, so that none can move the cursor.
pub fn visible(name: &str) -> String {
    shortened(name.chars().map(harmless), LONGEST_WORD)
}

/// A name from the model in so many characters at most.
pub fn short(name: &str, longest: usize) -> String {
    let name: String = name.chars().take(4 * longest + 1).map(harmless).collect::<String>();
    let length = name.chars().count();
    if length <= longest {
        return name;
    }
    let (head, tail) = (longest / 2, longest - longest / 2 - 1);
    name.chars().take(head).chain(['…']).chain(name.chars().skip(length - tail)).collect()
}

/// The beginning of a line that is too long for [`COLUMNS`].
pub fn cut(line: &str) -> String {
    let is_long = line.chars().nth(COLUMNS).is_some();
    if is_long { line.chars().take(COLUMNS - 1).chain(['…']).collect() } else { line.to_owned() }
}

/// A sentence that may hold names from the model: harmless, with overlong words shortened so that the rest can be read.
pub fn legible(sentence: &str) -> String {
    let words: Vec<String> = sentence.split(' ').map(visible).collect();
    shortened(words.join(" ").chars(), LONGEST_MESSAGE)
}

/// The same for JSON: what is harmful is written as `\u` escapes, which mean the same there.
pub fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_harmless(c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// A sentence on lines of at most [`COLUMNS`] characters where its words allow it; all but the first are indented.
pub fn wrapped(sentence: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            out.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// The beginning and the end of what is too long.
fn shortened(text: impl Iterator<Item = char> + Clone, longest: usize) -> String {
    let length = text.clone().count();
    if length <= longest {
        return text.collect();
    }
    let (head, tail) = (longest / 2, longest / 2);
    let omitted = length - head - tail;
    text.clone().take(head).chain(format!("…({omitted} more)…").chars()).chain(text.skip(length - tail)).collect()
}

fn harmless(c: char) -> char {
    if is_harmless(c) { c } else { '\u{fffd}' }
}

/// Neither a control character nor one that is invisible or changes the direction of text.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_text_around_is_replaced() {
        assert_eq!(visible("a\x1b[31m\u{202e}b\u{9b}\n"), "a\u{fffd}[31m\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(escaped("{\n\"a\u{9b}\u{202e}é\"}"), "{\n\"a\\u009b\\u202eé\"}");
    }

    #[test]
    fn a_long_name_leaves_the_sentence_readable() {
        let sentence = legible(&format!("tensor {:?} is defined twice", "n".repeat(1 << 20)));
        assert!(sentence.starts_with("tensor \"nnn") && sentence.ends_with("n\" is defined twice"), "{sentence}");
        assert!(sentence.len() < 250);
        assert!(legible(&"a b ".repeat(1 << 20)).chars().count() < LONGEST_MESSAGE + 40);
    }

    #[test]
    fn lines_end_before_the_last_column() {
        let text = wrapped(&"seven77 ".repeat(50));
        assert!(text.lines().all(|l| l.trim_end().chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|l| l.starts_with("  s")));
    }
}
