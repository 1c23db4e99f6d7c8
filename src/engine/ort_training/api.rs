//! The C training API of ONNX Runtime, as far as it is driven here, behind a type that cannot be misused.
//!
//! The binding has one of its own, whose steps panic: what a step gives, it takes for values without an allocator.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtAllocator, OrtStatusPtr, OrtTrainingApi, OrtTrainingSession, OrtValue};
use ort::training::Checkpoint;
use ort::value::{DynTensor, DynValue};
use ort::{AsPointer, Error, Result};

use super::artifacts::Artifacts;

/// The API of the runtime that is loaded; an error where it was built without.
pub fn api() -> Result<&'static OrtTrainingApi> {
    ort::training::training_api()
}

/// A training session and the state that it trains.
pub struct TrainingSession {
    api: &'static OrtTrainingApi,
    session: NonNull<OrtTrainingSession>,
    /// Parameters, gradients and the optimiser's state; the session changes them in place.
    state: Checkpoint,
    has_evaluation: bool,
    /// Inputs and outputs that a step takes and gives, in that order.
    pub train: Names,
    /// The same of an evaluation; empty where there is none.
    pub evaluate: Names,
    allocator: Allocator,
    // What the session was made with and may refer to.
    _options: SessionBuilder,
    _environment: Environment,
}

/// Names in the order of a model.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

type Count = unsafe extern "system" fn(*const OrtTrainingSession, *mut usize) -> OrtStatusPtr;
type Name =
    unsafe extern "system" fn(*const OrtTrainingSession, usize, *mut OrtAllocator, *mut *const c_char) -> OrtStatusPtr;

impl TrainingSession {
    /// Makes a session of artifacts, which starts from `state`.
    pub fn new(
        environment: &Environment,
        options: SessionBuilder,
        artifacts: &Artifacts,
        state: Checkpoint,
    ) -> Result<Self> {
        let api = api()?;
        let [training, optimizer] = [&artifacts.training_model, &artifacts.optimizer_model].map(|p| native(p));
        let evaluation = artifacts.eval_model.as_deref().map(native);
        let mut session = ptr::null_mut();
        // SAFETY: the environment, the options and the state are alive, and kept as long as the session below. The paths end with 0; that of
        // the model that evaluates may be null.
        unsafe {
            Error::result_from_status((api.CreateTrainingSession)(
                environment.ptr(),
                options.ptr(),
                state.ptr().cast_mut(),
                training.as_ptr().cast(),
                evaluation.as_ref().map_or(ptr::null(), |path| path.as_ptr().cast()),
                optimizer.as_ptr().cast(),
                &raw mut session,
            ))
        }?;
        let session = NonNull::new(session).ok_or_else(|| Error::new("it makes no session and says nothing of it"))?;
        let mut made = TrainingSession {
            api,
            session,
            state,
            has_evaluation: evaluation.is_some(),
            train: Names::default(),
            evaluate: Names::default(),
            allocator: Allocator::default(),
            _options: options,
            _environment: environment.clone(),
        };
        made.train = Names {
            inputs: made
                .names(api.TrainingSessionGetTrainingModelInputCount, api.TrainingSessionGetTrainingModelInputName)?,
            outputs: made
                .names(api.TrainingSessionGetTrainingModelOutputCount, api.TrainingSessionGetTrainingModelOutputName)?,
        };
        if made.has_evaluation {
            made.evaluate = Names {
                inputs: made
                    .names(api.TrainingSessionGetEvalModelInputCount, api.TrainingSessionGetEvalModelInputName)?,
                outputs: made
                    .names(api.TrainingSessionGetEvalModelOutputCount, api.TrainingSessionGetEvalModelOutputName)?,
            };
        }
        Ok(made)
    }

    fn names(&self, count: Count, name: Name) -> Result<Vec<String>> {
        let mut number = 0;
        // SAFETY: the session is alive.
        unsafe { Error::result_from_status(count(self.session.as_ptr(), &raw mut number)) }?;
        let each = |i| {
            let mut text: *const c_char = ptr::null();
            // SAFETY: the session is alive, `i` is below the count, and the allocator outlives the text, which is freed below.
            unsafe {
                Error::result_from_status(name(
                    self.session.as_ptr(),
                    i,
                    self.allocator.ptr().cast_mut(),
                    &raw mut text,
                ))?;
                if text.is_null() {
                    return Err(Error::new("a name is missing"));
                }
                let owned = std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned();
                self.allocator.free(text.cast_mut());
                Ok(owned)
            }
        };
        (0..number).map(each).collect()
    }

