//! PER in closed form: the special function behind it, its fit by a polynomial, and reference values.

pub mod any_d;
mod chebyshev;
pub mod fit;
#[cfg(test)]
mod graph_f32;
pub mod kummer;
pub mod reference;
