//! New bytes of a file: there already, or made at the moment of writing.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// New bytes. A large graph gets hundreds of megabytes that differ in names alone: those need not be in memory to be written.
#[derive(Clone)]
pub struct Content(Kind);

#[derive(Clone)]
enum Kind {
    Ready(Bytes),
    Made { length: usize, maker: Arc<dyn Make> },
}

/// Makes the same bytes whenever it is asked.
pub trait Make: Send + Sync {
    /// How many bytes [`Make::append_to`] appends.
    fn length(&self) -> usize;

    /// Appends the bytes.
    fn append_to(&self, out: &mut Vec<u8>);
}

impl Content {
    /// Bytes that are made when they are needed.
    pub fn made(maker: impl Make + 'static) -> Self {
        Content(Kind::Made { length: maker.length(), maker: Arc::new(maker) })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Ready(bytes) => bytes.len(),
            Kind::Made { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they need not be made.
    pub(super) fn ready(&self) -> Option<&Bytes> {
        if let Kind::Ready(bytes) = &self.0 { Some(bytes) } else { None }
    }

    /// The bytes.
    pub fn bytes(&self) -> Bytes {
        match &self.0 {
            Kind::Ready(bytes) => bytes.clone(),
            Kind::Made { length, maker } => {
                let mut out = Vec::with_capacity(*length);
                maker.append_to(&mut out);
                out.into()
            }
        }
    }

    /// Appends the bytes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Ready(bytes) => out.extend_from_slice(bytes),
            Kind::Made { maker, .. } => maker.append_to(out),
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Content(Kind::Ready(bytes))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.bytes() == other.bytes()
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.bytes(), f)
    }
}
