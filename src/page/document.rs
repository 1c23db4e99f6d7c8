//! The file: script, style and data in one HTML document that loads nothing.
//!
//! Its Content-Security-Policy names the digests of its own script and style: nothing else runs, whatever a model's names say.
//! The data stands in a block that browsers do not run, with every character escaped that could end it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Functions that the later files use come first; the last one starts the page.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("assets/data.js"),
    include_str!("assets/element.js"),
    include_str!("assets/theme.js"),
    include_str!("assets/rows.js"),
    include_str!("assets/list.js"),
    include_str!("assets/view.js"),
    include_str!("assets/boxes.js"),
    include_str!("assets/picture.js"),
    include_str!("assets/panel.js"),
    include_str!("assets/overview.js"),
    include_str!("assets/link.js"),
    include_str!("assets/start.js"),
    "})();\n"
);

const STYLE: &str = concat!(
    include_str!("assets/theme.css"),
    include_str!("assets/frame.css"),
    include_str!("assets/list.css"),
    include_str!("assets/picture.css"),
    include_str!("assets/panel.css"),
);

const FRAME: &str = include_str!("assets/frame.html");

/// The document around data in JSON.
pub fn document(title: &str, json: &str) -> String {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    let mut out = String::with_capacity(json.len() + json.len() / 16 + SCRIPT.len() + STYLE.len() + FRAME.len());
    out.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n"));
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str(
        "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n",
    );
    out.push_str(&format!("<title>{}</title>\n<style>{STYLE}</style>\n</head>\n", in_text(title)));
    out.push_str(FRAME);
    out.push_str("<script type=\"application/json\" id=\"data\">");
    push_json(&mut out, json);
    out.push_str(&format!("</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"));
    out
}

/// How a policy names an inline script or style.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// Text between tags.
fn in_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// JSON in which nothing can end the block that it stands in. All of these stand in strings, where an escape means the same.
fn push_json(out: &mut String, json: &str) {
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_its_block() {
        let hostile = "</script><script>alert(1)</script><!--&\u{2028}";
        let json = serde_json::to_string(hostile).unwrap();
        let page = document(hostile, &json);
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        let (block, rest) = rest.split_once("</script>").unwrap();
        assert!(!block.contains(['<', '>', '&', '\u{2028}']), "{block}");
        assert_eq!(serde_json::from_str::<String>(block).unwrap(), hostile);
        assert!(rest.starts_with("\n<script>(() => {"));
        assert!(page.contains("<title>&lt;/script&gt;&lt;script&gt;"));
    }

    #[test]
    fn the_script_can_neither_load_nor_interpret() {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http:", "import("]
        {
            let allowed = SCRIPT.replace("http://www.w3.org/2000/svg", "");
            assert!(!allowed.contains(forbidden), "{forbidden}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }
}
