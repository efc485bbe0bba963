//! The interface's description: valid by a validator, and kept to under a fuzzer, neither of them ours.

use crate::harness::Server;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A program of the Python that `scripts/test` makes.
fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("WAYSTATION_TEST_PYTHON").map_or_else(|| root.join("target/venv/bin/python"), Into::into);
    python.parent().expect("a folder").join(name)
}

fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_description_is_valid() {
    let server = Server::start();
    let url = format!("{}/openapi.json", server.url("http", "rest"));
    let document = server.dir().join("openapi.json");
    passes(Command::new("curl").args(["-sSf", "-o"]).arg(&document).arg(url));
    passes(Command::new(tool("openapi-spec-validator")).arg(&document));
}

/// Nothing a request contains makes a 500, and what is answered is what is described.
#[test]
fn the_description_holds_under_fuzzing() {
    let server = Server::start_with("[gateways.rest]\nmax_wait_s = 1\n", &[]);
    let url = format!("{}/openapi.json", server.url("http", "rest"));
    let fuzz = |checks: &str, which: &[&str]| {
        let fixed = ["--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "7", "--no-color"];
        let mut command = Command::new(tool("schemathesis"));
        command.current_dir(server.dir()).args(["run", &url, "--checks", checks]).args(fixed).args(which);
        passes(&mut command);
    };
    let answers = "status_code_conformance,content_type_conformance,response_schema_conformance";
    // A stream has no end, and a request without a responder is a 503 by design.
    let bounded = ["--exclude-path-regex", "stream|^/v1/messages|request"];
    fuzz(&format!("not_a_server_error,{answers},unsupported_method"), &bounded);
    fuzz(answers, &["--include-path-regex", "/v1/messages|request"]);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
