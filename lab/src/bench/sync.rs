//! What the disk can do at best: a bare loop that appends a group of records to a file and syncs it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::args::Common;
use super::process::Process;
use super::progress::Progress;
use super::report::{self, Latency, Report};

/// Bytes of a record beside the payload: a topic, a key, numbers, a sum.
const AROUND: usize = 64;

/// The file begins anew past so many bytes, as the segments of a log do.
const SEGMENT: usize = 64 << 20;

pub(super) fn run(common: &Common, group: u32, folder: &Path) -> Result<Report> {
    let mut log = Log::new(folder)?;
    let bytes = vec![b'x'; (usize::try_from(common.size)? + AROUND) * usize::try_from(group)?];
    let warmup = if common.messages.is_some() { 0.0 } else { common.warmup };
    let warm = Instant::now() + Duration::from_secs_f64(warmup);
    while Instant::now() < warm {
        log.append(&bytes)?;
    }
    let mut times = Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3)?;
    let (own, began) = (Process::myself().usage()?, Instant::now());
    let last = began + Duration::from_secs_f64(common.duration);
    let groups = common.messages.map(|messages| u64::from(messages.div_ceil(group)));
    let progress = Progress::new(groups.unwrap_or(0), "syncing");
    loop {
        let over = match groups {
            Some(groups) => times.len() >= groups,
            None => Instant::now() >= last,
        };
        if over {
            break;
        }
        let since = Instant::now();
        log.append(&bytes)?;
        times.saturating_record(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
        progress.at(times.len(), String::new());
    }
    let spent = Process::myself().usage()?.cpu.saturating_sub(own.cpu);

    let mut report = Report::new("sync", common);
    report.url = folder.display().to_string();
    report.seconds = began.elapsed().as_secs_f64();
    let records = times.len() * u64::from(group);
    (report.sent, report.expected, report.delivered) = (records, records, records);
    report.sent_per_second = report::rate(records, report.seconds);
    (report.delivered_per_second, report.acknowledged_per_second) =
        (report.sent_per_second, Some(report.sent_per_second));
    report.acknowledgement = Latency::of(&times);
    report.generator_cpu_us = report::micros_each(spent, records);
    Ok(report)
}

/// A file that only grows, up to its bound; it is gone when this is.
struct Log {
    path: PathBuf,
    file: File,
    length: usize,
}

impl Log {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("bench-sync-{}", std::process::id()));
        let options = OpenOptions::new().create_new(true).append(true).clone();
        let file = options.open(&path).with_context(|| format!("cannot make {} (--folder)", path.display()))?;
        Ok(Self { path, file, length: 0 })
    }

    /// Appends, and returns when it is on disk.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.length >= SEGMENT {
            self.file.set_len(0)?;
            self.length = 0;
        }
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len();
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
