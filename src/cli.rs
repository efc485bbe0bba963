//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// One server where three roads meet: MQTT, MQTT-SN and REST
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server in the foreground (the default)
    Run(RunArgs),
    /// Validate the configuration and print it as it would run, secrets masked
    Check(CheckArgs),
    /// Publish to any MQTT or MQTT-SN broker, or over REST
    Pub(PubArgs),
    /// Subscribe and print what comes
    Sub(SubArgs),
    /// Add or change a user of a password file
    Passwd(PasswdArgs),
    /// Load generator against any MQTT broker
    Bench(Box<waystation_lab::bench::Args>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Look the data folder through as well, without changing it
    #[arg(long)]
    pub(crate) data: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration file; without it config/waystation.toml, if that exists
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one key, as in gateways.mqtt.listen=127.0.0.1:1883; the value is TOML, else a string
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Where to, and as whom.
#[derive(Debug, Args)]
pub(crate) struct Road {
    /// mqtt://, mqtts://, ws://, wss://, mqttsn://, http:// or https://, with host and port; USER:PASSWORD@ may stand before them
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) url: String,
    /// User name
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Password
    #[arg(short = 'P', long)]
    pub(crate) password: Option<String>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate (PEM) to show to the server
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Client id; for `sub` over http:// the session to read
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// MQTT version
    #[arg(short = 'V', long = "protocol", value_enum, default_value_t = Version::V5)]
    pub(crate) version: Version,
}

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0
    #[value(name = "5")]
    V5,
}

#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// Topic
    #[arg(short, long)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) payload: Payload,
    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Keep the message as the topic's state
    #[arg(short, long)]
    pub(crate) retain: bool,
    #[command(flatten)]
    pub(crate) road: Road,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Payload {
    /// The payload
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// A file that holds the payload
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Publish each line of standard input
    #[arg(long)]
    pub(crate) lines: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// Topic filter
    #[arg(short = 't', long = "topic", value_name = "FILTER")]
    pub(crate) filter: String,
    /// End after this many messages
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Print the topic before each payload
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) road: Road,
}

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The password file (auth.password_file); made if it is not there
    pub(crate) file: PathBuf,
    /// The user to add, or to give another password
    pub(crate) user: String,
    /// Take the password from the first line of standard input
    #[arg(long)]
    pub(crate) stdin: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_without_a_command_are_those_of_run() {
        let cli = Cli::try_parse_from(["waystation", "--set", "log.level=warn"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.set, ["log.level=warn"]);
    }

    #[test]
    fn a_publication_has_exactly_one_payload() {
        assert!(Cli::try_parse_from(["waystation", "pub", "-t", "a"]).is_err());
        assert!(Cli::try_parse_from(["waystation", "pub", "-t", "a", "-m", "x", "--lines"]).is_err());
        assert!(Cli::try_parse_from(["waystation", "pub", "-t", "a", "-m", "x"]).is_ok());
    }
}
