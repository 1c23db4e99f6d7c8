//! Alignment of two sequences: the longest increasing subsequence, and a bounded version of Myers's greedy algorithm.

/// Positions of a longest strictly increasing subsequence.
pub fn increasing(values: &[u32]) -> Vec<usize> {
    // By length less one: the position at which the best subsequence of that length ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![usize::MAX; values.len()];
    for (i, value) in values.iter().enumerate() {
        let at = ends.partition_point(|e| values[*e] < *value);
        if at > 0 {
            before[i] = ends[at - 1];
        }
        if at == ends.len() {
            ends.push(i);
        } else {
            ends[at] = i;
        }
    }
    let mut found = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(i) = next {
        found.push(i);
        next = Some(before[i]).filter(|b| *b != usize::MAX);
    }
    found.reverse();
    found
}

/// Pairs of positions of a longest common subsequence, if it leaves out at most `most` items of both together; E. W. Myers, An O(ND)
/// difference algorithm and its variations, Algorithmica 1 (1986). `None` where it would leave out more.
pub fn common<T: PartialEq>(a: &[T], b: &[T], most: usize) -> Option<Vec<(usize, usize)>> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a_rest, b_rest) = (&a[head..], &b[head..]);
    let tail = a_rest.iter().rev().zip(b_rest.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a_mid, b_mid) = (&a_rest[..a_rest.len() - tail], &b_rest[..b_rest.len() - tail]);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|i| (i, i)).collect();
    pairs.extend(middle(a_mid, b_mid, most)?.into_iter().map(|(i, j)| (i + head, j + head)));
    pairs.extend((0..tail).map(|i| (a.len() - tail + i, b.len() - tail + i)));
    Some(pairs)
}

fn middle<T: PartialEq>(a: &[T], b: &[T], most: usize) -> Option<Vec<(usize, usize)>> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let most = most.min(a.len() + b.len()) as isize;
    // By diagonal (shifted): how far along `a` the best path reaches. One such row for each number of edits, to find the way back.
    let mut rows: Vec<Vec<isize>> = Vec::new();
    let mut row = vec![0isize; 3];
    for d in 0..=most {
        // Row d covers the diagonals −d−1 … d+1.
        let at = |row: &[isize], k: isize, d: isize| row[(k + d + 1) as usize];
        let mut next = vec![-1isize; (2 * d + 5) as usize];
        let mut is_done = false;
        for k in (-d..=d).step_by(2) {
            let down = k == -d || (k != d && at(&row, k - 1, d) < at(&row, k + 1, d));
            let mut x = if down { at(&row, k + 1, d) } else { at(&row, k - 1, d) + 1 };
            if d == 0 {
                x = 0;
            }
            let mut y = x - k;
            while x < n && y < m && x >= 0 && y >= 0 && a[x as usize] == b[y as usize] {
                x += 1;
                y += 1;
            }
            next[(k + d + 2) as usize] = x;
            if x >= n && y >= m {
                is_done = true;
                break;
            }
        }
        rows.push(std::mem::replace(&mut row, next));
        if is_done {
            return Some(way_back(&rows, n, m));
        }
    }
    None
}

/// The matched pairs of the path that ends at (n, m); `rows[d]` are the reaches before edit number `d`.
fn way_back(rows: &[Vec<isize>], n: isize, m: isize) -> Vec<(usize, usize)> {
    let (mut x, mut y) = (n, m);
    let mut pairs = Vec::new();
    for (d, row) in rows.iter().enumerate().rev() {
        let d = d as isize;
        let at = |k: isize| row[(k + d + 1) as usize];
        let k = x - y;
        let (from_x, from_y) = if d == 0 {
            (0, 0)
        } else {
            let down = k == -d || (k != d && at(k - 1) < at(k + 1));
            let before = if down { k + 1 } else { k - 1 };
            (at(before), at(before) - before)
        };
        while x > from_x && y > from_y {
            x -= 1;
            y -= 1;
            pairs.push((x as usize, y as usize));
        }
        (x, y) = (from_x, from_y);
    }
    pairs.reverse();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The length of a longest common subsequence, by the textbook's table.
    fn longest(a: &[u8], b: &[u8]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = if x == y { diagonal + 1 } else { row[j + 1].max(row[j]) };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn common_subsequences_are_as_long_as_the_table_says(
            a in proptest::collection::vec(0u8..4, 0..40), b in proptest::collection::vec(0u8..4, 0..40), most in 0usize..80,
        ) {
            let edits = a.len() + b.len() - 2 * longest(&a, &b);
            match common(&a, &b, most) {
                None => prop_assert!(edits > most),
                Some(pairs) => {
                    prop_assert_eq!(pairs.len(), longest(&a, &b));
                    prop_assert!(pairs.iter().all(|(i, j)| a[*i] == b[*j]));
                    prop_assert!(pairs.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
                }
            }
        }

        #[test]
        fn an_increasing_subsequence_is_as_long_as_any(values in proptest::collection::vec(0u32..30, 0..30)) {
            let found = increasing(&values);
            prop_assert!(found.windows(2).all(|w| w[0] < w[1] && values[w[0]] < values[w[1]]));
            let mut best = vec![1usize; values.len()];
            for i in 0..values.len() {
                for j in 0..i {
                    if values[j] < values[i] {
                        best[i] = best[i].max(best[j] + 1);
                    }
                }
            }
            prop_assert_eq!(found.len(), best.into_iter().max().unwrap_or(0));
        }
    }
}
