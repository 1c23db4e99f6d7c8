//! What rules that write nodes for nodes share, whatever they write them for: [lowering](crate::lower) and [gradients](crate::autodiff).
//!
//! A rule looks at a node where it [stands](site), knows which gradients [pass](path) it, and writes with a [builder].

pub mod builder;
mod older;
pub mod path;
pub mod site;
pub mod window;
