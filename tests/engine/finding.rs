//! Which library is found, and what is said of one that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use per_inject::engine::find::find;
use per_inject::engine::{FoundBy, Search};
use tempfile::TempDir;

use crate::environment;

/// The library in `.venv`.
fn library() -> PathBuf {
    find(&Search { option: Some(environment(".venv")), ..Search::default() }).unwrap().path
}

fn refusal(search: &Search) -> String {
    find(search).unwrap_err().to_string()
}

fn named(path: impl Into<PathBuf>) -> Search {
    Search { option: Some(path.into()), ..Search::default() }
}

#[test]
fn a_library_is_found_by_its_name_its_folder_and_its_environment() {
    let library = library();
    let capi = library.parent().unwrap();
    for path in [&library, capi, capi.parent().unwrap(), &capi.join("../.."), &environment(".venv")] {
        let found = find(&named(path)).unwrap();
        assert_eq!(fs::canonicalize(&found.path).unwrap(), fs::canonicalize(&library).unwrap(), "{}", path.display());
        assert_eq!(found.by, FoundBy::Option);
        assert!(found.path.to_string_lossy().ends_with(&found.version), "{found}");
    }
}

#[test]
fn the_option_comes_first_then_the_variable_then_ones_own_python_then_environments_then_python_3() {
    let venv = environment(".venv");
    let python = venv.join("bin/python");
    let mut search = Search {
        option: Some(venv.clone()),
        variable: Some(venv.clone()),
        interpreter: Some(python.clone()),
        environments: vec![("VIRTUAL_ENV", "/nowhere".into()), ("CONDA_PREFIX", venv.clone())],
        python: Some(python.clone()),
        system: true,
    };
    assert_eq!(find(&search).unwrap().by, FoundBy::Option);
    search.option = None;
    assert_eq!(find(&search).unwrap().by, FoundBy::Variable);
    search.variable = None;
    assert_eq!(find(&search).unwrap().by, FoundBy::Python(python.clone()));
    // One without ONNX Runtime is passed over.
    search.interpreter = Some("no-such-python".into());
    assert_eq!(find(&search).unwrap().by, FoundBy::Environment("CONDA_PREFIX"));
    search.environments.clear();
    let found = find(&search).unwrap();
    assert_eq!(found.by, FoundBy::Python(python));
    assert!(found.to_string().ends_with(&format!(" (of {})", venv.join("bin/python").display())), "{found}");
}

#[test]
fn a_named_library_that_cannot_be_used_is_an_error_even_where_another_could() {
    let search =
        Search { variable: Some("/nowhere/lib.so".into()), environments: named_environment(), ..Search::default() };
    let message = refusal(&search);
    assert!(message.starts_with("/nowhere/lib.so, which ORT_DYLIB_PATH names, cannot be used"), "{message}");
    assert!(message.ends_with("there is no such file or folder"), "{message}");
}

fn named_environment() -> Vec<(&'static str, PathBuf)> {
    vec![("VIRTUAL_ENV", environment(".venv"))]
}

#[test]
fn a_wheel_without_a_library_says_so() {
    let words = ["holds only the module that Python loads", "onnxruntime_pybind11_state", "pip install -U onnxruntime"];
    let training = environment(".venv-ort-training");
    for search in [
        named(&training),
        Search { environments: vec![("VIRTUAL_ENV", training.clone())], ..Search::default() },
        Search { python: Some(training.join("bin/python")), ..Search::default() },
    ] {
        let message = refusal(&search);
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    }
    let module = fs::read_dir(training.join("lib")).unwrap().flatten().next().unwrap().path();
    let module = fs::read_dir(module.join("site-packages/onnxruntime/capi")).unwrap().flatten().map(|e| e.path());
    let module = module.into_iter().find(|p| p.to_string_lossy().contains("pybind11_state")).unwrap();
    let message = refusal(&named(module));
    assert!(message.contains("the module that Python loads"), "{message}");
}

