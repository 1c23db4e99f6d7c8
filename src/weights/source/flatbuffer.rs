//! As much of FlatBuffers as reading a training checkpoint takes. Every access is checked, so nothing has to be verified beforehand, and
//! no generated code is needed, which would be unsafe.
//!
//! All numbers are little-endian. A table starts with the distance back to its vtable, which holds its own size, the table's, and then
//! for each field its distance from the table's start, 0 where the field has its default. Strings, vectors and tables are referred to by
//! the distance forward from the reference.

use std::ops::Range;

/// Bytes before a vtable's first entry: its size and that of the table.
const HEAD: usize = 4;

/// A table in a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Table<'b> {
    bytes: &'b [u8],
    at: usize,
    vtable: usize,
    vtable_size: usize,
}

impl<'b> Table<'b> {
    /// The table that the buffer is; `None` where it is broken, as for all functions here.
    pub fn root(bytes: &'b [u8]) -> Option<Self> {
        Self::referred(bytes, 0)
    }

    /// The table that the reference at `at` is to.
    fn referred(bytes: &'b [u8], at: usize) -> Option<Self> {
        let at = follow(bytes, at)?;
        let back = isize::try_from(i32::from_le_bytes(array(bytes, at)?)).ok()?;
        let vtable = at.checked_add_signed(back.checked_neg()?)?;
        let vtable_size = usize::from(u16::from_le_bytes(array(bytes, vtable)?));
        bytes.get(vtable..vtable.checked_add(vtable_size)?)?;
        Some(Table { bytes, at, vtable, vtable_size })
    }

    /// Where a field stands; `Some(None)` where it has its default.
    fn field(&self, slot: usize) -> Option<Option<usize>> {
        let entry = HEAD + 2 * slot;
        if entry + 2 > self.vtable_size {
            return Some(None);
        }
        let distance = usize::from(u16::from_le_bytes(array(self.bytes, self.vtable + entry)?));
        Some((distance > 0).then_some(self.at.checked_add(distance)?))
    }

    /// A 32-bit number.
    pub fn int(&self, slot: usize, default: i32) -> Option<i32> {
        self.field(slot)?.map_or(Some(default), |at| Some(i32::from_le_bytes(array(self.bytes, at)?)))
    }

    /// A 64-bit number.
    pub fn long(&self, slot: usize, default: i64) -> Option<i64> {
        self.field(slot)?.map_or(Some(default), |at| Some(i64::from_le_bytes(array(self.bytes, at)?)))
    }

    /// A truth value, false by default.
    pub fn flag(&self, slot: usize) -> Option<bool> {
        self.field(slot)?.map_or(Some(false), |at| Some(*self.bytes.get(at)? != 0))
    }

    /// Another table.
    pub fn table(&self, slot: usize) -> Option<Option<Table<'b>>> {
        self.field(slot)?.map_or(Some(None), |at| Table::referred(self.bytes, at).map(Some))
    }

    /// The bytes of a vector whose elements take `width` bytes each; empty where there is none.
    pub fn vector(&self, slot: usize, width: usize) -> Option<Option<Range<usize>>> {
        let Some(at) = self.field(slot)? else { return Some(None) };
        let at = follow(self.bytes, at)?;
        let count = usize::try_from(u32::from_le_bytes(array(self.bytes, at)?)).ok()?;
        let start = at.checked_add(4)?;
        let range = start..start.checked_add(count.checked_mul(width)?)?;
        self.bytes.get(range.clone()).map(|_| Some(range))
    }

    /// A text.
    pub fn text(&self, slot: usize) -> Option<Option<&'b str>> {
        let Some(range) = self.vector(slot, 1)? else { return Some(None) };
        std::str::from_utf8(self.bytes.get(range)?).ok().map(Some)
    }

    /// 64-bit numbers.
    pub fn longs(&self, slot: usize) -> Option<Vec<i64>> {
        let Some(range) = self.vector(slot, 8)? else { return Some(Vec::new()) };
        let (numbers, _) = self.bytes.get(range)?.as_chunks::<8>();
        Some(numbers.iter().map(|n| i64::from_le_bytes(*n)).collect())
    }

    /// Tables.
    pub fn tables(&self, slot: usize) -> Option<Vec<Table<'b>>> {
        let Some(range) = self.vector(slot, 4)? else { return Some(Vec::new()) };
        range.step_by(4).map(|at| Table::referred(self.bytes, at)).collect()
    }
}

/// Where the reference at `at` leads.
fn follow(bytes: &[u8], at: usize) -> Option<usize> {
    at.checked_add(usize::try_from(u32::from_le_bytes(array(bytes, at)?)).ok()?)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
