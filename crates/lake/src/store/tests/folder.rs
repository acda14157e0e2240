//! Tests of folders: errors of file systems, and files that killed puts leave. Root can mount file systems, so the tests of root use some
//! of their own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::super::folder::remove_staged;
use super::{Lake, LakeError};

/// Variable that gives the folder to the child of a test.
const CHILD: &str = "CANDLEFLIGHT_TEST_CHILD";
/// User who owns nothing.
const NOBODY: u32 = 65_534;

async fn open(folder: &Path) -> Result<Lake, LakeError> {
    Lake::open(folder.to_str().unwrap()).await
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_probe_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().probe().await.unwrap();
    assert_eq!(files_below(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await.unwrap();
    std::fs::remove_dir(folder.path()).unwrap();
    let error = lake.probe().await.unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("is gone: mount its disk"), "{error}");
    assert!(!folder.path().exists());
}

#[test]
fn what_killed_puts_have_left_is_removed_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("_delta_log");
    std::fs::create_dir(&log).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    let file = |name: &str, age: Duration| {
        let path = log.join(name);
        std::fs::File::create(&path).unwrap().set_modified(now - age).unwrap();
        path
    };
    let (hour, younger) = (Duration::from_hours(1), Duration::from_mins(59));
    let old = file("1.json#17", hour);
    let kept = [file("1.json", hour), file("2.json#1", younger), file("a#b.parquet", hour), file("x#", hour)];
    assert_eq!(remove_staged(folder.path(), hour, now).unwrap(), 1);
    assert!(!old.exists());
    assert!(kept.iter().all(|path| path.exists()));
}

/// A file system in memory, mounted until the test ends.
struct Mount(TempDir);

impl Mount {
    /// Returns a file system of 1 MiB, or prints that the test is skipped.
    fn new() -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"], folder.path());
        if !mounted {
            eprintln!("SKIPPED: only root can mount a file system");
        }
        mounted.then_some(Mount(folder))
    }

    fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", options], self.0.path()));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["--lazy"], self.0.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    Command::new(program).args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn a_full_disk_and_a_read_only_one_are_waited_for() {
    let Some(mount) = Mount::new() else { return };
    let lake = open(mount.0.path()).await.unwrap();
    let fails = async |advice: &str| {
        let error = lake.probe().await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
    };
    let filler = mount.0.path().join("filler");
    std::fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    fails("free some space").await;
    std::fs::remove_file(filler).unwrap();
    lake.probe().await.unwrap();
    mount.remount("remount,ro");
    fails("read-only").await;
    mount.remount("remount,rw");
    lake.probe().await.unwrap();
}

#[test]
fn a_folder_that_may_not_be_written_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("_probe");
    std::fs::create_dir(&table).unwrap();
    let mode = |path: &Path, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    mode(folder.path(), 0o555);
    mode(&table, 0o555);
    // Another user can run this program through its link in /proc, even if the folder above it is closed to others.
    let mut child = Command::new("/proc/self/exe");
    child
        .args(["--exact", "store::tests::folder::child_that_may_not_write", "--ignored"])
        .env(CHILD, folder.path());
    // Root may write everywhere.
    if rustix::process::geteuid().is_root() {
        child.uid(NOBODY).current_dir("/");
    }
    let output = child.output().unwrap();
    mode(&table, 0o755);
    mode(folder.path(), 0o755);
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
#[ignore = "run by the test of a folder that may not be written"]
async fn child_that_may_not_write() {
    let folder = std::env::var(CHILD).expect("the parent sets it");
    let error = open(Path::new(&folder)).await.unwrap().probe().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("let this user read and write"), "{error}");
}

#[test]
fn too_many_open_files_are_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -n 64; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::folder::child_that_may_open_few_files", "--ignored"])
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
#[ignore = "run by the test of too many open files"]
async fn child_that_may_open_few_files() {
    let folder = std::env::var(CHILD).expect("the parent sets it");
    let lake = open(Path::new(&folder)).await.unwrap();
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let error = lake.probe().await.unwrap_err();
    drop(held);
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("ulimit"), "{error}");
    lake.probe().await.unwrap();
}
