//! Location of PostgreSQL's programs in the distributions.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Layouts with several versions: the folder, the prefix of the version in a name, and the subfolder of the programs.
const LAYOUTS: [(&str, &str, &str); 3] = [
    ("usr/lib/postgresql", "", "bin"), // Debian, Ubuntu
    ("usr", "pgsql-", "bin"),          // Red Hat with PostgreSQL's own packages
    ("usr/lib", "postgresql", "bin"),  // SUSE
];

/// Returns the folder of the programs of the major version, or of the newest version. It searches the places of the distributions and the
/// PATH. Fedora, Arch and others have their only version on the PATH.
pub(super) fn find(major: Option<u32>) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| is_complete(folder));
    let on_path = on_path.filter_map(|folder| Some((version(&folder.join("postgres"))?, folder)));
    choose(side_by_side(Path::new("/")).chain(on_path), major).with_context(|| {
        let version = major.map(|major| format!(" {major}, which created the cluster")).unwrap_or_default();
        format!(
            "no PostgreSQL server{version}: neither below /usr/lib/postgresql, in /usr/pgsql-N nor on the PATH there is an initdb beside a \
             postgres; install it (script/setup does), or give a server with --postgres URL"
        )
    })
}

fn choose(found: impl Iterator<Item = (u32, PathBuf)>, major: Option<u32>) -> Option<PathBuf> {
    let usable = found.filter(|(version, _)| major.is_none_or(|major| major == *version));
    usable.max_by_key(|(version, _)| *version).map(|(_, folder)| folder)
}

fn side_by_side(root: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = |(folder, prefix, programs): (&str, &'static str, &'static str)| {
        let entries = root.join(folder).read_dir().into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(programs))).filter(|(_, folder)| is_complete(folder))
        })
    };
    LAYOUTS.into_iter().flat_map(entries).collect::<Vec<_>>().into_iter()
}

/// Returns true if the folder has both programs for creating and serving a cluster. Client packages have neither.
fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

/// Parses the major version from a program's output: `postgres (PostgreSQL) 17.6 (Fedora 17.6-1)`.
fn version(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    major(str::from_utf8(&output.stdout).ok()?)
}

fn major(answer: &str) -> Option<u32> {
    let (_, version) = answer.split_once(") ")?;
    version.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_version_is_found_in_every_layout() {
        let root = tempfile::tempdir().unwrap();
        let install = |folder: &str, programs: &[&str]| {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            for program in programs {
                std::fs::write(root.path().join(folder).join(program), "").unwrap();
            }
        };
        let found = |major| choose(side_by_side(root.path()), major);
        let at = |folder| Some(root.path().join(folder));
        assert_eq!(found(None), None);

        install("usr/lib/postgresql/9/bin", &["initdb", "postgres"]);
        install("usr/lib/postgresql/17/bin", &["psql"]); // The client alone.
        assert_eq!(found(None), at("usr/lib/postgresql/9/bin"));
        install("usr/pgsql-16/bin", &["initdb", "postgres"]);
        install("usr/lib/postgresql15/bin", &["initdb", "postgres"]);
        assert_eq!(found(None), at("usr/pgsql-16/bin"));
        assert_eq!(found(Some(15)), at("usr/lib/postgresql15/bin"));
        assert_eq!(found(Some(17)), None);
    }

    #[test]
    fn a_program_says_its_version() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
    }
}
