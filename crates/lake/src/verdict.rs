//! The meaning of each failure of the store, in one table: it passes by itself, or a person must act.
//!
//! | failure | the service | the person |
//! |---|---|---|
//! | a broken connection; 408, 429 or 5xx; 409 of a concurrent put; a bad checksum after transport | waits | |
//! | no connection or no answer in time, an unknown host name, an untrusted certificate | waits | checks address, network, certificates |
//! | access denied, unknown key, wrong or expired signature, wrong clock; no credentials | waits | grants access |
//! | a full disk or store, too many files, a stale NFS handle, an I/O error, a folder without write access | waits | repairs it |
//! | another region; no such bucket; a wrong bucket name; TLS on one side only; an answer not from S3 | ends | corrects the configuration |
//! | a file system without links or syncs; a store without conditional puts; any other rejected request | ends | uses another store |
//!
//! A service that waits reports the failure and the advice in its log and in `/ready`. A person may then correct the cause without touching
//! the service.

use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::causes::{cause, in_full};
use crate::outcome::Verdict;
use crate::store::folder::{FileError, Step};
use crate::store::refusal::Refusal;
use crate::store::renewal::NoCredentials;

/// Returns the meaning of an error of the store.
pub(crate) fn verdict(error: &object_store::Error) -> Verdict {
    use object_store::Error::{Generic, PermissionDenied, Unauthenticated};
    if !matches!(error, Generic { .. } | PermissionDenied { .. } | Unauthenticated { .. }) {
        // The error concerns one object: for example, the object does not exist, or it already exists.
        return Verdict { passes: false, advice: None };
    }
    if let Some(refusal) = cause::<Refusal>(error) {
        return refusal.verdict();
    }
    if let Some(missing) = cause::<NoCredentials>(error) {
        return Verdict::waits(missing.to_string());
    }
    if let Some(failure) = cause::<HttpError>(error) {
        return no_answer(failure);
    }
    if let Some(failure) = cause::<io::Error>(error) {
        return of_file(cause::<FileError>(error).map(|error| error.step), failure);
    }
    Verdict::passes()
}

/// Returns the error's text with advice.
pub(crate) fn with_advice(error: object_store::Error) -> String {
    let text = in_full(&error);
    match verdict(&error).advice {
        Some(advice) => format!("{text}: {advice}"),
        None => text,
    }
}

/// Returns the meaning of a request without an answer.
fn no_answer(error: &HttpError) -> Verdict {
    let text = in_full(error);
    let says = |part: &str| text.contains(part);
    if let Some(rustls) = cause::<rustls::Error>(error) {
        return match rustls {
            rustls::Error::InvalidMessage(_) => Verdict::ends(
                "the server does not speak TLS: let AWS_ENDPOINT_URL begin with http://, or name the TLS port",
            ),
            rustls::Error::InvalidCertificate(_) => Verdict::waits(
                "the store's certificate is not trusted: name its authority in SSL_CERT_FILE and start again, \
                 or give the store another certificate",
            ),
            _ => Verdict::waits("TLS with the store fails: check its certificate and AWS_ENDPOINT_URL"),
        };
    }
    if says("scheme is not allowed") {
        return Verdict::ends(
            "AWS_ALLOW_HTTP=false forbids the endpoint's http://: remove it, or use https://",
        );
    }
    if says("proxy auth") {
        return Verdict::ends(
            "the proxy requires a log-in: write user:password@ into the address in HTTPS_PROXY",
        );
    }
    if says("failed to lookup address") {
        return Verdict::waits(
            "the store's host name is not known: check AWS_ENDPOINT_URL, the bucket's name and the name server",
        );
    }
    match error.kind() {
        HttpErrorKind::Connect => Verdict::waits(
            "there is no connection to the store: check AWS_ENDPOINT_URL, the network and HTTPS_PROXY",
        ),
        HttpErrorKind::Timeout => {
            Verdict::waits("the store does not answer in time: check AWS_ENDPOINT_URL and the network")
        }
        _ => Verdict::passes(),
    }
}

/// Returns the meaning of an error of a file system.
fn of_file(step: Option<Step>, error: &io::Error) -> Verdict {
    use io::ErrorKind;
    let number = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    let is = |numbers: &[rustix::io::Errno]| number.is_some_and(|number| numbers.contains(&number));
    let cannot = [
        rustix::io::Errno::PERM,
        rustix::io::Errno::OPNOTSUPP,
        rustix::io::Errno::NOSYS,
        rustix::io::Errno::INVAL,
        rustix::io::Errno::MLINK,
    ];
    match step {
        Some(Step::Link) if is(&cannot) => {
            return Verdict::ends(
                "this file system has no hard links, so two writers could create the same log entry: \
                 put the lake on ext4, XFS, Btrfs, ZFS, APFS, NFS or an object store",
            );
        }
        Some(Step::Sync) if is(&cannot[1..]) => {
            return Verdict::ends(
                "this file system cannot sync files and folders to the disk (fsync): put the lake on another file system",
            );
        }
        _ => (),
    }
    if is(&[rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]) {
        return Verdict::waits("too many files are open: raise the limit (ulimit -n)");
    }
    if is(&[rustix::io::Errno::IO]) {
        return Verdict::waits("the disk reports an error: see the kernel's log (dmesg)");
    }
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Verdict::waits("the disk or the quota is full: free some space")
        }
        ErrorKind::PermissionDenied => Verdict::waits(
            "access to the lake's folder is denied: let this user read and write everything in it",
        ),
        ErrorKind::ReadOnlyFilesystem => {
            Verdict::waits("the file system is read-only: check the disk, then mount it for writing")
        }
        ErrorKind::StaleNetworkFileHandle => {
            Verdict::waits("the network file system has lost the folder: mount it again")
        }
        ErrorKind::NotFound => {
            Verdict::ends("a folder of the lake is gone: mount its disk or restore it, then start again")
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            Verdict::ends("a file and a folder have the same name: move away what is not the lake's")
        }
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            Verdict::ends("the file system does not accept the name: put the lake at a shorter path")
        }
        ErrorKind::Unsupported => Verdict::ends(
            "the file system does not support this operation: put the lake on another file system",
        ),
        _ => Verdict::passes(),
    }
}

#[cfg(test)]
mod tests;
