//! From a patch to a file: external data first, then the model, so that no output without its data is left behind. And from a
//! report to a file, which is never one that the report is about.

use std::io::{self, IsTerminal};
use std::path::Path;

use clap::error::ErrorKind;
use per_inject::patch::Patch;
use per_inject::wire::{
    ExternalPolicy, How, Model, Piece, Rope, Sync, WireResult, carry, external_files, refuse_data_as_target, splice,
    write,
};

use super::failure::Failure;
use super::streams;

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

/// A page on a terminal helps nobody.
pub fn refuse_a_terminal(output: Option<&Path>) -> Result<(), Failure> {
    if output.is_none() && io::stdout().is_terminal() {
        let advice = "a page is for a browser, not for a terminal; write it to a file: -o page.html (-o - prints it all the same)";
        return Err(Failure::usage(ErrorKind::MissingRequiredArgument, advice));
    }
    Ok(())
}

/// Writes a report about `models` to `output`, or to standard output.
pub fn report(text: String, output: Option<&Path>, models: &[&Model]) -> Result<(), Failure> {
    let Some(output) = output.filter(|o| o.as_os_str() != "-") else { return streams::print(&text) };
    for model in models {
        let same = |path: &Path| path.canonicalize().is_ok_and(|p| output.canonicalize().is_ok_and(|o| o == p));
        if !model.file.path.as_os_str().is_empty() && same(&model.file.path) {
            let message = format!("{} is the model itself; choose another name for the report", output.display());
            return Err(Failure::usage(ErrorKind::ValueValidation, message));
        }
        refuse_data_as_target(&external_files(model)?, output)?;
    }
    let rope = Rope { pieces: vec![Piece::New(text.into_bytes().into())] };
    write(&rope, &per_inject::wire::ModelFile::from_bytes(Vec::new()), output, Sync::Auto)?;
    Ok(())
}
