//! Names made readable.

use std::fmt::Debug;

/// What a library has as names in Rust (`BadUserNamePassword`), in words (`bad user name password`).
#[must_use]
pub fn in_words(name: &impl Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
