//! The topic whose offsets a position counts, and the bronze table that belongs to it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One incarnation of a Kafka topic. A topic that is deleted and created again keeps its name but gets a new id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// The id that Kafka gave the topic when it was created, as Kafka's tools print it. Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The origin of a position: the topic whose offsets it counts, and the bronze table that holds their rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The topic.
    pub topic: Topic,
    /// The id of the bronze table. Delta Lake assigns it when the table is created.
    pub table: String,
}

impl Topic {
    /// Returns the topic `name` with an unknown id.
    pub fn named(name: impl Into<String>) -> Self {
        Topic { name: name.into(), id: None }
    }

    /// Returns true if `self` and `other` may be the same topic: their names are equal, and so are their ids if both are known.
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
