//! The nodes of one layer, written once for all layers that differ in nothing but names.
//!
//! A graph of 100,000 nodes has tens of thousands of activations and a handful of shapes among them. What a regulariser emits depends on
//! the shape; the layer's name, the tapped value and the seed only fill holes in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::onnx::{NodeProto, TensorProto, ValueInfoProto};
use crate::patch::Encoded;
use crate::regularizer::Layer;
use crate::regularizer::emit::{Emission, Emitter, Tensor};
use crate::wire::fields::{attribute as attribute_field, graph as graph_field, node as node_field};
use crate::wire::{Content, Make, WireResult, put_varint, records, varint_width};

/// Stand for the layer's name, the tapped value and its gradient. No name of the tool's own holds control characters.
const LAYER: &str = "\u{1}";
const TAPPED: &str = "\u{2}";
const GRADIENT: &str = "\u{3}";

/// A layer that stands for all of its type, view and reduction.
pub fn stand_in(layer: &Layer) -> Layer {
    let h = Tensor { name: TAPPED.into(), ty: layer.h.ty.clone() };
    Layer { h, ..layer.clone() }
}

/// The same for the gradient of its tapped value.
pub fn stand_in_gradient(gradient: &Tensor) -> Tensor {
    Tensor { name: GRADIENT.into(), ty: gradient.ty.clone() }
}

/// The name of the attribute that holds a layer's seed.
const SEED: &str = "seed";

/// Nodes that draw random numbers for several layers, with the declared types of these, by name.
pub type Draws = BTreeMap<String, (NodeProto, Option<ValueInfoProto>)>;

/// What a regulariser writes for a layer, with holes for the names and the seed.
pub struct Template {
    nodes: Arc<[Skeleton]>,
    value_info: Arc<[Skeleton]>,
    /// Constants shared by all layers, by name.
    pub constants: BTreeMap<String, TensorProto>,
    /// Draws shared by layers, by name.
    pub draws: Draws,
    /// Its names without the prefix.
    emitted: Emitted,
}

/// What is read outside of a layer's own nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// The value of the penalty, a scalar; in the gradient form only where something asks for it.
    pub per: Option<Tensor>,
    /// In the gradient form, what the readers of the layer's gradient shall read.
    pub sum: Option<String>,
}

impl Emitted {
    /// With other names.
    fn renamed(&self, name: impl Fn(&str) -> String) -> Self {
        let per = self.per.as_ref().map(|per| Tensor { name: name(&per.name), ty: per.ty.clone() });
        Emitted { per, sum: self.sum.as_deref().map(name) }
    }
}

/// What fills the holes.
pub struct Filling {
    /// The start of every name of the layer's own, `/` included.
    pub prefix: String,
    /// The tapped value.
    pub tapped: String,
    /// Its gradient; empty where there is none.
    pub gradient: String,
    /// The seed of RandomNormal, if the template has one.
    pub seed: Option<u32>,
}

/// The records of one layer.
pub struct Filled {
    /// Its nodes.
    pub nodes: Encoded<NodeProto, { graph_field::NODE }>,
    /// Declared types of what they make.
    pub value_info: Encoded<ValueInfoProto, { graph_field::VALUE_INFO }>,
    /// What is read outside.
    pub emitted: Emitted,
}

impl Template {
    /// What `write` writes for a [`stand_in`]. `declare` says whether the penalty itself is declared among the value_infos.
    pub fn of(opset: i64, root: &str, declare: bool, write: impl FnOnce(&mut Emitter) -> Emitted) -> WireResult<Self> {
        let mut emitter = Emitter::new(opset, root, LAYER);
        let emitted = write(&mut emitter);
        let Emission { nodes, constants, draws, mut value_info } = emitter.finish();
        value_info.retain(|v| declare || emitted.per.as_ref().is_none_or(|per| v.name() != per.name));
        let prefix = format!("{root}{LAYER}/");
        Ok(Template {
            nodes: skeletons(&nodes, &prefix)?,
            value_info: skeletons(&value_info, &prefix)?,
            constants,
            draws,
            emitted: emitted.renamed(|name| name.strip_prefix(&prefix).unwrap_or(name).to_owned()),
        })
    }

