//! Secrets made unreadable before a configuration is shown.

use toml::{Table, Value};

/// What stands in place of a secret.
const MASK: &str = "********";

/// Masks the values of keys that hold secrets (not of those that name a file with one), and passwords in URLs.
pub(super) fn mask(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        let secret = key == "secret" || key == "password" || key.ends_with("_secret") || key.ends_with("_password");
        mask_value(value, secret);
    }
}

fn mask_value(value: &mut Value, secret: bool) {
    match value {
        Value::String(text) if secret && !text.is_empty() => *text = MASK.into(),
        Value::String(text) => {
            if let Some(masked) = mask_url(text) {
                *text = masked;
            }
        }
        Value::Table(table) => mask(table),
        Value::Array(elements) => elements.iter_mut().for_each(|element| mask_value(element, secret)),
        _ => {}
    }
}

/// `scheme://user:password@host` without its password.
fn mask_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (user_info, _) = authority.rsplit_once('@')?;
    let (user, _) = user_info.split_once(':')?;
    Some(format!("{scheme}://{user}:{MASK}{}", &rest[user_info.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand_and_file_names_are_not() {
        let mut table: Table = toml::from_str(
            "secret_file = \"s\"\nempty = { secret = \"\" }\nurl = \"mqtt://u:p@h:1/x@y\"\n[[webhook]]\nsecret = \"whsec\"\nname = \"n\"\n",
        )
        .unwrap();
        mask(&mut table);
        let expected: Table = toml::from_str(
            "secret_file = \"s\"\nempty = { secret = \"\" }\nurl = \"mqtt://u:********@h:1/x@y\"\n[[webhook]]\nsecret = \"********\"\nname = \"n\"\n",
        )
        .unwrap();
        assert_eq!(table, expected);
    }
}
