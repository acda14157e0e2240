//! A full disk.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use integration_tests::wait::eventually;

use crate::machine::{DEADLINE, Machine};

/// Size of the disk in MiB, twice what a fresh data folder takes.
const DISK_MIB: u32 = 160;

/// A small disk in memory. It is unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts the disk. Returns `None` and prints a note if this process may not mount.
    fn mount(path: PathBuf) -> anyhow::Result<Option<Disk>> {
        fs::create_dir(&path)?;
        let options = format!("size={DISK_MIB}m,mode=711");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output()?;
        if output.status.success() {
            return Ok(Some(Disk(path)));
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("SKIPPED: this test needs root to mount a small disk: {error}");
        Ok(None)
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path)?;
        let zeros = vec![0; 64 << 10];
        for _ in 0..u64::from(DISK_MIB) * 16 {
            match file.write_all(&zeros) {
                Ok(()) => (),
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        bail!("the disk does not fill up")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.0.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() -> anyhow::Result<()> {
    let Some((_, machine)) = Machine::new()? else { return Ok(()) };
    let (file, rows) = machine.candles("candles.csv", 2).await?;
    let Some(disk) = Disk::mount(machine.data())? else { return Ok(()) };
    let mut up = machine.up(&[(&file, "SAMPLE-USD")], &["--rate", "100/s"])?;
    machine.gold_beyond(&mut up, 0).await;
    let filler = disk.fill()?;
    // The process ends when a server cannot write, or it waits and logs the reason.
    eventually("up reports that it cannot write", DEADLINE, async || {
        let log = up.log().ok()?.to_lowercase();
        let is_told = log.contains("no space left") || log.contains("ended unexpectedly");
        (is_told || !up.is_running().ok()?).then_some(())
    })
    .await;
    fs::remove_file(filler)?;
    // A person restarts it.
    if up.is_running()? {
        up.terminate().await?;
    } else {
        ensure!(!up.ended().await?.success(), "it ends with an error: {}", up.log()?);
    }
    up.restart()?;
    up.ready().await;
    machine.is_exact(rows).await?;
    ensure!(up.terminate().await?.success(), "{}", up.log()?);
    drop(disk);
    Ok(())
}