#[test]
fn where_there_is_none_everything_that_was_tried_is_listed() {
    let empty = TempDir::new().unwrap();
    let search = Search {
        environments: vec![("VIRTUAL_ENV", empty.path().into()), ("CONDA_PREFIX", "/nowhere".into())],
        python: Some("no-such-python".into()),
        // The loader knows what other tests of this process have loaded.
        ..Search::default()
    };
    let message = refusal(&search);
    for words in [
        format!("VIRTUAL_ENV={}: it holds no ONNX Runtime", empty.path().display()),
        "CONDA_PREFIX=/nowhere: there is no such file or folder".into(),
        "no-such-python: it is not on the PATH".into(),
        "pip install onnxruntime".into(),
        "--ort PATH".into(),
    ] {
        assert!(message.contains(&words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn files_that_are_no_library_are_refused() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(library()).unwrap();
    for (path, words) in [
        (file("empty.so", b""), "no shared library"),
        (file("text.so", b"#!/bin/sh\n"), "no shared library"),
        (file("head.so", &whole[..200]), "cut off"),
        (file("half.so", &whole[..whole.len() / 2]), "cut off"),
        (file("zero.so", &[b"\x7fELF\x02\x01\x01".as_slice(), &[0; 100]].concat()), "cannot be loaded"),
        (file("small.so", &[b"\x7fELF\x01\x01\x01".as_slice(), &[0; 100]].concat()), "cannot be loaded"),
        ("/dev/null".into(), "no regular file"),
        (folder.path().into(), "holds no ONNX Runtime"),
    ] {
        let message = refusal(&named(&path));
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

/// A shared library of these C lines; a C compiler is part of what Rust needs on Linux.
fn compiled(folder: &Path, name: &str, lines: &str) -> PathBuf {
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&source, lines).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(made.expect("cc, the C compiler, must be there").success());
    library
}

fn of_version(version: &str) -> String {
    format!(
        "static const void *api(unsigned n) {{ return 0; }} static const char *version(void) {{ return {version}; }}\n\
         static const struct {{ const void *(*a)(unsigned); const char *(*v)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}"
    )
}

#[test]
fn libraries_of_other_versions_and_of_other_programs_are_refused() {
    let folder = TempDir::new().unwrap();
    for (name, lines, words) in [
        ("other", "int answer(void) { return 42; }", "no OrtGetApiBase"),
        ("old", &of_version("\"1.16.3\""), "it is version 1.16.3, and the oldest that can be used is 1.17"),
        ("new", &of_version("\"2.0.0\""), "calls itself version \"2.0.0\""),
        ("odd", &of_version("\"\\xff\\xfe\""), "calls itself version"),
        ("empty", &of_version("\"1.30.0\""), "lacks the API of 1.17"),
        ("silent", &of_version("0"), "does not tell its version"),
        ("null", "const void *OrtGetApiBase(void) { return 0; }", "gives nothing"),
        (
            "needy",
            "int gone(void); int call(void) { return gone(); } int (*now)(void) = gone;",
            "undefined symbol: gone",
        ),
    ] {
        let message = refusal(&named(compiled(folder.path(), name, lines)));
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn an_unusable_library_that_merely_lies_there_is_passed_over() {
    let folder = TempDir::new().unwrap();
    let old = compiled(folder.path(), "old", &of_version("\"1.16.3\""));
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::rename(old, folder.path().join("lib/libonnxruntime.so.1.16.3")).unwrap();
    let mut search = Search { environments: vec![("CONDA_PREFIX", folder.path().into())], ..Search::default() };
    let message = refusal(&search);
    assert!(message.contains("lib/libonnxruntime.so.1.16.3: it is version 1.16.3"), "{message}");
    search.python = Some(environment(".venv").join("bin/python"));
    assert!(matches!(find(&search).unwrap().by, FoundBy::Python(_)));
}
