//! Starts the real server on free ports and stops it again.
//!
//! ```ignore
//! let server = Server::start();
//! let mut board = TcpStream::connect(server.address("mqtt"))?;
//! eventually("the board is gone", || nobody_connected());
//! assert!(server.stop().success());
//! ```

mod cloud;
mod line;

pub(crate) use cloud::Cloud;
pub(crate) use line::Line;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it. Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Somewhere to speak MQTT to.
pub(crate) trait Broker {
    /// Where, over TCP.
    fn mqtt(&self) -> SocketAddr;
}

/// A running server. Killed, by its process id, when dropped.
pub(crate) struct Server {
    child: Child,
    listening: HashMap<String, SocketAddr>,
    ready_line: String,
    log: Arc<Mutex<String>>,
    /// Its working directory.
    dir: Option<TempDir>,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Server {
    /// All gateways on free ports of loopback, everything else as it comes.
    pub(crate) fn start() -> Self {
        Self::start_with("", &[])
    }

    /// The same with a configuration file (none if empty) and further arguments.
    pub(crate) fn start_with(config: &str, arguments: &[&str]) -> Self {
        Self::try_start(config, arguments).unwrap_or_else(|ended| panic!("the server did not start: {ended:?}"))
    }

    /// The same, for servers that may refuse.
    pub(crate) fn try_start(config: &str, arguments: &[&str]) -> Result<Self, Ended> {
        Self::try_start_in(config, arguments, &[])
    }

    /// The same with environment variables.
    pub(crate) fn try_start_in(config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self, Ended> {
        let dir = tempfile::tempdir().unwrap();
        if !config.is_empty() {
            write_config(dir.path(), config);
        }
        Self::launch(dir, arguments, environment)
    }

    /// Starts where another server was: with its configuration file and its data folder.
    pub(crate) fn start_in(dir: TempDir, arguments: &[&str]) -> Result<Self, Ended> {
        Self::launch(dir, arguments, &[])
    }

    fn launch(dir: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self, Ended> {
        let mut child = waystation(dir.path())
            .args(ON_FREE_PORTS)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = collect(child.stderr.take().unwrap());
        let first_line = first_line(child.stdout.take().unwrap());
        let Some(ready_line) = first_line else {
            let code = wait(&mut child, PATIENCE).expect("a server that closed its output ends").code();
            let stderr = settled(&log);
            return Err(Ended { code, stdout: String::new(), stderr });
        };
        let pairs = ready_line.strip_prefix("waystation ready").expect("the first line says that it is ready");
        let listening = pairs
            .split_whitespace()
            .map(|pair| {
                let (name, address) = pair.split_once('=').expect("name=address");
                (name.to_owned(), address.parse().expect("an address"))
            })
            .collect();
        Ok(Self { child, listening, ready_line, log, dir: Some(dir) })
    }

    /// Where a listener is, by its name in the ready line.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        *self.listening.get(listener).unwrap_or_else(|| panic!("no {listener} in: {}", self.ready_line))
    }

    /// The URL of a listener: `url("mqttsn", "mqtt_sn")`.
    pub(crate) fn url(&self, scheme: &str, listener: &str) -> String {
        format!("{scheme}://{}", self.address(listener))
    }

    /// The line that said that everything is bound.
    pub(crate) fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// Everything it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its working directory, where `config/waystation.toml` is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().expect("it is given away only at the end").path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it has at the moment.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process has memory");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Puts another configuration file in place; it is read at the next `SIGHUP`.
    pub(crate) fn rewrite_config(&self, config: &str) {
        write_config(self.dir(), config);
    }

    /// Sends a signal by its name, as `kill` knows it.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success(), "cannot send {name} to {id}");
    }

    /// `SIGTERM`, and how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait(PATIENCE)
    }

    /// `SIGTERM`, how it ended, and its working directory.
    pub(crate) fn stop_and_keep(mut self) -> (ExitStatus, TempDir) {
        self.signal("TERM");
        let status = self.wait(PATIENCE);
        (status, self.dir.take().expect("it is given away only here"))
    }

    /// `SIGKILL`; gives its working directory as it is then.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.dir.take().expect("it is given away only here")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        wait(&mut self.child, patience)
            .unwrap_or_else(|| panic!("the server still runs after {patience:?}: {}", self.log()))
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Broker for Server {
    fn mqtt(&self) -> SocketAddr {
        self.address("mqtt")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

/// Runs `waystation` to its end, in an empty directory.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), arguments, &[])
}

/// Runs `waystation` to its end, in `dir`, with environment variables.
pub(crate) fn run_in(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = waystation(dir);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let Some(status) = wait(&mut child, PATIENCE) else {
        let _ = child.kill();
        panic!("`waystation {}` does not end: {}{}", arguments.join(" "), out.lock().unwrap(), err.lock().unwrap());
    };
    Ended { code: status.code(), stdout: settled(&out), stderr: settled(&err) }
}

/// Runs `waystation` to its end, in `dir`, with this on its standard input.
pub(crate) fn run_with_input(dir: &Path, arguments: &[&str], input: &str) -> Ended {
    let mut command = waystation(dir);
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    // Who reads no further has read enough.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let status = wait(&mut child, PATIENCE).expect("a command with its input ends");
    Ended { code: status.code(), stdout: settled(&out), stderr: settled(&err) }
}

/// The binary under test, with nothing of our environment that would reach its configuration.
pub(crate) fn waystation(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.current_dir(dir).env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WAYSTATION__") {
            command.env_remove(name);
        }
    }
    command
}

/// Writes `config/waystation.toml` below `dir`.
pub(crate) fn write_config(dir: &Path, config: &str) {
    std::fs::create_dir_all(dir.join("config")).unwrap();
    std::fs::write(dir.join("config/waystation.toml"), config).unwrap();
}

/// Waits until `holds` does; `what` says what is waited for.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// The same, for what takes longer.
pub(crate) fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Gateways on ports that the system picks.
const ON_FREE_PORTS: [&str; 6] = [
    "--set",
    "gateways.mqtt.listen=127.0.0.1:0",
    "--set",
    "gateways.mqtt_sn.listen=127.0.0.1:0",
    "--set",
    "gateways.rest.listen=127.0.0.1:0",
];

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first line, or `None` when the output ends before it.
fn first_line(output: impl Read + Send + 'static) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let _ = sender.send((read.is_ok_and(|bytes| bytes > 0)).then(|| line.trim_end().to_owned()));
        // Read on, so that nobody ever waits to write.
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    // A start reads what was kept.
    receiver.recv_timeout(3 * PATIENCE).expect("the server says that it is ready, or ends")
}

fn collect(mut output: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    text
}

/// The text once its program has ended: its thread lets go of it at the end of the output.
fn settled(text: &Arc<Mutex<String>>) -> String {
    eventually("the output ends", || Arc::strong_count(text) == 1);
    text.lock().unwrap().clone()
}
