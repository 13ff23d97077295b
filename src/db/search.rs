//! How a search compares names: in upper or lower case, in every spelling that Unicode counts as the same. The program
//! computes this form of a name, and stores it beside the name, because the databases differ: SQLite knows the cases of
//! ASCII alone, PostgreSQL those of its locale, and neither a letter from its decomposed form.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};

/// The form in which two texts are equal if they differ only in case, in composed or decomposed letters, in compatibility
/// forms such as `ﬁ` for `fi` (NFKC, Unicode Standard Annex 15), or in characters that are not shown, such as a soft hyphen.
pub fn search_form(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }

    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();

    let shown: String = text.chars().filter(|letter| !ignorable.contains(*letter)).collect();
    let caseless: String = normalizer.normalize(&shown).chars().flat_map(fold_case).collect();
    // In lower case `İ` is `i` with a dot above it, which Turkish writes as `i` alone.
    normalizer.normalize(&caseless).replace("i\u{307}", "i")
}

/// Lower case, by way of upper case: `ẞ` and `ß` become `ss`, `ς` becomes `σ`, and the dotless `ı` becomes `i`.
fn fold_case(letter: char) -> impl Iterator<Item = char> {
    let lower = letter.to_lowercase();
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

/// A pattern for `LIKE … ESCAPE '\'` that finds search forms which contain `part` literally. What stands for `%`, `_` or
/// `\` in another width is found as such too, so escaping comes last.
pub fn contains_pattern(part: &str) -> String {
    let part = search_form(part);
    let escaped = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_found_in_upper_and_lower_case() {
        let texts =
            |letter: char| -> [String; 2] { [letter.to_uppercase().collect(), letter.to_lowercase().collect()] };
        let cased =
            (char::MIN..=char::MAX).filter(|letter| texts(*letter).iter().any(|text| !text.chars().eq([*letter])));

        let mut count = 0;
        for letter in cased {
            let form = search_form(&letter.to_string());
            for text in texts(letter) {
                assert_eq!(
                    search_form(&text),
                    form,
                    "{letter:?} U+{:04X} as {text:?}",
                    u32::from(letter)
                );
            }
            count += 1;
        }
        assert!(count > 2_500, "{count}");
    }

    #[test]
    fn a_search_form_is_its_own_search_form() {
        for letter in char::MIN..='\u{2ffff}' {
            let form = search_form(&letter.to_string());
            assert_eq!(search_form(&form), form, "U+{:04X}", u32::from(letter));
        }
    }

    #[test]
    fn one_text_in_many_spellings_has_one_search_form() {
        for (name, others) in [
            ("äpfel", &["Äpfel", "ÄPFEL", "A\u{308}pfel", "a\u{308}PFEL"][..]),
            ("straße", &["STRASSE", "STRAẞE", "Strasse"]),
            ("istanbul", &["İstanbul", "ISTANBUL", "I\u{307}stanbul", "ıstanbul"]),
            ("σοφος", &["ΣΟΦΟΣ", "σοφος", "σοφοσ"]),
            ("ᾴδης", &["ΆΙΔΗΣ", "α\u{345}\u{301}δης"]),
            ("한", &["\u{1112}\u{1161}\u{11ab}"]),
            ("office", &["oﬃce", "ＯＦＦＩＣＥ", "of\u{ad}fice"]),
            ("☕ mug", &["☕\u{fe0f} MUG", "☕\u{a0}mug"]),
        ] {
            for other in others {
                assert_eq!(search_form(other), search_form(name), "{other}");
            }
        }
        assert_ne!(search_form("Äpfel"), search_form("Apfel"), "an accent counts");
    }

    #[test]
    fn what_like_gives_a_meaning_to_is_found_literally() {
        assert_eq!(contains_pattern("100 %_\\"), r"%100 \%\_\\%");
        assert_eq!(contains_pattern("％＿＼"), r"%\%\_\\%");
    }
}
