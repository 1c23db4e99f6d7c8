//! The README shows what the tool prints: every `$ per-inject …` with output below it is run again.

use std::fs;
use std::process::Command;

/// (command line, what the README says it prints), for each command that is followed by output.
fn shown(readme: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let mut lines = block.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ ") else { continue };
            let mut output = String::new();
            while let Some(line) = lines.next_if(|l| !l.starts_with("$ ")) {
                output.push_str(line);
                output.push('\n');
            }
            found.push((command.to_owned(), output));
        }
    }
    found
}

#[test]
fn the_readme_shows_real_output() {
    let readme = fs::read_to_string("README.md").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for (command, expected) in shown(&readme) {
        let Some(arguments) = command.strip_prefix("per-inject ") else { continue };
        let mut run = Command::new(env!("CARGO_BIN_EXE_per-inject"));
        let mut is_output = false;
        for argument in arguments.split_whitespace() {
            // What an earlier command wrote lies there, too.
            if is_output || folder.path().join(argument).exists() {
                run.arg(folder.path().join(argument));
            } else {
                run.arg(argument);
            }
            is_output = argument == "-o";
        }
        let output = run.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let printed = printed.replace(&format!("{}/", folder.path().display()), "");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(printed, expected, "the README is out of date at: {command}");
        checked += 1;
    }
    assert!(checked >= 2, "the README shows {checked} runs");
}
