//! Programs that nobody here wrote, as clients: mosquitto's, curl, and libraries of Python and JavaScript.

use crate::harness::{Broker, PATIENCE, Server, eventually, within};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

/// MQTT versions as mosquitto's clients name them.
pub(crate) const V31: &str = "mqttv31";
pub(crate) const V311: &str = "mqttv311";
pub(crate) const V5: &str = "mqttv5";

/// Runs a check with both versions, each on a server of its own.
pub(crate) fn do_both(check: impl Fn(&Server, &str)) {
    for version in [V311, V5] {
        eprintln!("with {version}");
        check(&Server::start(), version);
    }
}

/// A running program, killed when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error} (scripts/test installs what is missing)"));
        let output = Arc::new(Mutex::new(Vec::new()));
        keep_lines(child.stdout.take().unwrap(), &output);
        keep_lines(child.stderr.take().unwrap(), &output);
        Self { name, child, output }
    }

    /// What it has said so far, on both outputs.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lock().unwrap().clone()
    }

    /// Waits until it says so.
    pub(crate) fn says(&mut self, part: &str) {
        self.says_within(part, PATIENCE);
    }

    /// The same, for what takes longer.
    pub(crate) fn says_within(&mut self, part: &str, patience: Duration) {
        within(patience, &format!("{} says {part:?}; so far {:?}", self.name, self.lines()), || {
            let said = self.lines().iter().any(|line| line.contains(part));
            let ended = self.child.try_wait().unwrap();
            let count = Arc::strong_count(&self.output);
            assert!(said || ended.is_none() || count > 1, "{} ended: {:?}", self.name, self.lines());
            said
        });
    }

    /// Gives it a line on its standard input.
    pub(crate) fn hears(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its standard input is open");
        writeln!(input, "{line}").unwrap();
    }

    /// It ends well; all it said, without its debug lines.
    pub(crate) fn finish(self) -> Vec<String> {
        let (name, well, said) = self.end();
        assert!(well, "{name}: {said:?}");
        said.into_iter().filter(|line| !line.starts_with("Client ") && !line.starts_with("Subscribed ")).collect()
    }

    /// It ends well; all it said, its debug lines too.
    pub(crate) fn finish_with_debug(self) -> String {
        let (name, well, said) = self.end();
        assert!(well, "{name}: {said:?}");
        said.join("\n")
    }

    /// It ends, and not well; all it said.
    pub(crate) fn fails(self) -> String {
        let (name, well, said) = self.end();
        assert!(!well, "{name} ends well: {said:?}");
        said.join("\n")
    }

    fn end(mut self) -> (String, bool, Vec<String>) {
        drop(self.child.stdin.take());
        let name = self.name.clone();
        let mut status = None;
        eventually(&format!("{name} ends; so far {:?}", self.lines()), || {
            status = self.child.try_wait().unwrap();
            status.is_some() && Arc::strong_count(&self.output) == 1
        });
        (name, status.is_some_and(|it| it.success()), self.lines())
    }

    /// It vanishes without a word to the server.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mosquitto_sub`, once it is subscribed. `finish` gives its messages.
pub(crate) fn mosquitto_sub(broker: &impl Broker, version: &str, arguments: &[&str]) -> Program {
    let mut program = Program::start(mosquitto("mosquitto_sub", broker, version).arg("-d").args(arguments));
    program.says("Subscribed (mid");
    program
}

/// `mosquitto_sub` to its end; what it printed.
pub(crate) fn mosquitto_sub_to_the_end(broker: &impl Broker, version: &str, arguments: &[&str]) -> Vec<String> {
    Program::start(mosquitto("mosquitto_sub", broker, version).args(arguments)).finish()
}

/// `mosquitto_pub` to its end.
pub(crate) fn mosquitto_pub(broker: &impl Broker, version: &str, arguments: &[&str]) {
    Program::start(mosquitto("mosquitto_pub", broker, version).args(arguments)).finish();
}

/// `mosquitto_pub` that has these lines on its standard input.
pub(crate) fn mosquitto_pub_lines(broker: &impl Broker, version: &str, arguments: &[&str], lines: &[&str]) {
    let mut program = Program::start(mosquitto("mosquitto_pub", broker, version).arg("-l").args(arguments));
    lines.iter().for_each(|line| program.hears(line));
    program.finish();
}

/// One of mosquitto's clients, ready to start.
pub(crate) fn mosquitto(program: &str, broker: &impl Broker, version: &str) -> Command {
    // With line buffers, so that what it says is there when it says it.
    let mut command = Command::new("stdbuf");
    let port = broker.mqtt().port().to_string();
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &port, "-V", version]);
    command
}

/// What curl got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A curl that may have to wait for its answer.
pub(crate) struct Curl(Program);

impl Curl {
    /// `path` begins with `/v1`.
    pub(crate) fn start(server: &Server, path: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}"]).args(arguments);
        Self(Program::start(command.arg(server.url("http", "rest") + path)))
    }

    pub(crate) fn answer(self) -> Answer {
        let mut lines = self.0.finish();
        let status = lines.pop().and_then(|line| line.parse().ok()).expect("a status");
        Answer { status, body: lines.join("\n") }
    }
}

/// curl to its end.
pub(crate) fn curl(server: &Server, path: &str, arguments: &[&str]) -> Answer {
    Curl::start(server, path, arguments).answer()
}

/// A session made over REST.
pub(crate) fn rest_session(server: &Server, id: &str, filter: &str, more: &str) {
    let body = format!(r#"{{"subscriptions":[{{"filter":"{filter}","qos":2}}],"expiry":600{more}}}"#);
    let answer = curl(server, &format!("/v1/sessions/{id}"), &["-X", "PUT", "--data", &body]);
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// A program of `tests/clients`, and the generation of paho-mqtt it is to use: 2 is today's, 1 the one before.
pub(crate) fn python(script: &str, paho: u8, arguments: &[&str]) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // scripts/test makes it and says where.
    let python =
        std::env::var_os("WAYSTATION_TEST_PYTHON").map_or_else(|| root.join("target/venv/bin/python"), Into::into);
    let mut command = Command::new(&python);
    command.env_remove("PYTHONPATH").arg("-uB").arg(root.join("tests/clients").join(script)).args(arguments);
    if paho == 1 {
        command.env("PYTHONPATH", python.parent().expect("a folder").with_file_name("paho1"));
    }
    Program::start(&mut command)
}

/// A JavaScript program of `tests/clients`, in node.
pub(crate) fn node(script: &str, arguments: &[&str]) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // scripts/test fills it and says where.
    let modules = std::env::var_os("WAYSTATION_TEST_NODE_MODULES")
        .map_or_else(|| root.join("target/node/node_modules"), Into::into);
    assert!(modules.join("mqtt").is_dir(), "no mqtt.js in {} (scripts/test installs it)", modules.display());
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(root.join("tests/clients").join(script)).args(arguments);
    Program::start(&mut command)
}

fn keep_lines(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            lines.lock().unwrap().push(text);
            line.clear();
        }
    });
}
