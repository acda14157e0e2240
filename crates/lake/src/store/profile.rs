//! The files that AWS tools share: `~/.aws/credentials` and `~/.aws/config`, and one profile of them.
//!
//! The format is that of the [AWS SDKs](https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html): sections in brackets, in
//! the second file with the word `profile` in front, and a setting a line. Settings of the first file count before those of the second.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::variables::Variables;

/// The profile that is in use without a name.
const DEFAULT: &str = "default";

/// Where the profile's settings are.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    /// Whether the user has chosen it: then it must exist.
    pub(crate) is_chosen: bool,
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// The settings of one profile.
pub(crate) type Settings = BTreeMap<String, String>;

impl Profile {
    /// Returns the profile that the variables choose, and the files that they name.
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

    /// Reads the profile's settings; `None` where neither file has it.
    ///
    /// # Errors
    ///
    /// A file is there but cannot be read: its path is in the error.
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

/// Returns the settings of the sections whose name is asked for; `None` where there is none.
fn section(text: &str, is_asked: impl Fn(&str) -> bool) -> Option<Settings> {
    let (mut found, mut inside) = (None::<Settings>, false);
    for line in text.lines() {
        // Indented lines are settings of the setting above, of which none matters here.
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
        let settings = |wanted: &str| section(FILE, |name| name == wanted);
        let pairs = |settings: Option<Settings>| settings.unwrap().into_iter().collect::<Vec<_>>();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(settings("default")), [pair("region", "eu-west-1")]);
        let work = [pair("aws_access_key_id", "AK=ID"), pair("output", "json"), pair("s3", "")];
        assert_eq!(pairs(settings("profile work")), work);
        assert_eq!(settings("missing"), None);
    }
}
