//! The files that AWS tools share, `~/.aws/credentials` and `~/.aws/config`, and one profile in them.
//!
//! The format is that of the [AWS SDKs](https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html): sections in brackets, and one
//! setting per line. In the second file, the word `profile` precedes a section's name. Settings of the first file take precedence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::variables::Variables;

/// The profile that is used if none is named.
const DEFAULT: &str = "default";

/// A profile, and the files that hold its settings.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    /// True if the user has chosen the profile. It must then exist.
    pub(crate) is_chosen: bool,
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// The settings of one profile.
pub(crate) type Settings = BTreeMap<String, String>;

impl Profile {
    /// Returns the profile and the files that the variables name.
    pub(crate) fn chosen(variables: &Variables) -> Profile {
        let home = variables.get("HOME").map(PathBuf::from);
        let file = |variable, name| {
            let named = variables.get(variable).map(|path| match (path.strip_prefix("~/"), &home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(path),
            });
            named.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
        };
        let name = variables.get("AWS_PROFILE").or_else(|| variables.get("AWS_DEFAULT_PROFILE"));
        Profile {
            is_chosen: name.is_some(),
            name: name.unwrap_or(DEFAULT).to_owned(),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
        }
    }

    /// Reads the profile's settings. Returns `None` if neither file has the profile.
    ///
    /// # Errors
    ///
    /// An error with the path of a file that exists but cannot be read.
    pub(crate) fn read(&self) -> std::io::Result<Option<Settings>> {
        let read = |path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(String::new()) };
            match std::fs::read_to_string(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                read => read.map_err(|error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                }),
            }
        };
        let (config, credentials) = (read(&self.config)?, read(&self.credentials)?);
        let long = format!("profile {}", self.name);
        let config = section(&config, |name| name == long || name == DEFAULT && self.name == DEFAULT);
        let credentials = section(&credentials, |name| name == self.name);
        Ok(match (config, credentials) {
            (None, None) => None,
            (config, credentials) => {
                let mut settings = config.unwrap_or_default();
                settings.extend(credentials.unwrap_or_default());
                Some(settings)
            }
        })
    }
}

/// Returns the settings of the sections whose name `is_asked` accepts. Returns `None` if there is no such section.
fn section(text: &str, is_asked: impl Fn(&str) -> bool) -> Option<Settings> {
    let (mut found, mut inside) = (None::<Settings>, false);
    for line in text.lines() {
        // An indented line belongs to the setting above it. Settings that have such lines are not used here.
        let is_comment = line.starts_with(['#', ';']);
        if line.trim().is_empty() || is_comment || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name =
                rest.split(']').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            inside = is_asked(&name);
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some((name, value)), Some(settings)) = (inside, line.split_once('='), &mut found)
        {
            let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default();
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# a comment
[default]
region=eu-west-1   # ours
[profile  work]
aws_access_key_id = AK=ID
s3 =
  endpoint_url = http://nested
; another
output = json ; as always
[other]
region = us-west-2
";

    #[test]
    fn a_section_is_found_by_its_name_and_holds_the_settings_up_to_the_next() {
        let settings = |profile: &str| section(FILE, |name| name == profile);
        let pairs = |settings: Option<Settings>| settings.unwrap().into_iter().collect::<Vec<_>>();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(settings("default")), [pair("region", "eu-west-1")]);
        let work = [pair("aws_access_key_id", "AK=ID"), pair("output", "json"), pair("s3", "")];
        assert_eq!(pairs(settings("profile work")), work);
        assert_eq!(settings("missing"), None);
    }
}
