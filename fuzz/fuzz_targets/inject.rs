//! Arbitrary bytes and options: what can be injected can be read again and taken out again, bit for bit.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    properties::inject(input);
});
