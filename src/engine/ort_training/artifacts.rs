//! The files that `onnxruntime.training.artifacts.generate_artifacts` writes.

use std::path::{Path, PathBuf};

use crate::engine::error::{EngineError, EngineResult};

/// The end of the name of the file that all others lie beside, under the same prefix.
const TRAINING_MODEL: &str = "training_model.onnx";

/// Where the artifacts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// Forward and backward.
    pub training_model: PathBuf,
    /// What changes the parameters.
    pub optimizer_model: PathBuf,
    /// The forward pass alone; a run without evaluation needs none.
    pub eval_model: Option<PathBuf>,
    /// The parameters.
    pub checkpoint: PathBuf,
}

impl Artifacts {
    /// Those in a folder, or those that lie beside a file named `…training_model.onnx`. `None` for a path that is neither.
    ///
    /// # Errors
    /// When the folder has no such file or several, and when one of the others is missing.
    pub fn at(path: &Path) -> EngineResult<Option<Self>> {
        let training_model = if path.is_dir() {
            only_in(path)?
        } else if prefix_of(path).is_some() {
            path.to_owned()
        } else {
            return Ok(None);
        };
        let prefix = prefix_of(&training_model).unwrap_or_default();
        let beside = |name: &str| training_model.with_file_name(format!("{prefix}{name}"));
        let needed = |name: &str| {
            let file = beside(name);
            let problem = || {
                format!(
                    "{} is not beside it; generate_artifacts makes it{}",
                    file.file_name().unwrap_or_default().to_string_lossy(),
                    if name == "optimizer_model.onnx" { " when it is given an optimizer" } else { "" }
                )
            };
            if file.is_file() { Ok(file.clone()) } else { Err(refuse(&training_model, problem())) }
        };
        Ok(Some(Artifacts {
            optimizer_model: needed("optimizer_model.onnx")?,
            eval_model: Some(beside("eval_model.onnx")).filter(|f| f.is_file()),
            checkpoint: needed("checkpoint")?,
            training_model,
        }))
    }
}

pub(super) fn refuse(path: &Path, problem: String) -> EngineError {
    EngineError::Artifacts { path: path.to_owned(), problem }
}

/// What stands before the common end of the name of a training model.
fn prefix_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(TRAINING_MODEL).map(str::to_owned)
}

fn only_in(folder: &Path) -> EngineResult<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|e| refuse(folder, e.to_string()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| prefix_of(p).is_some()).collect();
    found.sort_unstable();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(refuse(
            folder,
            format!(
                "it holds no {TRAINING_MODEL}; the artifacts of generate_artifacts are that, optimizer_model.onnx, eval_model.onnx and \
                 checkpoint"
            ),
        )),
        [first, second, ..] => Err(refuse(
            folder,
            format!(
                "it holds several training models, {} and {} among them; name one of them",
                first.file_name().unwrap_or_default().to_string_lossy(),
                second.file_name().unwrap_or_default().to_string_lossy()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_found_in_a_folder_and_by_their_prefix_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &Path| Artifacts::at(path).map_err(|e| e.to_string());
        assert!(at(folder.path()).unwrap_err().contains("holds no training_model.onnx"));
        for name in ["training_model.onnx", "checkpoint"] {
            std::fs::write(folder.path().join(format!("a_{name}")), "").unwrap();
        }
        assert!(at(folder.path()).unwrap_err().contains("a_optimizer_model.onnx is not beside it"));
        std::fs::write(folder.path().join("a_optimizer_model.onnx"), "").unwrap();
        let found = at(folder.path()).unwrap().unwrap();
        assert_eq!(found.eval_model, None);
        assert_eq!(found.checkpoint, folder.path().join("a_checkpoint"));
        std::fs::write(folder.path().join("training_model.onnx"), "").unwrap();
        assert!(at(folder.path()).unwrap_err().contains("several training models"));
        assert_eq!(at(&folder.path().join("a_training_model.onnx")).unwrap(), Some(found));
        assert_eq!(at(&folder.path().join("model.onnx")).unwrap(), None);
    }
}
