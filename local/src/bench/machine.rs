//! What the machine says of itself and of a process.

use std::fs;
use std::time::Duration;

use crate::Result;

/// How long the machine is observed to see whether it is idle.
const OBSERVATION: Duration = Duration::from_millis(500);

/// Returns which part of all processors is busy for a moment, 0 to 1. This process waits, so it is the work of others.
pub async fn busy() -> Result<f64> {
    let before = ticks(&fs::read_to_string("/proc/stat")?);
    tokio::time::sleep(OBSERVATION).await;
    let after = ticks(&fs::read_to_string("/proc/stat")?);
    Ok((after.0 - before.0) / (after.1 - before.1).max(1.0))
}

/// Reads from `/proc/stat` how long all processors together have worked, and how long they have been on. A processor that waits for a
/// disk is idle.
fn ticks(stat: &str) -> (f64, f64) {
    // User, nice, system, idle, waiting for a disk, interrupts, stolen.
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let all: f64 = fields.iter().sum();
    (all - fields.iter().skip(3).take(2).sum::<f64>(), all)
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
    let value =
        status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.strip_suffix(" kB"));
    let kib: f64 = value.ok_or_else(|| format!("/proc/{pid}/status has no {line}"))?.trim().parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_waits_for_a_disk_is_idle() {
        assert_eq!(ticks("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1 2 3\n"), (150.0, 1000.0));
    }

    #[test]
    fn busy_process_uses_time_and_memory() {
        let pid = std::process::id();
        let before = processor_ms(pid).unwrap();
        let mut digits = 0;
        while processor_ms(pid).unwrap() < before + 1.0 {
            digits += format!("{digits}").len();
        }
        assert!(memory_mib(pid, "VmHWM").unwrap() >= memory_mib(pid, "VmRSS").unwrap() - 1.0);
    }
}
