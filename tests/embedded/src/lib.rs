//! The command line inside a process that has an ONNX Runtime already.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::process::ExitCode;
use std::ptr;

/// What `SessionOptions.register_custom_ops_library` of Python calls: takes over the runtime that it lies in. A runtime that cannot be used
/// is reported by the command that wants one.
///
/// # Safety
/// `base` is null or the table that ONNX Runtime passes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RegisterCustomOps(
    _options: *mut ort::sys::OrtSessionOptions,
    base: *const ort::sys::OrtApiBase,
) -> *mut ort::sys::OrtStatus {
    // SAFETY: the runtime says so, which stays loaded as long as the process.
    if let Err(error) = unsafe { per_inject::engine::adopt(base) } {
        eprintln!("{error}");
    }
    ptr::null_mut()
}

/// Runs `per-inject` with these arguments, the first of which is its name; 0 where it succeeded.
///
/// # Safety
/// `arguments` points to `count` strings that end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn per_inject_run(count: usize, arguments: *const *const c_char) -> c_int {
    // SAFETY: the caller says so.
    let arguments: Vec<OsString> = (0..count)
        .map(|i| unsafe { CStr::from_ptr(*arguments.add(i)) }.to_string_lossy().into_owned().into())
        .collect();
    c_int::from(per_inject::cli::run(&arguments) != ExitCode::SUCCESS)
}
