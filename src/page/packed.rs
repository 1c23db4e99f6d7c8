//! Lists in forms that take less room: names that share their beginnings, things that repeat, lines of few points.

use std::collections::HashMap;
use std::hash::Hash;

/// Numbers things in the order of their first appearance.
pub struct Interned<T> {
    index: HashMap<T, usize, foldhash::fast::RandomState>,
    /// Each of them once.
    pub items: Vec<T>,
}

impl<T: Copy + Eq + Hash> Interned<T> {
    pub fn new() -> Self {
        Interned { index: HashMap::default(), items: Vec::new() }
    }

    pub fn number(&mut self, item: T) -> usize {
        *self.index.entry(item).or_insert_with(|| {
            self.items.push(item);
            self.items.len() - 1
        })
    }
}

/// Names by front coding: for each one how many characters it shares with the one before, and the number of what follows them.
///
/// Models number what repeats, so that few rests are different. Only ASCII is shared, which every language counts alike.
pub fn front_coded<'n>(names: impl Iterator<Item = &'n str>, rests: &mut Interned<&'n str>) -> Vec<usize> {
    let mut coded = Vec::new();
    let mut before = "";
    for name in names {
        let pairs = name.bytes().zip(before.bytes());
        let shared = pairs.take_while(|(a, b)| a == b && a.is_ascii()).count();
        coded.extend([shared, rests.number(&name[shared..])]);
        before = name;
    }
    coded
}

/// Appends the points of a line as x, y, and then the steps from one to the next; without those in the middle of a straight part.
pub fn push_line(points: &[(i32, i32)], out: &mut Vec<i64>) {
    let mut kept: Vec<(i32, i32)> = Vec::with_capacity(points.len());
    for point in points {
        if let [.., a, b] = kept[..]
            && a.0 == b.0
            && b.0 == point.0
        {
            kept.pop();
        }
        if kept.last() != Some(point) {
            kept.push(*point);
        }
    }
    let mut at = (0, 0);
    for point in kept {
        out.extend([i64::from(point.0) - at.0, i64::from(point.1) - at.1]);
        at = (point.0.into(), point.1.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_are_numbers() {
        let names = ["/net.0/Conv", "/net.0/Relu", "ü", "üx", "/net", "/net"];
        let mut rests = Interned::new();
        assert_eq!(front_coded(names.into_iter(), &mut rests), [0, 0, 7, 1, 0, 2, 0, 3, 0, 4, 4, 5]);
        assert_eq!(rests.items, ["/net.0/Conv", "Relu", "ü", "üx", "/net", ""]);
    }

    #[test]
    fn straight_parts_need_no_points() {
        let mut out = Vec::new();
        push_line(&[(5, 0), (5, 10), (5, 20), (9, 30), (9, 30), (9, 40)], &mut out);
        push_line(&[], &mut out);
        assert_eq!(out, [5, 0, 0, 20, 4, 10, 0, 10]);
    }
}
