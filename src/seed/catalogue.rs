//! Products with believable names and prices.

use rand::{RngExt as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::domain::catalog::NewProduct;

const MATERIALS: [&str; 20] = [
    "Walnut", "Oak", "Linen", "Ceramic", "Brass", "Copper", "Wool", "Cork", "Bamboo", "Slate", "Leather", "Steel",
    "Cotton", "Marble", "Glass", "Ash", "Rattan", "Enamel", "Canvas", "Birch",
];
/// Kinds of products and their usual prices, in the currency's minor unit.
const KINDS: [(&str, i64); 25] = [
    ("Desk Lamp", 4_990),
    ("Mug", 1_490),
    ("Notebook", 1_250),
    ("Cutting Board", 3_290),
    ("Throw Blanket", 6_900),
    ("Pour-over Set", 4_450),
    ("Wall Clock", 5_990),
    ("Storage Box", 2_790),
    ("Pen", 1_990),
    ("Water Bottle", 2_490),
    ("Planter", 2_190),
    ("Tray", 2_390),
    ("Backpack", 8_900),
    ("Candle Holder", 1_790),
    ("Serving Bowl", 3_490),
    ("Headphone Stand", 3_990),
    ("Bookend Pair", 2_990),
    ("Apron", 3_190),
    ("Door Mat", 2_690),
    ("Side Table", 12_900),
    ("Pencil Case", 1_590),
    ("Coaster Set", 1_690),
    ("Picture Frame", 2_290),
    ("Umbrella", 3_790),
    ("Laptop Sleeve", 4_190),
];

/// Products with distinct names: every kind in every material, then further editions of the same.
pub(super) fn generate(rng: &mut ChaCha8Rng, count: usize) -> Vec<NewProduct> {
    let mut articles: Vec<(&str, &str, i64)> = MATERIALS
        .iter()
        .flat_map(|material| KINDS.iter().map(move |(kind, price)| (*material, *kind, *price)))
        .collect();
    articles.shuffle(rng);

    (0..count)
        .map(|number| {
            let (material, kind, price) = articles[number % articles.len()];
            let name = match number / articles.len() {
                0 => format!("{material} {kind}"),
                edition => format!("{material} {kind} No. {}", edition + 1),
            };
            NewProduct {
                name,
                sku: None,
                active: true,
                // 80 to 140 % of the usual price, rounded down to a multiple of ten.
                price: price * rng.random_range(80..=140) / 1_000 * 10,
                stock: rng.random_range(20..=500),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_catalogue_and_no_name_twice() {
        let catalogue = |seed| generate(&mut ChaCha8Rng::seed_from_u64(seed), 1_200);
        assert_eq!(catalogue(7), catalogue(7));
        assert_ne!(catalogue(7), catalogue(8));
        let names: HashSet<String> = catalogue(7).into_iter().map(|product| product.name).collect();
        assert_eq!(names.len(), 1_200);
    }
}
