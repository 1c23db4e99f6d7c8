//! RotaryEmbedding: pairs (x₁, x₂) of the first r elements of each head turn by an angle θ of their position,
//! (x₁ cos θ − x₂ sin θ, x₁ sin θ + x₂ cos θ). A pair lies r/2 apart or, interleaved, side by side.

use crate::lower::registry::Rule;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["RotaryEmbedding"], because: "it is spelt out", applies: |_| true, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let is_flat = rank(&x)? == 3;
    // [B, S, heads, H].
    let apart = if is_flat {
        let (heads, width) = (site.int("num_heads", 0), extent(size(&x, 2)?));
        if heads < 1 || width % heads != 0 {
            return Err(Refusal(format!("{heads} heads do not share the width {width} evenly")));
        }
        b.reshape(&x, &[(&x, 0).into(), (&x, 1).into(), heads.into(), (width / heads).into()])
    } else {
        b.transpose(&x, &[0, 2, 1, 3])
    };
    let head = extent(size(&apart, 3)?);
    let turned = match site.int("rotary_embedding_dim", 0) {
        0 => head,
        n => n,
    };
    if turned < 2 || turned > head || turned % 2 != 0 {
        return Err(Refusal(format!("{turned} of {head} elements of a head do not fall into pairs")));
    }
    let half = turned / 2;
    let [cos, sin] = [1, 2].map(|slot| {
        let cache = site.required(slot)?;
        let rows = match site.input(3) {
            Some(positions) => {
                let dims = positions.ty.dims.iter().flatten().cloned();
                let ty = crate::graph::types::TensorType {
                    elem: cache.ty.elem,
                    dims: Some(dims.chain([crate::graph::types::Dim::Known(half.unsigned_abs())]).collect()),
                };
                b.one("Gather", &[&cache, &positions], vec![int("axis", 0)], ty)
            }
            None => cache,
        };
        Ok::<Tensor, Refusal>(b.unsqueeze(&rows, &[2]))
    });
    let (cos, sin) = (cos?, sin?);
    let is_interleaved = site.int("interleaved", 0) != 0;
    let (one, two) = if is_interleaved {
        (b.slice(&apart, 3, 0, turned, 2), b.slice(&apart, 3, 1, turned, 2))
    } else {
        (b.slice(&apart, 3, 0, half, 1), b.slice(&apart, 3, half, turned, 1))
    };
    let mut product = |x: &Tensor, y: &Tensor| Tensor { ty: x.ty.clone(), ..b.binary("Mul", x, y) };
    let (a, c) = (product(&one, &cos), product(&two, &sin));
    let (d, e) = (product(&one, &sin), product(&two, &cos));
    let (real, imaginary) = (b.binary("Sub", &a, &c), b.binary("Add", &d, &e));
    let mut parts = if is_interleaved {
        let pairs = [real, imaginary].map(|t| b.unsqueeze(&t, &[4]));
        let pairs = b.concat(&pairs, 4);
        let places = [0, 1, 2].map(|i| Extent::from((&apart, i)));
        vec![b.reshape(&pairs, &places.into_iter().chain([turned.into()]).collect::<Vec<_>>())]
    } else {
        vec![real, imaginary]
    };
    if turned < head {
        parts.push(b.slice(&apart, 3, turned, head, 1));
    }
    let joined = if parts.len() == 1 { parts.remove(0) } else { b.concat(&parts, 3) };
    let y = if is_flat {
        b.reshape(&joined, &[(&x, 0).into(), (&x, 1).into(), (&x, 2).into()])
    } else {
        b.transpose(&joined, &[0, 2, 1, 3])
    };
    Ok(vec![y.into()])
}
