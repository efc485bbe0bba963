//! Debian's mosquitto as the broker far away.

use super::{Broker, collect, eventually, wait};
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

/// A mosquitto that ends and comes back on the same port, with what it kept. Killed, by its process id, when dropped.
pub(crate) struct Cloud {
    port: u16,
    /// Its configuration and its data.
    dir: TempDir,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Cloud {
    /// Everybody may come in, over plain TCP.
    pub(crate) fn start() -> Self {
        Self::start_with("allow_anonymous true")
    }

    /// With these further lines behind `listener` in its configuration.
    pub(crate) fn start_with(lines: &str) -> Self {
        let mut cloud =
            Self { port: 0, dir: tempfile::tempdir().unwrap(), child: None, log: Arc::new(Mutex::default()) };
        for _ in 0..20 {
            // Below the ports that the system gives away, so that nobody takes it during an outage.
            cloud.port = fastrand::u16(10_000..30_000);
            cloud.configure(lines);
            if cloud.is_started() {
                return cloud;
            }
        }
        panic!("mosquitto does not start: {}", cloud.log());
    }

    /// With another configuration from the next start on.
    pub(crate) fn configure(&self, lines: &str) {
        let (port, data) = (self.port, self.dir.path().display());
        let config = format!(
            "user root\nlog_dest stderr\npersistence true\npersistence_location {data}/\nmax_queued_messages 100000\n\
             set_tcp_nodelay true\nlistener {port} 127.0.0.1\n{lines}\n"
        );
        std::fs::write(self.dir.path().join("mosquitto.conf"), config).unwrap();
    }

    /// The outage begins: an orderly end, all sessions are kept.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let status = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success() && wait(&mut child, super::PATIENCE).is_some(), "mosquitto does not end");
    }

    /// The outage is over.
    pub(crate) fn resume(&mut self) {
        assert!(self.is_started(), "mosquitto does not come back: {}", self.log());
    }

    /// What it has logged since it was last started.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn is_started(&mut self) -> bool {
        // Not in the search path of every user.
        let program = if std::path::Path::new(DEBIANS).exists() { DEBIANS } else { "mosquitto" };
        let config = self.dir.path().join("mosquitto.conf");
        let mut child = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error} (scripts/test installs it)"));
        self.log = collect(child.stderr.take().unwrap());
        let mut running = false;
        eventually("mosquitto runs, or says why not", || {
            running = self.log().contains(" running");
            running || child.try_wait().unwrap().is_some()
        });
        if running {
            self.child = Some(child);
        }
        running
    }
}

impl Broker for Cloud {
    fn mqtt(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of mosquitto ---\n{}", self.log());
        }
    }
}

const DEBIANS: &str = "/usr/sbin/mosquitto";
