//! Arbitrary bytes, injected models that something changed among them: strip refuses, or leaves a graph without the injection.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    properties::strip(input);
});
