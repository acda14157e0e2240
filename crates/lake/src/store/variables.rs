//! The environment variables that decide how a bucket is reached.

use std::collections::BTreeMap;

/// Environment variables, of the process or given. Empty ones count as absent, because compose files cannot omit a variable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Reads the variables of the process.
    pub(crate) fn of_process() -> Variables {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).map(str::to_ascii_lowercase);
        value.is_some_and(|value| matches!(value.as_str(), "true" | "1" | "yes" | "y" | "on"))
    }

    /// Lists the variables in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Variables(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}
