//! The fuzz targets on their seeds and on a few thousand mutations of them, the same in every run. `fuzz/README.md` runs them longer.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mutations of each seed.
const MUTATIONS: u64 = 1500;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir("fuzz/seeds").unwrap().map(|e| e.unwrap());
    let mut seeds: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    seeds.sort();
    assert!(seeds.len() > 10);
    seeds
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

/// What libFuzzer does, in short: bytes flipped, replaced, taken out, repeated, and pieces of another seed put in.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let scale = 1 << random.below(7);
        let length = random.below(scale).min(bytes.len() - at);
        match random.below(6) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = random.next() as u8),
            2 => drop(bytes.drain(at..at + length)),
            3 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec())),
            4 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            _ => {
                let from = random.below(bytes.len());
                let to = at.min(bytes.len().saturating_sub(length));
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes[to..].iter_mut().zip(piece).for_each(|(b, p)| *b = p);
            }
        }
    }
}

#[test]
fn every_seed_that_is_a_model_is_injected_or_refused_and_stripped() {
    let (mut injected, mut stripped) = (Vec::new(), Vec::new());
    for (name, bytes) in seeds() {
        properties::parse(&bytes);
        if properties::strip(&bytes) {
            stripped.push(name.clone());
        }
        if properties::inject(&bytes) {
            injected.push(name);
        }
    }
    // Without these the properties would hold of nothing.
    for name in
        ["bodies.onnx", "bn_resnet8.ts17.onnx", "functions.onnx", "gpt_gelu.dyn.onnx", "head_inner_loss", "odd.onnx"]
    {
        assert!(injected.iter().any(|n| n == name), "{name} is refused; injected: {injected:?}");
    }
    stripped.retain(|name| name.starts_with("injected_"));
    assert_eq!(stripped.len(), 4, "stripped: {stripped:?}");
}

#[test]
fn mutated_seeds_never_panic_and_strip_to_themselves() {
    let seeds = seeds();
    let (mut injected, mut stripped) = (0, 0);
    for (i, (name, seed)) in seeds.iter().enumerate() {
        let mut random = Random(i as u64);
        for round in 0..MUTATIONS {
            // Half of them with a head that chooses other options than the default.
            let mut bytes = if round % 2 == 0 { seed.clone() } else { [&[0; 8][..], seed].concat() };
            let (_, other) = &seeds[random.below(seeds.len())];
            mutate(&mut bytes, other, &mut random);
            if round % 2 == 1 {
                for b in bytes.iter_mut().take(8).skip(1) {
                    *b = random.next() as u8;
                }
            }
            let result = catch_unwind(AssertUnwindSafe(|| {
                properties::parse(&bytes);
                (properties::inject(&bytes), properties::strip(&bytes))
            }));
            match result {
                Ok((there, back)) => {
                    injected += u64::from(there);
                    stripped += u64::from(back);
                }
                Err(panic) => {
                    let at = std::env::temp_dir().join(format!("per-inject-{name}-{round}"));
                    std::fs::write(&at, &bytes).unwrap();
                    eprintln!("mutation {round} of {name}, kept as {}", at.display());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    assert!(injected > 200, "only {injected} mutations could be injected into");
    assert!(stripped > 200, "only {stripped} mutations could be stripped");
}
