//! Arbitrary bytes: decoded, made a graph, inspected. No panic, no hang.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::parse(input));
