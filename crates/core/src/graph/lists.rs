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

    /// Appends a list, up to the first item that is an error.
    pub fn try_push<E>(&mut self, list: impl Iterator<Item = Result<T, E>>) -> Result<(), E> {
        for item in list {
            self.items.push(item?);
        }
        self.starts.push(self.items.len() as u32);
        Ok(())
    }

    /// Appends all lists of another one.
    pub fn append(&mut self, other: Lists<T>) {
        let items = self.items.len() as u32;
        self.starts.extend(other.starts.into_iter().skip(1).map(|start| items + start));
        self.items.extend(other.items);
    }

    /// The list at position `i`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn get(&self, i: usize) -> &[T] {
        &self.items[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}
