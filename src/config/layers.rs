//! Where values come from: defaults, file, environment, command line; later ones win, and each remembers its source.

use super::{ConfigError, words};
use std::{collections::BTreeMap, fmt, path::Path};
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// What all layers together say, and which of them said it.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    table: Table,
    /// By dotted key. Every key of the file, and every key set elsewhere.
    origins: BTreeMap<String, Source>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of a file.
    Line {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// A file as a whole.
    File(String),
    /// An environment variable.
    Environment(String),
    /// `--set`, with its text.
    Set(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::File(file) => f.write_str(file),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// Used when there is no `--config` and it exists.
const DEFAULT_FILE: &str = "config/waystation.toml";

/// What the names of our environment variables begin with; `__` stands for the dot.
const PREFIX: &str = "WAYSTATION__";

impl Layers {
    /// The layers of a process: `file` (else `config/waystation.toml` if there is one), its environment, `assignments`.
    ///
    /// # Errors
    /// A layer that cannot be read.
    pub fn gather(file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        let default = Path::new(DEFAULT_FILE);
        if let Some(file) = file.or_else(|| default.exists().then_some(default)) {
            layers = layers.with_file(file)?;
        }
        // A variable that is not Unicode cannot be one of ours.
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        layers = layers.with_environment(variables)?;
        assignments.iter().try_fold(layers, |layers, text| layers.with_assignment(text))
    }

    /// Lays a file on top.
    ///
    /// # Errors
    /// It cannot be read, or is no TOML.
    pub fn with_file(self, path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            source: Some(Source::File(name.clone())),
            key: String::new(),
            why: format!("cannot be read: {error}"),
        })?;
        self.with_text(&name, &text)
    }

    /// Lays TOML text on top; `name` stands for it in messages.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn with_text(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        let broken = |error: &toml::de::Error| ConfigError {
            source: Some(Source::Line { file: name.into(), line: line(text, error.span().map_or(0, |s| s.start)) }),
            key: String::new(),
            why: format!("this is not TOML: {}", error.message().trim().replace('\n', "; ")),
        };
        let spans = DeTable::parse(text).map_err(|error| broken(&error))?;
        let table = toml::from_str(text).map_err(|error| broken(&error))?;
        merge(&mut self.table, table);
        record(spans.get_ref(), "", &mut |key, at| {
            self.origins.insert(key, Source::Line { file: name.into(), line: line(text, at) });
        });
        Ok(self)
    }

    /// Lays those of the variables on top that are ours (`WAYSTATION__LIMITS__MAX_QOS`).
    ///
    /// # Errors
    /// A name without a key.
    pub fn with_environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        // The environment has no order of its own; sorted, the outcome is the same each time.
        let ours: BTreeMap<_, _> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        for (name, text) in ours {
            let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            let source = Source::Environment(name);
            if path.iter().any(String::is_empty) {
                let why = format!("names no key; expected a name such as {PREFIX}LIMITS__MAX_QOS");
                return Err(ConfigError { source: Some(source), key: String::new(), why });
            }
            self.assign(&path, &text, source);
        }
        Ok(self)
    }

    /// Lays `key=value` on top. The value is TOML, else a string.
    ///
    /// # Errors
    /// There is no `=`, or the key is none.
    pub fn with_assignment(mut self, text: &str) -> Result<Self, ConfigError> {
        let source = Source::Set(text.into());
        let wrong = |why: &str| ConfigError { source: Some(source.clone()), key: String::new(), why: why.into() };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("expected KEY=VALUE"))?;
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong("expected a dotted key before the `=`, such as gateways.mqtt.listen"));
        }
        self.assign(&path, value.trim(), source.clone());
        Ok(self)
    }

    /// What all layers together say.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Where the value of a dotted key came from: itself, else the first key below it, else the nearest table or list
    /// around it.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&Source> {
        if let Some(source) = self.origins.get(key).or_else(|| self.below(key)) {
            return Some(source);
        }
        let mut key = key;
        loop {
            if let Some(source) = self.origins.get(key) {
                return Some(source);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// Where the first value below a key came from: who set `a.b` made the table `a`.
    fn below(&self, key: &str) -> Option<&Source> {
        let prefix = format!("{key}.");
        let (first, source) = self.origins.range(prefix.clone()..).next()?;
        first.starts_with(&prefix).then_some(source)
    }

    /// An error about a key, with the place it came from.
    #[must_use]
    pub fn error(&self, key: &str, why: impl Into<String>) -> ConfigError {
        ConfigError { source: self.source(key).cloned(), key: key.into(), why: why.into() }
    }

    fn assign(&mut self, path: &[String], text: &str, source: Source) {
        let value = text.parse::<Value>().unwrap_or_else(|_| Value::String(text.into()));
        let key = path.join(".");
        // What the file said below this key no longer counts, unless both are tables and are merged.
        if !value.is_table() {
            let below = |known: &String| known.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', '[']));
            self.origins.retain(|known, _| !below(known));
        }
        self.origins.insert(key, source);
        let nested =
            path.iter().rev().fold(value, |value, name| Value::Table(Table::from_iter([(name.clone(), value)])));
        if let Value::Table(table) = nested {
            merge(&mut self.table, table);
        }
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Tells `found` the dotted name and the byte offset of every key and list element.
fn record(table: &DeTable<'_>, prefix: &str, found: &mut impl FnMut(String, usize)) {
    for (key, value) in table {
        let name = words::join(prefix, key.get_ref());
        found(name.clone(), key.span().start);
        record_value(value, &name, found);
    }
}

fn record_value(value: &Spanned<DeValue<'_>>, name: &str, found: &mut impl FnMut(String, usize)) {
    match value.get_ref() {
        DeValue::Table(table) => record(table, name, found),
        DeValue::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let name = format!("{name}[{index}]");
                found(name.clone(), element.span().start);
                record_value(element, &name, found);
            }
        }
        _ => {}
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(layers: &Layers, key: &str) -> String {
        layers.source(key).map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn later_layers_win_and_leave_the_rest() {
        let layers = Layers::default()
            .with_text("f.toml", "[limits]\nmax_qos = 0\nmax_inflight = 5\n[log]\nlevel = \"warn\"\n")
            .unwrap()
            .with_environment(
                [("WAYSTATION__LIMITS__MAX_QOS".into(), "1".into()), ("HOME".into(), "/".into())].into_iter(),
            )
            .unwrap()
            .with_assignment("log.level = debug")
            .unwrap();
        let expected: Table =
            toml::from_str("limits = { max_qos = 1, max_inflight = 5 }\nlog = { level = \"debug\" }").unwrap();
        assert_eq!(layers.table(), &expected);
        assert_eq!(line_of(&layers, "limits.max_qos"), "environment variable WAYSTATION__LIMITS__MAX_QOS");
        assert_eq!(line_of(&layers, "limits.max_inflight"), "f.toml:3");
        assert_eq!(line_of(&layers, "log.level"), "--set log.level = debug");
    }

    #[test]
    fn values_are_toml_and_otherwise_strings() {
        let read = |text: &str| Layers::default().with_assignment(text).unwrap().table()["a"].clone();
        assert_eq!(read("a=true"), Value::Boolean(true));
        assert_eq!(read("a=[1, 2]"), Value::Array(vec![1.into(), 2.into()]));
        assert_eq!(read("a=127.0.0.1:1883"), Value::String("127.0.0.1:1883".into()));
        assert_eq!(read("a="), Value::String(String::new()));
        assert_eq!(read("a='x'"), Value::String("x".into()));
    }

    #[test]
    fn a_value_cannot_smuggle_in_other_keys() {
        let layers = Layers::default().with_assignment("a=1\nb = 2").unwrap();
        assert_eq!(layers.table().keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn list_elements_have_their_own_lines() {
        let layers = Layers::default().with_text("f", "[[c]]\nid = 1\n[[c]]\nid = 2\nx = [\n 1,\n 2]\n").unwrap();
        assert_eq!(line_of(&layers, "c[1].id"), "f:4");
        assert_eq!(line_of(&layers, "c[1].missing"), "f:3");
        assert_eq!(line_of(&layers, "c[1].x[1]"), "f:7");
    }

    #[test]
    fn who_set_something_below_a_key_is_named_for_it() {
        let layers = Layers::default().with_text("f", "a.b = 1\n").unwrap().with_assignment("limit.x=1").unwrap();
        assert_eq!(line_of(&layers, "limit"), "--set limit.x=1");
        assert_eq!(line_of(&layers, "limi"), "");
        assert_eq!(line_of(&layers, "a"), "f:1");
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let error = Layers::default().with_text("f", "a = 1\nb = = 2\n").unwrap_err();
        assert!(error.to_string().starts_with("f:2: this is not TOML: "), "{error}");
    }

    #[test]
    fn an_assignment_needs_a_key() {
        assert!(Layers::default().with_assignment("nothing").is_err());
        assert!(Layers::default().with_assignment("a..b=1").is_err());
    }
}
