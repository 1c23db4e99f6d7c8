//! `per-inject inspect MODEL`.

use per_inject::inspect::inspect;
use per_inject::wire::Model;

use super::args::InspectArgs;
use super::failure::Failure;
use super::render;

pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let model = Model::open(&args.model)?;
    let found = inspect(&model, args.wrt.as_deref(), args.freeze.as_deref())?;
    if args.json {
        return render::json(&found);
    }
    render::print(&render::inspection(&found, args.initializers))
}