    /// The layer with these names.
    pub fn fill(&self, filling: Filling) -> Filled {
        let filling = Arc::new(filling);
        Filled {
            nodes: fill(&self.nodes, &filling),
            value_info: fill(&self.value_info, &filling),
            emitted: self.emitted.renamed(|name| format!("{}{name}", filling.prefix)),
        }
    }
}

fn skeletons<M: Message>(messages: &[M], prefix: &str) -> WireResult<Arc<[Skeleton]>> {
    messages.iter().map(|m| Skeleton::of(&m.encode_to_vec(), prefix)).collect()
}

fn fill<M, const FIELD: u32>(skeletons: &Arc<[Skeleton]>, filling: &Arc<Filling>) -> Encoded<M, FIELD> {
    let records = FilledRecords { field: FIELD, skeletons: Arc::clone(skeletons), filling: Arc::clone(filling) };
    Encoded::from_records(Content::made(records), skeletons.len())
}

/// The records of one layer, made when they are written: tens of thousands of layers differ in their fillings alone.
struct FilledRecords {
    field: u32,
    skeletons: Arc<[Skeleton]>,
    filling: Arc<Filling>,
}

impl FilledRecords {
    fn tag(&self) -> u64 {
        u64::from(self.field) << 3 | 2
    }
}

impl Make for FilledRecords {
    fn length(&self) -> usize {
        let lengths = self.skeletons.iter().map(|s| s.length(&self.filling));
        lengths.map(|n| varint_width(self.tag()) + varint_width(n as u64) + n).sum()
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        for skeleton in &*self.skeletons {
            put_varint(out, self.tag(), 0);
            put_varint(out, skeleton.length(&self.filling) as u64, 0);
            skeleton.write(&self.filling, out);
        }
    }
}

/// One message with holes.
struct Skeleton {
    parts: Vec<Part>,
}

enum Part {
    /// As it stands.
    Literal(Bytes),
    /// The length and text of a name of the layer's own: the prefix and this.
    Own(Bytes),
    /// The length and text of the tapped value's name.
    Tapped,
    /// The length and text of its gradient's name.
    Gradient,
    /// Four bytes of float32.
    Seed,
}

impl Skeleton {
    /// Finds the holes of an encoded NodeProto or ValueInfoProto; `prefix` starts the names of the layer's own.
    fn of(message: &[u8], prefix: &str) -> WireResult<Self> {
        let mut skeleton = Skeleton { parts: Vec::new() };
        let mut written = 0;
        for record in records(message, 0..message.len()) {
            let record = record?;
            let payload = &message[record.payload.clone()];
            let (hole, from) = if !record.is_length_delimited() {
                continue;
            } else if payload == TAPPED.as_bytes() {
                (Part::Tapped, record.length_at)
            } else if payload == GRADIENT.as_bytes() {
                (Part::Gradient, record.length_at)
            } else if let Some(suffix) = payload.strip_prefix(prefix.as_bytes()) {
                (Part::Own(Bytes::copy_from_slice(suffix)), record.length_at)
            } else if let Some(at) = seed_in(message, &record)? {
                (Part::Seed, at)
            } else {
                continue;
            };
            let end = if matches!(hole, Part::Seed) { from + 4 } else { record.end };
            skeleton.literal(&message[written..from]);
            skeleton.parts.push(hole);
            written = end;
        }
        skeleton.literal(&message[written..]);
        Ok(skeleton)
    }

    fn literal(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.parts.push(Part::Literal(Bytes::copy_from_slice(bytes)));
        }
    }

    /// Bytes of the filled message.
    fn length(&self, filling: &Filling) -> usize {
        let length = |part: &Part| match part {
            Part::Literal(bytes) => bytes.len(),
            Part::Seed => 4,
            name => {
                let n: usize = name.text(filling).map(<[u8]>::len).iter().sum();
                varint_width(n as u64) + n
            }
        };
        self.parts.iter().map(length).sum()
    }

    fn write(&self, filling: &Filling, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Seed => out.extend_from_slice(&(filling.seed.unwrap_or_default() as f32).to_le_bytes()),
                name => {
                    let [start, end] = name.text(filling);
                    put_varint(out, (start.len() + end.len()) as u64, 0);
                    out.extend_from_slice(start);
                    out.extend_from_slice(end);
                }
            }
        }
    }
}

