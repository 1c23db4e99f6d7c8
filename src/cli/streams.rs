//! Standard output and standard error, either of which may be closed or full.

use std::io::{self, Write};

use super::failure::{About, Failure};

/// Writes to standard output what was asked for. A reader that went away is told apart, and any other problem is the command's.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Refused {
            message: format!("standard output cannot be written: {error}"),
            about: About::System { number: error.raw_os_error(), file: None },
        },
    })
}

/// Writes to standard error what it is good to know. Where nobody can read it, that ends nothing: `eprint!` would panic.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
