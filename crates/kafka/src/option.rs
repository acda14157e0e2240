//! User options that are passed on to librdkafka.

use std::ffi::OsStr;
use std::fmt;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use rdkafka::ClientConfig;

use crate::fixed;

/// One option of librdkafka. Its value may be a password and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientOption {
    /// Empty if the line of the variable is blank. Such an option sets nothing.
    key: String,
    value: String,
}

impl ClientOption {
    /// Parses `KEY=VALUE`. Returns `None` if there is no equals sign.
    fn parse(text: &str) -> Option<Self> {
        let (key, value) = if text.trim().is_empty() { ("", "") } else { text.split_once('=')? };
        Some(ClientOption { key: key.trim().to_owned(), value: value.trim_end_matches('\r').to_owned() })
    }

    /// Sets the option in a client's configuration.
    pub(crate) fn set(&self, config: &mut ClientConfig) {
        if !self.key.is_empty() {
            config.set(&self.key, &self.value);
        }
    }
}

impl fmt::Debug for ClientOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

/// A parser of options for clap. The errors of clap's own parsers would print the value.
#[derive(Clone)]
pub(crate) struct Parser;

impl TypedValueParser for Parser {
    type Value = ClientOption;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<ClientOption, clap::Error> {
        let refused =
            |message: String| clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command);
        let option = value.to_str().and_then(ClientOption::parse).ok_or_else(|| {
            let message = "--kafka-option (CANDLEFLIGHT_KAFKA_OPTIONS, one per line) must be KEY=VALUE; the given text is not \
                           shown, because it may be secret\n";
            refused(message.to_owned())
        })?;
        match fixed::refusal(&option.key, &option.value) {
            Some(reason) => Err(refused(format!(
                "--kafka-option (CANDLEFLIGHT_KAFKA_OPTIONS) cannot set {}: {reason}; leave it out\n",
                option.key
            ))),
            None => Ok(option),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::ClientOption;
    use crate::Args;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        kafka: Args,
    }

    #[test]
    fn an_option_is_split_at_its_first_equals_sign_and_hides_its_value() {
        let option = ClientOption::parse("sasl.password=a=b").unwrap();
        assert_eq!((option.key.as_str(), option.value.as_str()), ("sasl.password", "a=b"));
        assert_eq!(format!("{option:?}"), "sasl.password=…");
        assert_eq!(ClientOption::parse("sasl.password"), None);
    }

    #[test]
    fn several_options_are_given_one_a_line_and_win_over_ours() {
        let lines = "--kafka-option=\nsasl.username=me\nclient.id=mine\n";
        let client =
            Flags::try_parse_from(["test", lines]).map(|flags| flags.kafka.consumer("group")).unwrap();
        assert_eq!((client.get("sasl.username"), client.get("client.id")), (Some("me"), Some("mine")));
    }

    #[test]
    fn what_exactly_once_rests_on_is_refused_by_name() {
        let lines = "--kafka-option=client.id=mine\nacks=1";
        let error = Flags::try_parse_from(["test", lines]).err().unwrap().to_string();
        assert!(error.contains("acks: ") && error.contains("leave it out"), "{error}");
        assert!(Flags::try_parse_from(["test", "--kafka-option=acks=all"]).is_ok());
    }

    #[test]
    fn what_is_no_option_is_refused_without_being_printed() {
        let error = Flags::try_parse_from(["test", "--kafka-option=hunter2"]).err().unwrap().to_string();
        assert!(error.contains("KEY=VALUE") && !error.contains("hunter2"), "{error}");
    }
}
