//! A checkout by a git that is configured as on Windows.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use tempfile::TempDir;

#[test]
fn line_ends_are_the_same_whatever_core_autocrlf_says() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join(".git").exists() {
        eprintln!("SKIPPED: this is not a git checkout");
        return Ok(());
    }
    let folder = TempDir::new()?;
    let clone = folder.path().join("clone");
    let cloned = Command::new("git")
        .args(["clone", "--quiet", "--config", "core.autocrlf=true"])
        .args([&root, &clone])
        .output()?;
    ensure!(cloned.status.success(), "clone: {}", String::from_utf8_lossy(&cloned.stderr));
    let output = Command::new("git").args(["ls-files", "--eol"]).current_dir(&clone).output()?;
    let files = String::from_utf8(output.stdout)?;
    ensure!(files.contains("superset/start"), "the checkout has files: {files}");
    let changed: Vec<&str> =
        files.lines().filter(|file| file.contains("w/crlf") || file.contains("w/mixed")).collect();
    ensure!(changed.is_empty(), "carriage returns in {changed:?}");
    Ok(())
}
