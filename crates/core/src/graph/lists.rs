//! Many short lists, such as the inputs of every node, without an allocation for each.

/// Many short lists in one allocation.
pub struct Lists<T> {
    /// Where each list begins in `items`, and the end of the last.
    pub starts: Vec<u32>,
    /// All lists, one behind the other.
    pub items: Vec<T>,
}

impl<T> Lists<T> {
    /// No list yet, and room for this many of about two items each.
    pub fn with_capacity(lists: usize) -> Self {
        let mut starts = Vec::with_capacity(lists + 1);
        starts.push(0);
        Lists { starts, items: Vec::with_capacity(2 * lists) }
    }

    /// Appends a list.
    pub fn push(&mut self, list: impl Iterator<Item = T>) {
        self.items.extend(list);
        self.starts.push(self.items.len() as u32);
    }

    /// The list at position `i`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn get(&self, i: usize) -> &[T] {
        &self.items[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}
