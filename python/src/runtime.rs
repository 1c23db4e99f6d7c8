//! The ONNX Runtime that Python has loaded, for the training API: no wheel of onnxruntime-training has a library that can be loaded from
//! elsewhere.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use per_inject::engine;
use pyo3::prelude::*;

/// Why the runtime could not be taken over, where it could not.
static PROBLEM: Mutex<Option<String>> = Mutex::new(None);

/// Has onnxruntime hand its C API to this module, as it does to libraries of custom operators.
pub fn hand_over() -> Result<(), String> {
    let register = |py: Python<'_>| -> PyResult<()> {
        let here = py.import("per_inject._native")?.getattr("__file__")?;
        let options = py.import("onnxruntime")?.getattr("SessionOptions")?.call0()?;
        options.call_method1("register_custom_ops_library", (here,))?;
        Ok(())
    };
    Python::attach(register).map_err(|error| error.to_string())?;
    PROBLEM.lock().ok().and_then(|mut problem| problem.take()).map_or(Ok(()), Err)
}

/// What ONNX Runtime calls in a library of custom operators. This one has none.
///
/// # Safety
/// `base` is null or points to the OrtApiBase of a runtime that stays loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RegisterCustomOps(_options: *mut c_void, base: *const c_void) -> *mut c_void {
    // SAFETY: the caller says so, and Python unloads no extension module.
    if let Err(error) = unsafe { engine::adopt(base) }
        && let Ok(mut problem) = PROBLEM.lock()
    {
        *problem = Some(error.to_string());
    }
    ptr::null_mut()
}
