use std::io;

use object_store::Error;

use super::{Verdict, verdict};
use crate::LakeError;
use crate::store::folder::{FileError, Step};

fn of_file(step: Step, source: io::Error) -> Verdict {
    let source = FileError::new(step, "lake/table/file".into(), source);
    verdict(&Error::Generic { store: "folder", source: source.into() })
}

#[test]
fn a_file_systems_answer_passes_or_ends_and_says_what_to_do() {
    use rustix::io::Errno;
    let cases = [
        (Step::Write, Errno::NOSPC, true, "free some space"),
        (Step::Write, Errno::DQUOT, true, "free some space"),
        (Step::Write, Errno::ACCESS, true, "let this user read and write"),
        (Step::Write, Errno::PERM, true, "let this user read and write"),
        (Step::Write, Errno::ROFS, true, "mount it for writing"),
        (Step::Write, Errno::MFILE, true, "ulimit"),
        (Step::Write, Errno::NFILE, true, "ulimit"),
        (Step::Write, Errno::STALE, true, "mount it again"),
        (Step::Sync, Errno::IO, true, "dmesg"),
        (Step::Write, Errno::NOENT, false, "mount its disk"),
        (Step::Write, Errno::NOTDIR, false, "same name"),
        (Step::Write, Errno::NAMETOOLONG, false, "shorter path"),
        (Step::Link, Errno::PERM, false, "no hard links"),
        (Step::Link, Errno::OPNOTSUPP, false, "no hard links"),
        (Step::Link, Errno::NOSYS, false, "no hard links"),
        (Step::Link, Errno::ACCESS, true, "let this user read and write"),
        (Step::Sync, Errno::INVAL, false, "fsync"),
    ];
    for (step, number, passes, advice) in cases {
        let found = of_file(step, io::Error::from_raw_os_error(number.raw_os_error()));
        assert_eq!(found.passes, passes, "{number}");
        assert!(found.advice.is_some_and(|text| text.contains(advice)), "{number}");
    }
}

#[test]
fn an_error_says_what_to_do_also_where_the_log_reader_has_hidden_the_store() {
    let full = || Error::Generic {
        store: "folder",
        source: FileError::new(Step::Write, "file".into(), io::ErrorKind::StorageFull.into()).into(),
    };
    let hidden = deltalake_core::DeltaTableError::from(delta_kernel::Error::ObjectStore(full()));
    for error in [LakeError::store("put")(full()), LakeError::delta("put")(hidden)] {
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "put: the disk or the quota is full: free some space");
    }
}

#[test]
fn an_object_that_is_missing_is_no_folder_that_is_gone() {
    let error =
        Error::NotFound { path: "file".to_owned(), source: io::Error::from(io::ErrorKind::NotFound).into() };
    assert_eq!(verdict(&error), Verdict { passes: false, advice: None });
}
