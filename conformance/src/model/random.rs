//! Random numbers that come again: a fault that was found can be found once more.

/// A xorshift generator, which is random enough to choose calls.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of that seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        // Zero would stay zero; small seeds would begin alike.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below that one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_all_of_them() {
        let numbers = |seed| {
            let mut random = Random::seeded(seed);
            std::iter::repeat_with(move || random.below(6)).take(200).collect::<Vec<_>>()
        };
        assert_eq!(numbers(0), numbers(0));
        assert_ne!(numbers(0), numbers(1));
        assert!((0..6).all(|number| numbers(7).contains(&number)));
    }
}
