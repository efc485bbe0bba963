//! What becomes of a datagram on its way, by a seed: the same seed, the same sequence of fates.

use super::super::args::Fleet;

/// Loss, duplication and reordering, in per cent each.
pub(super) struct Air {
    loss: f64,
    duplication: f64,
    reordering: f64,
    state: u64,
}

impl Air {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let Fleet { loss, duplication, reordering, seed, .. } = *fleet;
        Self { loss, duplication, reordering, state: seed }
    }

    /// How many of a datagram arrive.
    pub(super) fn copies(&mut self) -> usize {
        if self.happens(self.loss) {
            return 0;
        }
        if self.happens(self.duplication) { 2 } else { 1 }
    }

    /// Whether later ones overtake it.
    pub(super) fn overtakes(&mut self) -> bool {
        self.happens(self.reordering)
    }

    fn happens(&mut self, per_cent: f64) -> bool {
        if per_cent <= 0.0 {
            return false;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to lose datagrams by.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let of_a_million = u32::try_from((z ^ (z >> 31)) % 1_000_000).unwrap_or(0);
        f64::from(of_a_million) < per_cent * 10_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn air(loss: f64, duplication: f64, seed: u64) -> Air {
        Air { loss, duplication, reordering: 0.0, state: seed }
    }

    #[test]
    fn fates_follow_the_seed_and_the_percentages() {
        let fates = |seed| {
            let mut air = air(10.0, 20.0, seed);
            (0..10_000).map(|_| air.copies()).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        let count = |copies| fates(1).iter().filter(|it| **it == copies).count();
        assert!((900..1_100).contains(&count(0)), "{}", count(0));
        assert!((1_600..2_000).contains(&count(2)), "{}", count(2));
        let mut clear = air(0.0, 0.0, 1);
        assert!((0..1_000).all(|_| clear.copies() == 1 && !clear.overtakes()));
    }
}
