//! What the machine says of itself and of a process.

use std::fs;
use std::time::Duration;

use crate::Result;

/// How long the machine is observed to see whether it is idle.
const LOOK: Duration = Duration::from_millis(500);

/// Processors that answer to us.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processes that ran or wanted to in the last minute, on average.
pub fn load() -> Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().parse()?)
}

/// Returns which part of all processors is busy for a moment, 0 to 1. This process waits, so it is the work of others.
pub async fn busy() -> Result<f64> {
    let before = Ticks::read(&fs::read_to_string("/proc/stat")?);
    tokio::time::sleep(LOOK).await;
    Ok(before.share_until(Ticks::read(&fs::read_to_string("/proc/stat")?)))
}

/// The time that all processors together have spent since they were started, in ticks.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    /// Reads the first line of `/proc/stat`: user, nice, system, idle, waiting for a disk, interrupts, stolen.
    fn read(stat: &str) -> Self {
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let fields: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        Self { idle: fields.iter().skip(3).take(2).sum(), all: fields.iter().sum() }
    }

    fn share_until(self, later: Self) -> f64 {
        let (idle, all) = (later.idle.saturating_sub(self.idle), later.all.saturating_sub(self.all));
        if all == 0 { 0.0 } else { all.saturating_sub(idle) as f64 / all as f64 }
    }
}

/// Returns the processor time of a process's threads, user and system, in milliseconds.
pub fn processor_ms(pid: u32) -> Result<f64> {
    let mut all_ns = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended in between has had its time.
        let times = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        all_ns += times.split(' ').next().unwrap_or_default().parse().unwrap_or(0.0);
    }
    Ok(all_ns / 1e6)
}

/// Reads a line of `/proc/<pid>/status` that counts memory, in MiB. `VmRSS` is what it has now, `VmHWM` the most that it ever had.
pub fn memory_mib(pid: u32, line: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = kib_of(&status, line).ok_or_else(|| format!("/proc/{pid}/status has no {line}"))?;
    Ok(kib / 1024.0)
}

fn kib_of(status: &str, line: &str) -> Option<f64> {
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_waits_for_a_disk_is_idle() {
        let before = Ticks::read("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1 2 3\n");
        let after = Ticks::read("cpu  120 0 60 860 60 0 0 0 99 99\n");
        assert_eq!(before.share_until(after), 0.3);
        assert_eq!(before.share_until(before), 0.0);
    }

    #[test]
    fn memory_is_read_by_the_name_of_its_line() {
        let status = "Name:\tVmRSS\nVmHWM:\t    5632 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!((kib_of(status, "VmRSS"), kib_of(status, "VmHWM")), (Some(2048.0), Some(5632.0)));
        assert_eq!(kib_of(status, "Vm"), None);
    }

    #[test]
    fn a_process_that_works_has_had_time_and_memory() {
        let pid = std::process::id();
        let before = processor_ms(pid).unwrap();
        let mut digits = 0;
        while processor_ms(pid).unwrap() < before + 1.0 {
            digits += format!("{digits}").len();
        }
        assert!(memory_mib(pid, "VmHWM").unwrap() >= memory_mib(pid, "VmRSS").unwrap() - 1.0);
    }
}
