//! The ONNX Runtime of a process that has one already: Python's extension module, which lets nobody in from outside.
//!
//! `SessionOptions.register_custom_ops_library(PATH)` of Python loads any shared library and hands its `RegisterCustomOps` the table of the
//! runtime's C API. From there on this process has a runtime, with the training API where the wheel is onnxruntime-training.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::error::{EngineError, EngineResult};
use super::find::{Found, FoundBy};
use super::library::OLDEST;
use super::onnx_runtime::guarded;

/// The one that was handed over.
static ADOPTED: Mutex<Option<Found>> = Mutex::new(None);

/// The runtime that this process was handed, if any.
pub(super) fn adopted() -> Option<Found> {
    ADOPTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes over the runtime of this process, for [`Runtime::open`](super::Runtime::open). A second time nothing happens.
///
/// # Safety
/// `base` is null, or the table that ONNX Runtime passes to `RegisterCustomOps`; the library that it lies in stays loaded.
///
/// # Errors
/// When it is older than what can be used, or another runtime runs already.
pub unsafe fn adopt(base: *const ort::sys::OrtApiBase) -> EngineResult<()> {
    let mut adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if adopted.is_some() {
        return Ok(());
    }
    let path = file_at(base.addr()).unwrap_or_else(|| "the runtime of this process".into());
    let bad = |problem: String| EngineError::BadLibrary { path: path.clone(), origin: "this process", problem };
    // SAFETY: the caller says so.
    let Some(base) = (unsafe { base.as_ref() }) else { return Err(bad("it hands over nothing".into())) };
    // SAFETY: the two functions of the table never change, and the string is static.
    let version = unsafe {
        let version = (base.GetVersionString)();
        if version.is_null() { String::new() } else { CStr::from_ptr(version).to_string_lossy().into_owned() }
    };
    let minor = version.strip_prefix("1.").and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < OLDEST) {
        return Err(bad(format!("it is version {version:?}, and the oldest that can be used is 1.{OLDEST}")));
    }
    // SAFETY: as above; the table that it gives is static, and that of a later version begins with those of all earlier ones.
    let api = unsafe { (base.GetApi)(OLDEST).as_ref().map(|api| std::ptr::read(api)) };
    let api = api.ok_or_else(|| bad(format!("it lacks the API of 1.{OLDEST}")))?;
    let is_first = guarded(|| Ok(ort::set_api(api))).map_err(bad)?;
    if !is_first {
        return Err(bad("another ONNX Runtime runs in this process already".into()));
    }
    *adopted = Some(Found { path, version, by: FoundBy::Process });
    Ok(())
}

/// The file that is mapped at an address, where the system tells.
fn file_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        // "7f…-7f… r-xp 00000000 08:01 1234    /path/of the/file"
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let holds = (number(start)?..number(end)?).contains(&address);
        let path = rest.find('/').map(|at| PathBuf::from(&rest[at..]));
        path.filter(|_| holds)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_at_an_address_is_found() {
        let here = file_at((file_at as *const ()).addr()).unwrap();
        assert_eq!(here, std::fs::read_link("/proc/self/exe").unwrap());
        assert_eq!(file_at(0), None);
    }
}
