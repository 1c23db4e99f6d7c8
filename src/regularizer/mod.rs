//! PER in closed form: the special function behind it, its fit by a polynomial, and reference values.

pub mod kummer;