    /// Forward and backward. Gradients begin at zero again where [`reset_gradients`](Self::reset_gradients) was called since the last one.
    /// `inputs` are in the order of [`Names`], and so is what it gives.
    pub fn train_step(&mut self, inputs: &[&DynTensor]) -> Result<Vec<DynValue>> {
        self.run(self.api.TrainStep, inputs, self.train.outputs.len())
    }

    /// The model that evaluates.
    pub fn eval_step(&mut self, inputs: &[&DynTensor]) -> Result<Vec<DynValue>> {
        if !self.has_evaluation {
            return Err(Error::new("there is no eval_model.onnx"));
        }
        self.run(self.api.EvalStep, inputs, self.evaluate.outputs.len())
    }

    fn run(
        &self,
        call: unsafe extern "system" fn(
            *mut OrtTrainingSession,
            *const ort::sys::OrtRunOptions,
            usize,
            *const *const OrtValue,
            usize,
            *mut *mut OrtValue,
        ) -> OrtStatusPtr,
        inputs: &[&DynTensor],
        count: usize,
    ) -> Result<Vec<DynValue>> {
        let inputs: Vec<*const OrtValue> = inputs.iter().map(|value| value.ptr()).collect();
        let mut outputs: Vec<*mut OrtValue> = vec![ptr::null_mut(); count];
        // SAFETY: the session and the inputs are alive; null run options are the default ones; outputs that are null are made by the call.
        let done = unsafe {
            Error::result_from_status(call(
                self.session.as_ptr(),
                ptr::null(),
                inputs.len(),
                inputs.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr(),
            ))
        };
        // SAFETY: what the call made is ours from here on, and no other pointer to it is left.
        let made = outputs
            .into_iter()
            .map(|value| NonNull::new(value).map(|v| unsafe { DynValue::from_ptr(v, Some(&self.allocator)) }));
        let made: Vec<Option<DynValue>> = made.collect();
        done?;
        made.into_iter().map(|value| value.ok_or_else(|| Error::new("an output is missing"))).collect()
    }

    /// Lets the next step begin with gradients of zero.
    pub fn reset_gradients(&mut self) -> Result<()> {
        // SAFETY: the session is alive.
        unsafe { Error::result_from_status((self.api.LazyResetGrad)(self.session.as_ptr())) }
    }

    /// Changes the parameters by the gradients of the last step.
    pub fn optimizer_step(&mut self, rate: f32) -> Result<()> {
        // SAFETY: the session is alive; null run options are the default ones.
        unsafe {
            Error::result_from_status((self.api.SetLearningRate)(self.session.as_ptr(), rate))?;
            Error::result_from_status((self.api.OptimizerStep)(self.session.as_ptr(), ptr::null()))
        }
    }

    /// A copy of a parameter in the host's memory.
    pub fn parameter(&self, name: &str) -> Result<DynTensor> {
        self.state.get_parameter(name, &self.allocator)
    }

    /// Writes the state, that of the optimiser included.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.state.save(path, true)
    }

    /// Writes the model that evaluates with the parameters as they are, cut down to what `outputs` need.
    pub fn export(&self, path: &Path, outputs: &[String]) -> Result<()> {
        let named: std::result::Result<Vec<CString>, _> = outputs.iter().map(|o| CString::new(o.as_str())).collect();
        let named = named.map_err(|_| Error::new("the name of an output holds a zero byte"))?;
        let names: Vec<*const c_char> = named.iter().map(|name| name.as_ptr()).collect();
        let path = native(path);
        // SAFETY: the session is alive, the path and the names end with 0.
        unsafe {
            Error::result_from_status((self.api.ExportModelForInferencing)(
                self.session.as_ptr(),
                path.as_ptr().cast(),
                names.len(),
                names.as_ptr(),
            ))
        }
    }
}

impl Drop for TrainingSession {
    fn drop(&mut self) {
        // SAFETY: nothing else releases it, and nothing uses it afterwards.
        unsafe { (self.api.ReleaseTrainingSession)(self.session.as_ptr()) }
    }
}

/// A path as the API takes it.
#[cfg(windows)]
fn native(path: &Path) -> Vec<u16> {
    use std::os::windows::ffi::OsStrExt;
    path.as_os_str().encode_wide().chain([0]).collect()
}

/// A path as the API takes it.
#[cfg(not(windows))]
fn native(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().iter().copied().chain([0]).collect()
}
