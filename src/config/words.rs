//! Serde's words about a wrong value, made a user's.

use toml::{Table, Value};

/// The message with Rust's names replaced, and with the nearest known key where one is unknown.
pub(crate) fn plain(message: &str) -> String {
    let message = message.trim();
    if let Some((unknown_key, known)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        // serde lists the known ones in backticks: every second piece.
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return unknown(unknown_key, known);
    }
    if let Some((start, kind)) = message.rsplit_once("expected ") {
        let number = match kind {
            "u8" => "a whole number from 0 to 255",
            "u16" => "a whole number from 0 to 65535",
            "u32" => "a whole number from 0 to 4294967295",
            "u64" | "usize" => "a whole number, not negative",
            "a boolean" => "true or false",
            "a sequence" => "a list",
            structure if structure.starts_with("struct ") => "a table",
            "f32" | "f64" => "a number",
            other => other,
        };
        return format!("{start}expected {number}");
    }
    message.to_owned()
}

/// What serde says of a number or a truth value where one of some words is wanted. It does not tell which they are.
const NO_WORD: &str = "invalid type: unit variant, expected string only";

/// Reads a table with `read`, which gives the wrong key and what serde says of it; here it is said in a user's words.
pub(crate) fn reading<T>(
    table: Table,
    read: impl Fn(Table) -> Result<T, (String, String)>,
) -> Result<T, (String, String)> {
    let mut quoted = Value::Table(table.clone());
    read(table).map_err(|(key, why)| {
        if why.trim() != NO_WORD {
            return (key, plain(&why));
        }
        // With quotes it may still be no word that is known, and then serde lists those.
        if let Some(value) = at(&mut quoted, &key) {
            *value = Value::String(value.to_string());
        }
        let again = if let Value::Table(quoted) = quoted { read(quoted).err() } else { None };
        match again {
            Some((again, why)) if again == key && why.trim() != NO_WORD => (key, plain(&why)),
            _ => (key, "stands without quotes; a word in quotes is right".into()),
        }
    })
}

/// The value at a path such as `route[0].retain`.
fn at<'a>(table: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split(['.', '[']).try_fold(table, |value, step| match step.strip_suffix(']') {
        Some(index) => value.get_mut(index.parse::<usize>().ok()?),
        None => value.get_mut(step),
    })
}

/// That there is no such key, and which one was probably meant.
pub(crate) fn unknown<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(key, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match (nearest, known.is_empty()) {
        (Some((_, candidate)), _) => format!("unknown key; did you mean `{candidate}`?"),
        (None, true) => "unknown key; there are none here".into(),
        (None, false) => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// That a table was expected.
pub(crate) fn not_a_table(value: &Value) -> String {
    format!("expected a table, got {}", value.type_str())
}

/// A dotted key.
pub(crate) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
