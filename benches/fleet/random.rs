//! SplitMix64: small, even, and the same on every machine.

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not including, `end`.
    pub fn below(&mut self, end: f64) -> f64 {
        end * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The sum of twelve has a variance of one and, unlike a logarithm, no last digit of its own on each machine.
    pub fn normal(&mut self, deviation: f64) -> f64 {
        deviation * ((0..12).map(|_| self.below(1.0)).sum::<f64>() - 6.0)
    }
}
