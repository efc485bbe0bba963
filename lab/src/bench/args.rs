//! The command line of `waystation bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

/// Load generator against any MQTT broker, any MQTT-SN gateway, and Waystation's HTTP
///
/// Every message carries its publisher, a sequence number and the time it was sent; loss, duplicates and latency are
/// counted, not estimated. At most a window of messages is under way at a time, so that no broker is driven into
/// dropping QoS 0. With --pid (same machine, Linux) the broker's CPU time per delivered message and its memory are
/// measured as well.
///
/// Exit code 1: messages lost at QoS 1 or 2, duplicates at QoS 2, refused publishes, or connections that ended early.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub scenario: Scenario,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: Common,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum Scenario {
    /// Many publishers, one subscriber
    FanIn {
        /// Publishing connections, each with a topic of its own
        #[arg(long, default_value_t = 50, value_parser = at_least_one())]
        publishers: u32,
    },
    /// One publisher, many subscribers
    FanOut {
        /// Subscribing connections
        #[arg(long, default_value_t = 100, value_parser = at_least_one())]
        subscribers: u32,
    },
    /// Pairs of one publisher and one subscriber, each pair on its own topic
    ///
    /// `--pairs 1000 --batch 2` is the load of many chatty devices: one or two messages a burst.
    Pairs {
        /// Pairs of connections
        #[arg(long, default_value_t = 100, value_parser = at_least_one())]
        pairs: u32,
    },
    /// Fan-in with publishers that take another topic for every message
    Rotate {
        /// Publishing connections
        #[arg(long, default_value_t = 50, value_parser = at_least_one())]
        publishers: u32,
        /// Topics each publisher rotates over
        #[arg(long, default_value_t = 50, value_parser = at_least_one())]
        topics: u32,
    },
    /// One publisher at a fixed rate, one subscriber: percentiles of the time from send to receipt
    Latency {
        /// Messages a second
        #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
        rate: u32,
    },
    /// Many filters in the tree, half of them with wildcards; every publish matches three
    Filters {
        /// Filters in all
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(16..))]
        filters: u32,
        /// Filters a connection subscribes to at most (brokers have a limit)
        #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
        per_connection: u32,
    },
    /// Publishers into the queue of a session that outlives its connection (-q 1 or 2): time to the acknowledgement
    ///
    /// When all is measured a session that was away comes back and gets everything. Give the broker room for it.
    Durable {
        /// Messages under way to their acknowledgements, over all publishers
        #[arg(long, default_value_t = 128, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        flight: u32,
        /// Publishing connections, at most one a message under way
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        publishers: u32,
        /// What the session's client does meanwhile
        #[arg(long, value_enum, default_value = "away")]
        session: Client,
    },
    /// A bare loop that appends groups of records to a file and syncs it: the floor to measure `durable` against
    Sync {
        /// Records in a group
        #[arg(long, default_value_t = 128, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        group: u32,
        /// Where the file is to be: on the disk that the broker uses
        #[arg(long, default_value = ".")]
        folder: PathBuf,
    },
    /// Connections with one subscription each that do nothing: the broker's memory per connection (needs --pid)
    Idle {
        /// Connections (one address has some 28,000 ports; raise `ulimit -n` on both sides)
        #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
        connections: u32,
    },
    /// Retained messages set one by one, then replayed to a new subscriber, then cleared
    Retained {
        /// Retained messages
        #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
        count: u32,
    },
    /// Connect, subscribe, publish to oneself, receive, disconnect; again and again
    Churn {
        /// Clients at a time, one thread each
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
        concurrency: u32,
    },
    /// Publishes over HTTP (--url http://HOST:PORT); an answer counts as a delivery
    Http {
        /// Connections with one request under way each
        #[arg(long, default_value_t = 50, value_parser = at_least_one())]
        connections: u32,
        /// One request a connection, with an NDJSON line a message
        #[arg(long)]
        bulk: bool,
    },
    /// From a publish by MQTT to the body at a reader that waits over HTTP, and to an MQTT subscriber beside it
    Handover {
        /// The same server's HTTP, http://HOST:PORT
        #[arg(long, value_name = "URL")]
        http: String,
        /// Messages a second
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rate: u32,
    },
    /// Readers over HTTP that wait for what does not come: the server's memory for each (needs --pid)
    Held {
        /// Connections (raise `ulimit -n` on both sides, and the server's `max_connections`)
        #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
        connections: u32,
        /// What they wait for
        #[arg(long, value_enum, default_value = "state")]
        on: Wait,
    },
    /// A bare HTTP handler that only reads the body: the floor to measure `http` against
    #[command(hide = true)]
    Floor,
    /// A fleet of MQTT-SN boards that publish flat out, one message under way each (--url mqttsn://HOST:PORT, -q 1 or
    /// 2), or are published to (--down, -q 0 or 1)
    Boards(Fleet),
}

/// What the client of a kept session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// It is not connected
    Away,
    /// It takes what comes
    Reading,
}

