//! What an injection writes into the model's metadata about itself, so that it can be recognised and taken out again.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use crate::naming;
pub use crate::naming::{KEY, ROOT};
use crate::patch::{Place, Width};
use crate::wire::Model;

/// Metadata key of a step graph's names, by what they are for: [`autodiff::Report`](crate::autodiff::Report) as JSON.
pub const STEP_KEY: &str = "per_inject.step";

/// The first argument in the record of a differentiation.
pub const DIFFERENTIATE: &str = "differentiate";

/// Version of the record's layout.
pub const VERSION: u32 = 1;

/// One injection. Kept as JSON under [`KEY`] in `metadata_props`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this record.
    pub record: u32,
    /// Version of the tool that wrote it.
    pub version: String,
    /// What was asked for, as options of the command line.
    pub arguments: Vec<String>,
    /// Every added name starts so, but for those in `outputs`.
    pub root: String,
    /// What the file was before.
    pub original: Original,
    /// The value that was renamed, and to what; `None` where no loss was touched.
    pub task_loss: Option<Renamed>,
    /// Gradients whose readers read a sum instead: `from` is the gradient's name, empty where an input was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gradients: Vec<Renamed>,
    /// Training steps that it went into instead of the main graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<RecordedStep>,
    /// Added graph outputs whose names do not start with `root`.
    pub outputs: Vec<String>,
    /// How many parts were added: all of them must be there to be taken out.
    pub added: Added,
    /// The regularised layers.
    pub layers: Vec<RecordedLayer>,
    /// Parts that others took the place of, so that strip can put them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replaced>,
    /// Initializers of bodies that stand in the main graph now, under names of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hoisted: Vec<Hoisted>,
    /// Activations of the original that are spelt out now, so that selectors still find them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activations: Vec<RecordedActivation>,
    /// Widths of length prefixes that were padded up to what readers take; nearly always none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widths: Vec<Width>,
}

/// The file before the injection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Digest of every byte but the elements of initializers.
    pub structure: String,
    /// Size in bytes.
    pub size: u64,
}

/// A renamed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// Its name in the original.
    pub from: String,
    /// Its name now.
    pub to: String,
}

/// Numbers of added parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Nodes.
    pub nodes: usize,
    /// Initializers.
    pub initializers: usize,
    /// Graph inputs.
    pub inputs: usize,
    /// Graph outputs.
    pub outputs: usize,
}

/// A part of the original that others took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// What stands in its place.
    pub by: Standin,
    /// Its record as it stood in the file, in Base64.
    pub record: String,
}

/// An initializer of a body that was moved to the main graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hoisted {
    /// Its name there.
    pub name: String,
    /// What the node stands under whose body it is of, as in [`Standin::Nodes`].
    pub node: String,
    /// Where it stands in the original: field numbers and positions, from the main graph's node inwards.
    pub place: Place,
}

/// An activation whose nodes others took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedActivation {
    /// Which one, in the selector's words.
    pub activation: String,
    /// Its output, the post-activation.
    pub tensor: String,
    /// Its input, the pre-activation; `None` for recurrent layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What its other nodes make: no activations of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
}

/// What stands in the place of a part, in words that outlive another program's writing the file anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standin {
    /// The nodes `<root>lower/<this>/…`, without a further slash.
    Nodes(String),
    /// The graph inputs that are no part of the injection; the record holds those of all original inputs.
    Inputs,
    /// The graph output at this position.
    Output(usize),
    /// The import of this operator set.
    OpsetImport(String),
    /// The IR version.
    IrVersion,
}

impl Replaced {
    /// Remembers the bytes of a record.
    pub fn new(by: Standin, record: &[u8]) -> Self {
        Replaced { by, record: BASE64_STANDARD.encode(record) }
    }

    /// The record's bytes; `None` where the text is no Base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.record).ok()
    }
}

/// Under the root, names of what takes the place of nodes start so.
pub const LOWERED: &str = "lower/";

/// An injection into the algorithm graph of one `training_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// Which `training_info`.
    pub entry: usize,
    /// The loss there, and what it is called now.
    pub task_loss: Renamed,
    /// Added outputs of that graph whose names do not start with the root.
    pub outputs: Vec<String>,
    /// How many parts were added to that graph.
    pub added: Added,
}

/// One regularised layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedLayer {
    /// The part of its nodes' names after the root.
    pub name: String,
    /// The tapped value.
    pub tensor: String,
    /// `sampled` or `exact`.
    pub estimator: String,
    /// `flatten`, `channel` or `last`.
    pub view: String,
    /// λ.
    pub coef: f64,
}

impl Record {
    /// Whether it was a differentiation: what was added is a backward pass.
    pub fn is_step(&self) -> bool {
        self.arguments.first().is_some_and(|first| first == DIFFERENTIATE)
    }

    /// All records of a model with the positions of their metadata entries, first injection first. An entry under our key that is no
    /// record of a version that we know is an error, with what is wrong.
    pub fn all(model: &Model) -> Result<Vec<(usize, Record)>, String> {
        let mut found = Vec::new();
        for (i, entry) in model.metadata.iter().enumerate() {
            let Some(number) = naming::recorded(entry.key()) else { continue };
            let record: Record = serde_json::from_str(entry.value())
                .map_err(|e| format!("the metadata entry {:?} is no record of an injection: {e}", entry.key()))?;
            if record.record != VERSION {
                let (found, key) = (record.record, entry.key());
                return Err(format!(
                    "the metadata entry {key:?} is a record of version {found}, and this tool reads {VERSION}; update it"
                ));
            }
            found.push((number, i, record));
        }
        found.sort_by_key(|(number, ..)| *number);
        Ok(found.into_iter().map(|(_, i, record)| (i, record)).collect())
    }
}
