//! The password file: who there is, and the hashes of their passwords.

use super::{
    Login,
    file::{self, FileError},
};
use crate::config::{ConfigError, Source};
use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{self, phc::Ident},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
    sync::Arc,
};
use waystation_broker::Principal;

/// The key that names the file.
const KEY: &str = "auth.password_file";

/// The users of a password file.
pub(super) struct Users {
    by_name: HashMap<Box<str>, User>,
    /// What an unknown name's password is compared with, so that it takes as long as a known one's.
    decoy: Arc<PasswordHash>,
}

struct User {
    hash: Arc<PasswordHash>,
    /// One for all his connections.
    principal: Principal,
}

impl Users {
    /// Reads a password file. A user whose line is as it was in `before` stays the same principal.
    pub(super) fn read(name: &str, before: Option<&Self>) -> Result<Self, FileError> {
        Self::parse(name, &file::read_text(name, KEY)?, before)
    }

    fn parse(name: &str, text: &str, before: Option<&Self>) -> Result<Self, FileError> {
        let mut by_name = HashMap::new();
        let mut first = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = |why: String| ConfigError {
                source: Some(Source::Line { file: name.into(), line: index + 1 }),
                key: KEY.into(),
                why,
            };
            let Some((user, hash)) = entry(line).map_err(wrong)? else { continue };
            let parsed = parse_hash(hash).map_err(wrong)?;
            match by_name.entry(user.into()) {
                Entry::Occupied(_) => return Err(wrong(format!("the user {user} stands here a second time")).into()),
                Entry::Vacant(place) => {
                    let old = before.and_then(|before| before.by_name.get(user)).filter(|old| *old.hash == parsed);
                    let principal = old.map_or_else(|| principal(user, &parsed), |old| old.principal.clone());
                    let user = place.insert(User { hash: Arc::new(parsed), principal });
                    first.get_or_insert_with(|| user.hash.clone());
                }
            }
        }
        let first = first.ok_or_else(|| {
            file::unfit(name, KEY, format!("holds no user; add one with `waystation passwd {name} USER`"))
        })?;
        let decoy = Arc::new(decoy(&first).map_err(|error| file::unfit(name, KEY, error.to_string()))?);
        Ok(Self { by_name, decoy })
    }

    /// Whether this user still has the password with that hash.
    pub(super) fn has(&self, name: &str, hash: &str) -> bool {
        self.by_name.get(name).is_some_and(|user| user.hash.to_string() == hash)
    }

    /// The hash to compare with for this name, and who that is if it fits; nobody for an unknown name.
    pub(super) fn challenge(&self, name: &str) -> (Arc<PasswordHash>, Option<Principal>) {
        match self.by_name.get(name) {
            Some(user) => (user.hash.clone(), Some(user.principal.clone())),
            None => (self.decoy.clone(), None),
        }
    }
}

fn principal(user: &str, hash: &PasswordHash) -> Principal {
    Principal::user(user, None).with_grant(Arc::new(Login::Password { hash: hash.to_string().into() }))
}

/// User and hash of a line; `None` for blank lines and comments.
fn entry(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (user, hash) = line.split_once(':').ok_or("expected USER:HASH, as `waystation passwd` writes it")?;
    if user.is_empty() {
        return Err("expected a user before the colon".into());
    }
    Ok(Some((user, hash)))
}

fn parse_hash(text: &str) -> Result<PasswordHash, String> {
    let hint = "expected an Argon2id hash ($argon2id$...), as `waystation passwd` writes it";
    let hash = PasswordHash::new(text).map_err(|_| hint.to_owned())?;
    if hash.algorithm != Ident::new("argon2id").expect("a valid name of an algorithm") {
        return Err(format!("the hash is made by {}; {hint}", hash.algorithm));
    }
    if hash.salt.is_none() || hash.hash.is_none() || argon2::Params::try_from(&hash).is_err() {
        return Err(format!("the hash is not whole; {hint}"));
    }
    Ok(hash)
}

/// A hash that takes as long as `like` does to compare with. What it is made of does not matter: it lets nobody in.
fn decoy(like: &PasswordHash) -> password_hash::Result<PasswordHash> {
    let params = argon2::Params::try_from(like)?;
    let hasher = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::default(), params);
    hasher.hash_password(b"")
}

/// Whether the password fits; slow on purpose, so not for a thread that others wait for.
pub(super) fn fits(password: &[u8], hash: &PasswordHash) -> bool {
    // The parameters are those of the hash.
    Argon2::default().verify_password(password, hash).is_ok()
}

/// Adds a user to a password file's text, or gives him another password. Other lines stay as they are.
///
/// # Errors
/// The name cannot stand in such a file, or the text is none.
pub fn set_password(text: &str, user: &str, password: &[u8]) -> Result<String, String> {
    if user.is_empty() || user.starts_with('#') || user.contains([':', '\n', '\r', '\0']) || user.trim_end() != user {
        return Err(format!("{user:?} cannot be a user's name here: not empty, no colon, no line break, no # first"));
    }
    let hash = Argon2::default().hash_password(password).map_err(|error| format!("cannot hash: {error}"))?;
    let line = format!("{user}:{hash}");
    let mut lines: Vec<&str> = text.lines().collect();
    let is_his = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name == user);
    match lines.iter().position(is_his) {
        Some(at) => lines[at] = &line,
        None => lines.push(&line),
    }
    Ok(lines.join("\n") + "\n")
}

