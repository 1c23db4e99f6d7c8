//! From a patch to a file: external data first, then the model, so that no output without its data is left behind.

use std::path::Path;

use per_inject::patch::Patch;
use per_inject::wire::{
    ExternalPolicy, How, Model, Sync, WireResult, carry, external_files, refuse_data_as_target, splice, write,
};

/// Writes `patch` applied to `model` to `output`; returns remarks for the report.
pub fn deliver(
    model: &Model,
    patch: &Patch,
    output: &Path,
    policy: ExternalPolicy,
    sync: bool,
) -> WireResult<Vec<String>> {
    let rope = splice(model, patch)?;
    let files = external_files(model)?;
    let mut remarks = Vec::new();
    if output.as_os_str() != "-" {
        refuse_data_as_target(&files, output)?;
        let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for carried in carry(&files, model.file.folder(), folder, policy)? {
            let verb = match carried.how {
                How::Kept => continue,
                How::Linked => {
                    "linked (a hard link: onnx 1.23 refuses to load data with two names; --external copy makes a copy)"
                }
                How::Copied => "copied",
                How::AlreadyThere => "was there already",
            };
            remarks.push(format!("external data {:?}: {verb}", carried.location));
        }
    }
    for problem in files.iter().filter_map(per_inject::wire::ExternalFile::problem) {
        remarks.push(problem.to_string());
    }
    write(&rope, &model.file, output, if sync { Sync::Always } else { Sync::Auto })?;
    Ok(remarks)
}
