//! A bridge's table with the files it names read: what one connection after the other is made from.

use crate::{config::Config, route::Routes, url::Url};
use rustls::ClientConfig;
use std::{fs, sync::Arc};
use waystation_broker::ClientId;
use waystation_kit::InvalidConfig;

/// What a bridge goes by.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) url: Url,
    pub(crate) routes: Arc<Routes>,
    /// Never logged.
    pub(crate) password: Option<String>,
    /// Set with `mqtts://`.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What the sessions of bridges begin with.
pub(crate) const SESSIONS: &str = "$bridge/";

/// The session in which what goes out over a bridge waits.
pub(crate) fn session_id(name: &str) -> Option<ClientId> {
    ClientId::new(&format!("{SESSIONS}{name}"))
}

impl Settings {
    /// Reads the files.
    pub(crate) fn load(config: Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        let url = Url::parse(&config.url).map_err(|why| InvalidConfig { key: "url".into(), why })?;
        let password = password(&config)?;
        let tls = if url.tls { Some(config.tls_files().load()?) } else { None };
        Ok(Self { routes: Arc::new(Routes::new(&config.route)), url, password, tls, config })
    }

    /// User name and password.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        let Config { username, .. } = &self.config;
        (!username.is_empty()).then_some((username, self.password.as_deref().unwrap_or_default()))
    }
}

fn password(config: &Config) -> Result<Option<String>, InvalidConfig> {
    let Config { secret_file, secret_env, .. } = config;
    let wrong = |key: &str, why: String| Err(InvalidConfig { key: key.into(), why });
    if !secret_file.is_empty() {
        return match fs::read_to_string(secret_file) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
            }
            Err(error) => wrong("secret_file", format!("cannot read {secret_file}: {error}")),
        };
    }
    if !secret_env.is_empty() {
        return match std::env::var(secret_env) {
            Ok(text) => Ok(Some(text)),
            Err(error) => wrong("secret_env", format!("{secret_env}: {error}")),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(more: &str) -> Config {
        let text = format!(
            "name = 'cloud'\nurl = 'mqtt://h'\nusername = 'u'\n{more}\n[[route]]\ndirection = 'out'\nfilter = 'a'\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn error(config: Config) -> String {
        Settings::load(config).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_password_is_read_without_its_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        for (written, read) in [("hush", "hush"), ("hush\n", "hush"), ("hush\r\n", "hush"), ("hush\n\n", "hush\n")] {
            fs::write(&file, written).unwrap();
            let settings = Settings::load(table(&format!("secret_file = '{}'", file.display()))).unwrap();
            assert_eq!(settings.login(), Some(("u", read)));
        }
        assert_eq!(Settings::load(table("secret_env = 'PATH'")).unwrap().password, std::env::var("PATH").ok());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert!(error(table("secret_file = '/none'")).starts_with("secret_file: cannot read /none: "));
        assert!(error(table("secret_env = 'WAYSTATION_NO_SUCH'")).starts_with("secret_env: WAYSTATION_NO_SUCH: "));
        let tls = Config { url: "mqtts://h".into(), ca: "/none.pem".into(), ..table("") };
        assert!(error(tls).starts_with("ca: cannot read /none.pem: "));
    }

    #[test]
    fn a_file_without_an_authority_is_not_taken_for_trust_in_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, "").unwrap();
        let tls = Config { url: "mqtts://h".into(), ca: file.display().to_string(), ..table("") };
        assert!(error(tls).contains("holds no certificate in PEM"));
    }
}
