//! A process's CPU time and resident memory, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// `USER_HZ`: the unit of times in `/proc`, 100 on every Linux this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process being watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(u32);

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time of all its threads, past ones included.
    pub(super) cpu: Duration,
    pub(super) resident: u64,
}

impl Process {
    pub(super) fn new(pid: u32) -> Result<Self> {
        let process = Self(pid);
        process.usage().with_context(|| format!("no process {pid} to measure (--pid)"))?;
        Ok(process)
    }

    pub(super) fn myself() -> Self {
        Self(std::process::id())
    }

    pub(super) fn usage(self) -> Result<Usage> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.0));
        let cpu = cpu_of(&read("stat")?).context("/proc/PID/stat has no times")?;
        let resident = resident_of(&read("status")?).context("/proc/PID/status has no VmRSS")?;
        Ok(Usage { cpu, resident })
    }
}

fn cpu_of(stat: &str) -> Option<Duration> {
    // The command stands in parentheses and may hold anything; fields are counted from behind the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_command_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 75 0 0 20 0 1 0 5 1000 200";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(2_250)));
        assert_eq!(cpu_of("42 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(resident_of("Name:\tx\n"), None);
    }
}