/// Sets a user's password in a file, which is made (for its owner only) if it is not there; all or nothing.
///
/// # Errors
/// The file cannot be read or written, or the user's name is none.
pub fn set_password_in(file: &Path, user: &str, password: &[u8]) -> Result<(), String> {
    let said = |what: &str, error: std::io::Error| format!("{} cannot be {what}: {error}", file.display());
    // A link is followed: what it points to is replaced, not the link.
    let (target, text) = match std::fs::canonicalize(file) {
        Ok(target) => {
            let text = std::fs::read_to_string(&target).map_err(|error| said("read", error))?;
            (target, text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (file.to_owned(), String::new()),
        Err(error) => return Err(said("read", error)),
    };
    let text = set_password(&text, user, password)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600 beside its place, then moved there.
    let mut fresh = tempfile::NamedTempFile::new_in(folder).map_err(|error| said("written", error))?;
    std::io::Write::write_all(&mut fresh, text.as_bytes())
        .and_then(|()| keep_owner_and_mode(&target, fresh.as_file()))
        .and_then(|()| fresh.as_file().sync_all())
        .map_err(|error| said("written", error))?;
    fresh.persist(&target).map_err(|error| said("written", error.error))?;
    Ok(())
}

/// The server may run as another user than whoever keeps the file: what was there before stays readable to the same.
fn keep_owner_and_mode(before: &Path, fresh: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(old) = std::fs::metadata(before) else { return Ok(()) };
    // Only root may give a file away; anybody else keeps his own.
    let _ = fchown(fresh, Some(old.uid()), Some(old.gid()));
    fresh.set_permissions(old.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cheap as Argon2id gets; of the password "secret".
    fn cheap(password: &str) -> String {
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let hasher = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::default(), params);
        hasher.hash_password(password.as_bytes()).unwrap().to_string()
    }

    fn error(text: &str) -> String {
        Users::parse("users", text, None).map(|_| ()).expect_err(text).to_string()
    }

    #[test]
    fn users_have_their_passwords_and_nobody_else_has_one() {
        let text = format!("# people\n\nanna:{}\nben:{}\n", cheap("secret"), cheap("other"));
        let users = Users::parse("users", &text, None).unwrap();
        let check = |user: &str, password: &str| {
            let (hash, who) = users.challenge(user);
            who.filter(|_| fits(password.as_bytes(), &hash)).and_then(|who| who.name().map(str::to_owned))
        };
        assert_eq!(check("anna", "secret").as_deref(), Some("anna"));
        assert_eq!(check("ben", "other").as_deref(), Some("ben"));
        assert_eq!(check("anna", "other"), None);
        assert_eq!(check("anna", ""), None);
        assert_eq!(check("carl", ""), None, "not even what the decoy is made of");
    }

    #[test]
    fn an_unknown_name_costs_what_a_known_one_does() {
        let users = Users::parse("users", &format!("anna:{}\n", cheap("x")), None).unwrap();
        let (known, unknown) = (users.challenge("anna").0, users.challenge("nobody").0);
        assert_eq!(known.params.to_string(), unknown.params.to_string());
        assert_ne!(known, unknown);
    }

    #[test]
    fn a_user_whose_line_stays_is_the_same_principal_after_a_reload() {
        let (anna, ben) = (cheap("a"), cheap("b"));
        let before = Users::parse("users", &format!("anna:{anna}\nben:{ben}\n"), None).unwrap();
        let after = Users::parse("users", &format!("anna:{anna}\nben:{}\n", cheap("b")), Some(&before)).unwrap();
        assert_eq!(before.challenge("anna").1, after.challenge("anna").1);
        assert_ne!(before.challenge("ben").1, after.challenge("ben").1);
        assert!(after.has("anna", &anna) && !after.has("ben", &ben) && !after.has("carl", &anna));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        assert!(
            error(&format!("anna:{}\nben\n", cheap("x")))
                .starts_with("users:2: auth.password_file: expected USER:HASH")
        );
        assert!(error("anna:secret\n").starts_with("users:1: auth.password_file: expected an Argon2id hash"));
        let other = cheap("x").replace("argon2id", "argon2i");
        assert!(error(&format!("anna:{other}\n")).contains("the hash is made by argon2i;"));
        assert!(error(":x\n").contains("users:1: "));
        assert!(error(&format!("a:{0}\na:{0}\n", cheap("x"))).starts_with("users:2: auth.password_file: the user a "));
        assert!(error("# nobody\n").starts_with("users: holds no user; add one with"));
    }

    #[test]
    fn a_password_is_set_and_everything_else_stays() {
        let text = format!("# people\nanna:{}\n\nben:{}", cheap("a"), cheap("b"));
        let changed = set_password(&text, "anna", b"new").unwrap();
        let added = set_password(&changed, "carl:", b"x").unwrap_err();
        assert!(added.contains("\"carl:\" cannot be a user's name"), "{added}");
        let added = set_password(&changed, "carl", b"x").unwrap();
        let lines: Vec<&str> = added.lines().collect();
        assert_eq!((lines[0], lines[2], lines[3]), ("# people", "", text.lines().nth(3).unwrap()));
        assert!(lines[1].starts_with("anna:$argon2id$") && lines[4].starts_with("carl:$argon2id$"));
        let hash = parse_hash(&lines[1]["anna:".len()..]).unwrap();
        assert!(fits(b"new", &hash) && !fits(b"a", &hash));
    }
}