impl Part {
    /// The name that fills a hole for names, in two pieces.
    fn text<'a>(&'a self, filling: &'a Filling) -> [&'a [u8]; 2] {
        match self {
            Part::Own(suffix) => [filling.prefix.as_bytes(), suffix],
            Part::Tapped => [filling.tapped.as_bytes(), &[]],
            Part::Gradient => [filling.gradient.as_bytes(), &[]],
            Part::Literal(_) | Part::Seed => [&[], &[]],
        }
    }
}

/// Where the four bytes of a seed stand, if the record is the attribute that holds it.
fn seed_in(message: &[u8], record: &crate::wire::Record) -> WireResult<Option<usize>> {
    if record.field != node_field::ATTRIBUTE {
        return Ok(None);
    }
    let parts: Vec<_> = records(message, record.payload.clone()).collect::<WireResult<_>>()?;
    let is_seed =
        |r: &crate::wire::Record| r.field == attribute_field::NAME && message[r.payload.clone()] == *SEED.as_bytes();
    let value = parts.iter().find(|r| r.field == attribute_field::F).map(|r| r.payload.start);
    Ok(value.filter(|_| parts.iter().any(is_seed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::types::{Dim, TensorType};
    use crate::onnx::tensor_proto::DataType;
    use crate::regularizer::{Exact, Reduction, Regularizer, Sampled, View};

    /// A filled template is what the regulariser writes for that very layer.
    #[test]
    fn a_filled_template_is_what_the_regularizer_writes_itself() {
        let shapes = [
            Some(vec![Dim::Symbol("N".into()), Dim::Known(192), Dim::Known(8), Dim::Known(8)]),
            Some(vec![Dim::Unknown, Dim::Unknown]),
            None,
        ];
        for dims in shapes {
            for (elem, view) in
                [(DataType::Float, View::Flatten), (DataType::Float16, View::Channel), (DataType::Double, View::Last)]
            {
                let ty = TensorType { elem: elem as i32, dims: dims.clone() };
                let h = Tensor { name: "/a/Relu_output_0".into(), ty };
                let layer = Layer { h, view, batch_axis: 0, reduction: Reduction::Mean };
                let regularizers: [(&dyn Regularizer, Option<u32>); 3] = [
                    (&Exact::default(), None),
                    (&Sampled { slices: 7, seed: None, shared: false, structured: false }, None),
                    (&Sampled { slices: 7, seed: Some(4711), shared: false, structured: false }, Some(4711)),
                ];
                for (regularizer, seed) in regularizers {
                    let other = Sampled { slices: 7, seed: Some(2), shared: false, structured: false };
                    let stand_in: &dyn Regularizer = if seed.is_some() { &other } else { regularizer };
                    // Names of 127 and 128 bytes have lengths of one and of two bytes.
                    for name in ["a/Relu".to_owned(), "n".repeat(107), "n".repeat(300)] {
                        let prefix = format!("per_inject/{name}/");
                        let write = |e: &mut Emitter| Emitted {
                            per: Some(stand_in.emit(e, &super::stand_in(&layer))),
                            sum: None,
                        };
                        let template = Template::of(13, "per_inject/", true, write).unwrap();
                        let filled = template.fill(Filling {
                            prefix: prefix.clone(),
                            tapped: layer.h.name.clone(),
                            gradient: String::new(),
                            seed,
                        });
                        let mut emitter = Emitter::new(13, "per_inject/", &name);
                        let per = regularizer.emit(&mut emitter, &layer);
                        let emission = emitter.finish();
                        assert_eq!(filled.nodes, emission.nodes.into());
                        assert_eq!(filled.value_info, emission.value_info.into());
                        assert_eq!((filled.emitted.per, template.constants), (Some(per), emission.constants));
                    }
                }
            }
        }
    }
}
