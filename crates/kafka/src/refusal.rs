//! Detection of brokers that reject the connection: a log-in, a certificate or a protocol is wrong.
//!
//! librdkafka retries without end and reports a time-out. Services also retry, because the fault may be in the broker's configuration and
//! an operator may fix it. Unlike librdkafka, services report the cause.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use crate::{Args, Error};

/// Advice to the person who runs the service.
pub(crate) const ADVICE: &str =
    "check --kafka-option: security.protocol, ssl.ca.location, sasl.mechanisms, sasl.username, sasl.password";

/// Longest wait for a broker's answer before checking whether it rejects the connection: many times what a healthy broker takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two checks.
const CHECK_PAUSE: Duration = Duration::from_millis(50);
/// Parts of librdkafka's messages that show a rejection.
const SIGNS: [&str; 3] = ["SASL ", "SSL handshake", "security.protocol"];
/// Age of a connection, in milliseconds, below which it was not idle when the broker closed it.
const YOUNG_MILLIS: u64 = 1000;

/// Returns the part of librdkafka's `text` that a person needs, if the text reports a rejection by a broker.
pub(crate) fn refusal(text: &str) -> Option<&str> {
    // The text ends with the age of the connection, which differs each time.
    let (what, ended) = text.split_once(" (after ").unwrap_or((text, ""));
    // A broker that requires TLS does not answer the first request without it. A broker that requires a log-in does not answer the second.
    let is_young =
        ended.split_once("ms").is_some_and(|(age, _)| age.parse().is_ok_and(|age: u64| age < YOUNG_MILLIS));
    let is_hung_up = what.contains("Disconnected")
        && (ended.contains("in state APIVERSION_QUERY") || is_young && ended.contains("in state UP"));
    (is_hung_up || SIGNS.iter().any(|sign| what.contains(sign))).then_some(what)
}

/// Awaits `answer`, but stops as soon as a broker rejects the connection. It serves clients whose errors nothing else reads.
///
/// # Errors
///
/// The error of [`refused`], or an error of `answer`.
pub async fn unless_refused<T, E: From<Error>>(
    args: &Args,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        answer = answer => answer,
        error = refused(args) => Err(error.into()),
    }
}

/// Connects until a broker rejects the connection, and returns that error. Returns another error if no client can be created.
pub async fn refused(args: &Args) -> Error {
    tokio::time::sleep(PATIENCE).await;
    let opened = BaseProducer::from_config_and_context(&probing(args), Probe::default());
    let probe: BaseProducer<Probe> = match opened.map_err(Error::new("open a Kafka client")) {
        Ok(probe) => probe,
        Err(error) => return error,
    };
    loop {
        probe.poll(Duration::ZERO);
        let found = probe.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reason) = found {
            return Error::Refused { reason };
        }
        tokio::time::sleep(CHECK_PAUSE).await;
    }
}

/// Returns the options of a client that logs each connection that ends. A broker with TLS closes the connection of a client without it.
fn probing(args: &Args) -> ClientConfig {
    let mut config = args.with_options(args.client());
    config.set("log.connection.close", "true").set_log_level(RDKafkaLogLevel::Info);
    config
}

/// A client context that keeps a rejection.
#[derive(Default)]
struct Probe(Mutex<Option<String>>);

impl Probe {
    fn read(&self, text: &str) {
        if let Some(reason) = refusal(text) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ClientContext for Probe {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "{message}");
        // The message begins with the name of a thread.
        self.read(message.split_once("]: ").map_or(message, |(_, text)| text));
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        self.read(reason);
    }
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::refusal;

    fn check(text: &str, expected: bool) {
        let found = refusal(text);
        assert_eq!(found.is_some(), expected, "{text}");
        assert!(found.is_none_or(|found| !found.contains("after")), "without its times: {found:?}");
    }

    #[test]
    fn a_refusal_is_told_from_an_absent_broker() {
        check("broker:9093: SASL authentication error: wrong (after 3ms in state AUTH_REQ)", true);
        check(
            "broker:9093: SSL handshake failed: certificate verify failed (after 9ms in state SSL_HANDSHAKE)",
            true,
        );
        check(
            "broker:9093: Connect to ipv4#10.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)",
            false,
        );
        check("broker:9093: 1 request(s) timed out: disconnect (after 60001ms in state UP)", false);
    }

    #[test]
    fn a_broker_that_hangs_up_at_once_refuses_us_and_one_that_does_so_later_ends() {
        let text =
            |ended: &str| format!("broker:9093: Disconnected: connection closed by peer (after {ended})");
        check(&text("0ms in state APIVERSION_QUERY, 1 identical error(s) suppressed"), true);
        check(&text("12ms in state UP"), true);
        check(&text("1200ms in state UP"), false);
        check(&text("2ms in state SSL_HANDSHAKE"), false);
    }
}