/// What readers over HTTP wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// A topic's state, none of which there is
    State,
    /// Messages of a session
    Session,
    /// A stream of server-sent events
    Stream,
}

/// Whom messages to boards are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Down {
    /// Each for all boards
    All,
    /// Each for one board, in turn
    One,
}

/// A fleet of MQTT-SN boards, and the air between them and the gateway.
#[derive(Debug, Clone, clap::Args)]
pub struct Fleet {
    /// Boards, one UDP socket each (raise `ulimit -n`)
    #[arg(long, default_value_t = 100, value_parser = at_least_one())]
    pub boards: u32,
    /// The other direction: messages are published by MQTT, each to all boards or to one after the other
    #[arg(long, value_enum, requires = "from")]
    pub down: Option<Down>,
    /// The same server's MQTT, mqtt://HOST:PORT
    #[arg(long, value_name = "URL", requires = "down")]
    pub from: Option<String>,
    /// Datagrams lost, per cent, each way
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = per_cent)]
    pub loss: f64,
    /// Datagrams that come twice, per cent, each way
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = per_cent)]
    pub duplication: f64,
    /// Datagrams that are held back for 5 ms, so that others overtake them, per cent, each way
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = per_cent)]
    pub reordering: f64,
    /// The same seed gives datagrams the same sequence of fates
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sleep and wake after every so many messages
    #[arg(long, value_name = "MESSAGES", value_parser = at_least_one())]
    pub sleep_every: Option<u32>,
    /// Take a new address after every so many messages
    #[arg(long, value_name = "MESSAGES", value_parser = at_least_one())]
    pub move_every: Option<u32>,
    /// Milliseconds until something unanswered is sent again
    #[arg(long, default_value_t = 1_000, value_name = "MILLISECONDS", value_parser = at_least_one())]
    pub retry_ms: u32,
}

/// What all scenarios share.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// The broker, mqtt://HOST:PORT or mqtts://HOST:PORT; for `boards` the gateway, mqttsn://HOST:PORT; for `http` and `held`
    /// http://HOST:PORT
    #[arg(long, global = true, default_value = "mqtt://127.0.0.1:1883", value_name = "URL")]
    pub url: String,
    /// Subscribe at this broker instead: what is measured is a bridge for bench/# between the two
    #[arg(long, global = true, value_name = "URL")]
    pub to: Option<String>,
    /// Protocol version
    #[arg(long, global = true, value_enum, default_value = "3.1.1")]
    pub mqtt: Mqtt,
    /// Quality of service of publishes and subscriptions
    #[arg(long, short, global = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Bytes of payload (16 of them are the sender's stamp)
    #[arg(long, global = true, default_value_t = 256, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub size: u32,
    /// Measure this many seconds, after the warm-up
    #[arg(long, global = true, default_value_t = 5.0, value_name = "SECONDS", value_parser = seconds)]
    pub duration: f64,
    /// Send before measuring begins
    #[arg(long, global = true, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    pub warmup: f64,
    /// Send this many messages in all instead of for a time; no warm-up
    #[arg(long, global = true, value_name = "COUNT", conflicts_with = "duration", value_parser = at_least_one())]
    pub messages: Option<u32>,
    /// QoS 1 and 2: unacknowledged messages a publisher has at most (an MQTT 5 broker's receive maximum lowers it)
    #[arg(long, global = true, default_value_t = 100, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=32_000))]
    pub inflight: u32,
    /// Messages under way to one subscriber at most [default: 64 KiB to 1 MiB worth, by scenario]
    #[arg(long, global = true, value_name = "COUNT", value_parser = at_least_one())]
    pub window: Option<u32>,
    /// Messages a publisher sends in one burst at most; without --window also the window of a pair
    /// [default: half its share of the window, up to 64 KiB]
    #[arg(long, global = true, value_name = "COUNT", value_parser = at_least_one())]
    pub batch: Option<u32>,
    /// The broker's process: measure its CPU time and resident memory
    #[arg(long, global = true)]
    pub pid: Option<u32>,
    /// Without any delivery for so long, what is under way counts as lost
    #[arg(long, global = true, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    pub patience: f64,
    /// User name
    #[arg(long, short, global = true, requires = "password")]
    pub user: Option<String>,
    /// Password
    #[arg(long, short = 'P', global = true, requires = "user")]
    pub password: Option<String>,
    /// For mqtts://, the authority that signed the broker's certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<String>,
    /// Print the report as one JSON object
    #[arg(long, global = true)]
    pub json: bool,
}

impl Common {
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience.max(0.1))
    }
}

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mqtt {
    /// MQTT 3.1.1
    #[value(name = "3.1.1", alias = "4")]
    V3,
    /// MQTT 5.0
    #[value(name = "5", alias = "5.0")]
    V5,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000_000)
}

fn per_cent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=90.0).contains(&value) => Ok(value),
        _ => Err("per cent from 0 to 90, for example 2.5".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0 to 86400, for example 2.5".to_owned()),
    }
}
