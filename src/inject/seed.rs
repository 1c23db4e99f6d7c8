//! A seed of its own for every layer.

/// ONNX Runtime truncates the float attribute `seed` and folds 0 onto 1, so only the integers in [2, 2²⁴) draw different numbers.
const COUNT: u64 = (1 << 24) - 2;

/// Coprime to `COUNT` = 2·47·178481, so that layers walk through all seeds before one repeats.
const STRIDE: u64 = 6_700_417;

/// The seed of layer number `layer` under the user's `seed`, in injection number `injection`.
///
/// Distinct for up to 2²⁴ − 2 layers.
pub fn layer_seed(seed: u64, injection: usize, layer: usize) -> u32 {
    let start = mix(seed ^ mix(injection as u64)) % COUNT;
    let seed = 2 + (start + (layer as u64 % COUNT) * STRIDE) % COUNT;
    u32::try_from(seed).unwrap_or(2)
}

/// The finaliser of SplitMix64: neighbouring seeds end far apart.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_hundred_thousand_layers_get_distinct_seeds_that_survive_a_float() {
        for seed in [0, 1, 2, u64::MAX] {
            let seeds: HashSet<u32> = (0..100_000).map(|i| layer_seed(seed, 1, i)).collect();
            assert_eq!(seeds.len(), 100_000);
            assert!(seeds.iter().all(|s| (2..1 << 24).contains(s) && (*s as f32) as u32 == *s));
        }
    }

    #[test]
    fn another_seed_and_another_injection_draw_other_numbers() {
        assert_ne!(layer_seed(0, 1, 0), layer_seed(1, 1, 0));
        assert_ne!(layer_seed(0, 1, 0), layer_seed(0, 2, 0));
    }
}
