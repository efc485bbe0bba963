//! The commands in the documentation do what the page says.
//!
//! In a fenced block of the language `console`, a line that begins with `$ ` is a command (it goes on in the next line
//! after a `\`), and what follows is what it prints. `…` stands for anything within a line, and alone for any lines.
//! All blocks of a page run in order, against one server.

use crate::{
    clients::Program,
    harness::{PATIENCE, Server},
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

const ANYTHING: char = '…';

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

#[test]
fn the_page_on_rest_says_what_happens() {
    follow("docs/rest.md", &Server::start(), &[]);
}

#[test]
fn the_page_on_webhooks_says_what_happens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = Server::start_with("[gateways.rest]\nallow_private_targets = true\n", &[]);
    let receiver = root.join("examples/rest/receiver.py");
    let mut command = Command::new("python3");
    let secret = "whsec_c2VjcmV0IG9mIHRoZSBob3VzZQ==";
    let mut app = Program::start(command.env("SECRET", secret).arg("-uBI").arg(receiver).args(["--port", "0"]));
    app.says("listening on ");
    let url = app.lines()[0].trim_start_matches("listening on ").trim_end_matches("/hook").to_owned();
    follow("docs/webhooks.md", &server, &[("http://localhost:9000", &url)]);
    app.says("house/kitchen/alarm: smoke");
}

#[test]
fn every_test_that_a_promise_names_exists() {
    assert!(named_tests("docs/promises.md") > 15);
}

#[test]
fn every_test_that_shows_a_row_of_the_rest_interface_exists() {
    assert!(named_tests("docs/rest-conformance.md") > 60);
}

/// How many tests a page's tables name; each has to be in the file named before it.
fn named_tests(page: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(page)).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`"));
    let mut named = 0;
    for row in rows {
        let mut file = String::new();
        for code in row.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                file = std::fs::read_to_string(root.join(code)).unwrap_or_else(|error| panic!("{code}: {error}"));
            } else if !file.is_empty() {
                assert!(file.contains(&format!("fn {code}(")), "there is no test {code}");
                named += 1;
            }
        }
    }
    named
}

/// Runs a page's commands, with the addresses that it names replaced.
fn follow(page: &str, server: &Server, addresses: &[(&str, &str)]) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{page} has no commands");
    let url = server.url("http", "rest");
    for Step { line, command, output } in steps {
        let real = |text: &str| {
            let start = text.replace("http://localhost:8080", &url);
            addresses.iter().fold(start, |text, (shown, actual)| text.replace(shown, actual))
        };
        let start = Instant::now();
        let mut bash = Command::new("timeout");
        bash.arg(PATIENCE.as_secs().to_string()).args(["bash", "-c", &real(&command)]).current_dir(server.dir());
        let done = bash.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).replace('\r', "");
        let said: Vec<&str> = said.lines().collect();
        let wanted: Vec<String> = output.iter().map(|line| real(line)).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        assert!(
            matches(&wanted, &said),
            "{page}:{line}: {command}\nshould print\n{}\nand prints\n{}\n{} after {:?}",
            wanted.join("\n"),
            said.join("\n"),
            String::from_utf8_lossy(&done.stderr),
            start.elapsed(),
        );
    }
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut goes_on = false;
    for (index, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(step) = steps.last_mut().filter(|_| goes_on) {
            step.command.push('\n');
            step.command.push_str(line);
            goes_on = line.ends_with('\\');
        } else if let Some(command) = line.strip_prefix("$ ") {
            goes_on = line.ends_with('\\');
            steps.push(Step { line: index + 1, command: command.into(), output: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            step.output.push(line.into());
        }
    }
    steps
}

/// Whether what was said is what was wanted, line by line.
fn matches(wanted: &[&str], said: &[&str]) -> bool {
    match wanted {
        [] => said.is_empty(),
        [one, rest @ ..] if one.chars().eq([ANYTHING]) => {
            (0..=said.len()).any(|skipped| matches(rest, &said[skipped..]))
        }
        [line, rest @ ..] => said.first().is_some_and(|first| alike(line, first)) && matches(rest, &said[1..]),
    }
}

/// Whether a line is as wanted, with anything where it says so.
fn alike(wanted: &str, said: &str) -> bool {
    let mut parts = wanted.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|start| said.strip_prefix(start)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found = if parts.peek().is_none() { rest.strip_suffix(part).map(|_| rest.len()) } else { rest.find(part) };
        let Some(at) = found else { return false };
        rest = &rest[(at + part.len()).min(rest.len())..];
    }
    rest.is_empty() || wanted.ends_with(ANYTHING)
}

#[test]
fn a_page_is_taken_apart_and_compared() {
    let page = "text\n```console\n$ one \\\n   more\nout\n$ two\n```\n```sh\n$ not this\n```\n";
    let step = |line, command: &str, output: &[&str]| Step {
        line,
        command: command.into(),
        output: output.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(steps(page), [step(3, "one \\\n   more", &["out"]), step(6, "two", &[])]);
    assert!(matches(&["a", "…", "z"], &["a", "b", "c", "z"]) && matches(&["a", "…", "z"], &["a", "z"]));
    assert!(!matches(&["a", "…", "z"], &["a", "b"]) && !matches(&[], &["a"]) && !matches(&["a"], &[]));
    assert!(alike("{\"id\":\"…\",\"n\":…}", "{\"id\":\"0f\",\"n\":1}") && alike("…", "anything") && alike("a", "a"));
    assert!(!alike("a…c", "ab") && !alike("a", "ab") && !alike("a…b…c", "ac") && alike("a…b…c", "a1b2c"));
}
