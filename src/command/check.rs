//! `waystation check`: what would run, without running it.

use crate::cli::RunArgs;
use std::{io::Write, process::ExitCode};
use waystation::{
    Config,
    auth::{FileError, Policy},
    gateways,
};
use waystation_kit::InvalidConfig;

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let config = match super::read_config(args) {
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
