//! `waystation check`: what would run, without running it.

use crate::cli::CheckArgs;
use std::{io::Write, process::ExitCode};
use waystation::{
    Config,
    auth::{FileError, Policy},
    gateways,
};
use waystation_broker::store::disk::{self, Examined, FlawKind};
use waystation_kit::InvalidConfig;

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let config = match super::read_config(&args.run) {
        Ok(config) => config,
        Err(error) => return super::fail(super::BAD_CONFIG, error),
    };
    match Policy::read(config.auth.clone()) {
        Ok(_) => {}
        Err(FileError::Wrong(error)) => return super::fail(super::BAD_CONFIG, error),
        Err(error) => return super::fail(1, error),
    }
    if let Err(error) = look(&config) {
        return super::fail(1, error);
    }
    match std::io::stdout().write_all(config.to_masked_toml().as_bytes()) {
        Ok(()) if args.data => look_at_data(&config.data_dir),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, error),
    }
}

/// Says what the data folder holds, as a comment below the configuration, and what is wrong with it.
fn look_at_data(data_dir: &str) -> ExitCode {
    let found = match (data_dir, disk::examine(data_dir.as_ref())) {
        ("", _) => {
            return say("# data folder: none (data_dir is empty)");
        }
        (_, Ok(None)) => return say(&format!("# data folder {data_dir}: nothing in it yet")),
        (_, Ok(Some(found))) => found,
        (_, Err(error)) => return super::fail(1, error),
    };
    let Examined { flaws, unreadable, records, damaged, bytes } = found;
    let said = say(&format!("# data folder {data_dir}: {records} records whole, {damaged} damaged, {bytes} bytes"));
    for flaw in &flaws {
        eprintln!("waystation: {flaw}");
    }
    for what in &unreadable {
        eprintln!("waystation: cannot be read: {what}");
    }
    // A torn tail is what every kill leaves.
    let damage = flaws.iter().any(|flaw| flaw.kind == FlawKind::Damage) || damaged > 0 || !unreadable.is_empty();
    if damage { ExitCode::from(1) } else { said }
}

fn say(line: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, error),
    }
}

/// Reads the files that enabled gateways name: certificates, keys.
fn look(config: &Config) -> Result<(), InvalidConfig> {
    let registry = gateways::registry();
    for gateway in config.gateways.iter().filter(|gateway| gateway.enabled) {
        let Some(kind) = registry.kind(gateway.kind) else { continue };
        kind.look(gateway.table.clone()).map_err(|InvalidConfig { key, why }| InvalidConfig {
            key: format!("gateways.{}.{key}", gateway.name),
            why,
        })?;
    }
    Ok(())
}
