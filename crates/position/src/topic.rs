//! The topic that a position counts the offsets of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Kafka topic in one of its lives: a topic that is deleted and created again keeps its name and gets another id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// The id that Kafka gave the topic when it was created, as Kafka's tools print it; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The place that positions count in: the offsets of one topic, in one bronze table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The topic.
    pub topic: Topic,
    /// The id of the bronze table, which Delta Lake gives each table when it is created.
    pub table: String,
}

impl Topic {
    /// Returns the topic `name`, whose id is not known.
    pub fn named(name: impl Into<String>) -> Self {
        Topic { name: name.into(), id: None }
    }

    /// Returns true if both can be the same topic: the names are equal, and so are the ids where both are known.
    pub fn matches(&self, other: &Topic) -> bool {
        let same_life = match (&self.id, &other.id) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.name == other.name && same_life
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{} (id {id})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Topic;

    fn topic(name: &str, id: Option<&str>) -> Topic {
        Topic { name: name.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn a_topic_matches_itself_and_one_whose_id_is_not_known() {
        assert!(topic("a", Some("1")).matches(&topic("a", Some("1"))));
        assert!(topic("a", Some("1")).matches(&topic("a", None)));
        assert!(!topic("a", Some("1")).matches(&topic("a", Some("2"))));
        assert!(!topic("a", None).matches(&topic("b", None)));
    }

    #[test]
    fn a_topic_without_an_id_is_written_without_it() {
        assert_eq!(serde_json::to_string(&topic("a", None)).unwrap(), r#"{"name":"a"}"#);
        assert_eq!(topic("a", Some("1")).to_string(), "a (id 1)");
    }
}
