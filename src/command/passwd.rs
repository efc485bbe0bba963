//! `waystation passwd`: add a user to a password file, or give him another password.

use crate::cli::PasswdArgs;
use anyhow::{Context, bail};
use std::{io::BufRead, process::ExitCode};

pub(crate) fn run(args: &PasswdArgs) -> ExitCode {
    match passwd(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, format_args!("{error:#}")),
    }
}

fn passwd(args: &PasswdArgs) -> anyhow::Result<()> {
    let password = if args.stdin { from_stdin()? } else { asked_for(&args.user)? };
    if password.is_empty() {
        bail!("an empty password lets everybody in who knows the name; give one");
    }
    waystation::auth::set_password_in(&args.file, &args.user, &password).map_err(anyhow::Error::msg)
}

/// The first line, without its end.
fn from_stdin() -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut line).context("standard input")?;
    line.pop_if(|last| *last == b'\n');
    line.pop_if(|last| *last == b'\r');
    Ok(line)
}

/// Twice, since nobody sees what he types.
fn asked_for(user: &str) -> anyhow::Result<Vec<u8>> {
    let ask = |prompt: String| rpassword::prompt_password(prompt).context("cannot ask for a password; use --stdin");
    let password = ask(format!("Password for {user}: "))?;
    if ask("The same again: ".into())? != password {
        bail!("that was not the same twice; nothing is changed");
    }
    Ok(password.into_bytes())
}
