use super::first_offset;
use crate::Error;

fn first(position: Option<i64>, low: i64, high: i64) -> Result<i64, Error> {
    first_offset("t", 0, position, (low, high))
}

#[test]
fn reading_starts_at_bronzes_position_wherever_in_the_topic_it_is() {
    assert_eq!(first(Some(0), 0, 0).unwrap(), 0);
    assert_eq!(first(Some(5), 0, 10).unwrap(), 5);
    assert_eq!(first(Some(5), 5, 10).unwrap(), 5);
    assert_eq!(first(Some(10), 0, 10).unwrap(), 10);
    assert_eq!(first(Some(10), 10, 10).unwrap(), 10);
}

#[test]
fn without_a_position_reading_starts_at_the_first_message() {
    assert_eq!(first(None, 0, 10).unwrap(), 0);
    assert_eq!(first(None, 7, 10).unwrap(), 7);
}

#[test]
fn a_topic_that_ends_below_the_position_was_recreated() {
    let error = first(Some(11), 0, 10).unwrap_err();
    assert!(
        matches!(error, Error::TopicRecreated { position: 11, high: 10, .. }) && !error.is_transient(),
        "{error}"
    );
    assert!(matches!(first(Some(1), 0, 0).unwrap_err(), Error::TopicRecreated { .. }));
}

#[test]
fn a_topic_that_begins_above_the_position_has_lost_messages() {
    let error = first(Some(4), 5, 10).unwrap_err();
    assert!(
        matches!(error, Error::TopicTruncated { position: 4, low: 5, .. }) && !error.is_transient(),
        "{error}"
    );
    assert!(error.to_string().contains("1 messages"), "{error}");
}
