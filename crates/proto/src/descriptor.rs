//! The descriptor that opens a put of bronze: `[bronze, TOPIC]` or `[bronze, TOPIC, TOPIC ID]`.

use arrow_flight::FlightDescriptor;
use position::Topic;

use crate::BRONZE;

/// Returns the descriptor of a put of bronze batches whose offsets are those of `topic`.
pub fn put_bronze(topic: &Topic) -> FlightDescriptor {
    let name = [BRONZE.to_owned(), topic.name.clone()];
    FlightDescriptor::new_path(name.into_iter().chain(topic.id.clone()).collect())
}

/// Returns the topic that the path of a put of bronze names; `None` where it names none, as writers of version 0.1 do.
///
/// # Errors
///
/// The reason, when the path has more parts than a topic and its id.
pub fn topic_of(path: &[String]) -> Result<Option<Topic>, String> {
    match path {
        [_bronze] => Ok(None),
        [_bronze, name] => Ok(Some(Topic::named(name))),
        [_bronze, name, id] => Ok(Some(Topic { name: name.clone(), id: Some(id.clone()) })),
        _ => Err(format!("the path of a put of bronze is [bronze, TOPIC, TOPIC ID], not {path:?}")),
    }
}

#[cfg(test)]
mod tests {
    use position::Topic;

    use super::{put_bronze, topic_of};

    #[test]
    fn a_topic_comes_back_from_its_descriptor() {
        for id in [None, Some("9Z".to_owned())] {
            let topic = Topic { name: "bitcoin_data".to_owned(), id };
            assert_eq!(topic_of(&put_bronze(&topic).path), Ok(Some(topic)));
        }
        assert_eq!(topic_of(&["bronze".to_owned()]), Ok(None));
        assert!(topic_of(&["bronze", "a", "b", "c"].map(str::to_owned)).is_err());
    }
}
