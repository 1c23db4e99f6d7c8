//! `per-inject strip MODEL -o OUT`.

use per_inject::patch::Patch;
use per_inject::record::Record;
use per_inject::strip::{is_original, plan};
use per_inject::wire::{Model, ModelFile, splice};

use super::args::StripArgs;
use super::deliver::deliver;
use super::failure::Failure;
use super::{render, streams};

pub fn run(args: &StripArgs) -> Result<(), Failure> {
    let Peeled { model, patch, records } = peel(Model::open(&args.model)?, args.all)?;
    let remarks = deliver(&model, &patch, &args.output, args.external.into(), args.sync)?;
    let to_stdout = args.output.as_os_str() == "-";
    let first = &records[records.len() - 1];
    let verified = if !to_stdout && is_regular(&args.output) {
        is_original(&ModelFile::open(&args.output)?, first)?
    } else {
        let bytes = splice(&model, &patch)?.to_vec(&model.file.bytes);
        is_original(&ModelFile::from_bytes(bytes), first)?
    };
    // The process ends here: freeing a large graph piece by piece would only take time.
    std::mem::forget((model, patch));
    let text = render::stripped(&records, &args.output, verified, &remarks);
    if to_stdout {
        streams::tell(&text);
        return Ok(());
    }
    streams::print(&text)
}

/// A model, and what takes an injection out of it.
pub struct Peeled {
    /// The model, without what else was taken out.
    pub model: Model,
    /// The last edit.
    pub patch: Patch,
    /// Records of what is taken out, the last injection first; at least one.
    pub records: Vec<Record>,
}

/// Takes out the last injection, or all of them.
pub fn peel(mut model: Model, all: bool) -> Result<Peeled, Failure> {
    let mut records = Vec::new();
    loop {
        let (patch, record) = plan(&model).map_err(|error| {
            let failure = Failure::from(error);
            if records.is_empty() {
                return failure;
            }
            failure.with_advice("that is an earlier injection: without --all, strip takes out the last one alone")
        })?;
        records.push(record);
        // What is left may hold an earlier injection, which is looked for in the stripped bytes.
        let more = all && Record::all(&model).is_ok_and(|all| all.len() > 1);
        if more {
            let bytes = splice(&model, &patch)?.to_vec(&model.file.bytes);
            let path = model.file.path.clone();
            model = Model::from_bytes(bytes)?;
            model.file.path = path;
            continue;
        }
        return Ok(Peeled { model, patch, records });
    }
}

fn is_regular(path: &std::path::Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file())
}
