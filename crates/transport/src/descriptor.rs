//! The descriptor that opens a put.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use position::Topic;
use proto::put::Put;
use proto::{BRONZE, Encoding, GOLD, Message as _};

/// Returns the descriptor of a put of bronze batches whose offsets are those of `topic`.
pub fn put_bronze(topic: &Topic) -> FlightDescriptor {
    FlightDescriptor::new_cmd(Put::Bronze { topic: Some(topic.clone()) }.encode(Encoding::Protobuf))
}

/// Returns the descriptor of a put of gold batches.
pub fn put_gold() -> FlightDescriptor {
    FlightDescriptor::new_cmd(Put::Gold {}.encode(Encoding::Protobuf))
}

/// Returns the put that a descriptor opens, and the encoding of its answers. Returns `None` if the descriptor is not one of this protocol.
///
/// # Errors
///
/// The reason, when the descriptor is of one of our puts and cannot be read.
pub fn put_of(descriptor: &FlightDescriptor) -> Result<Option<(Put, Encoding)>, String> {
    if descriptor.r#type() == DescriptorType::Path {
        let put = match descriptor.path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [BRONZE] => Put::Bronze { topic: None },
            [BRONZE, name] => Put::Bronze { topic: Some(Topic::named(name)) },
            [BRONZE, name, id] => {
                Put::Bronze { topic: Some(Topic { name: name.to_owned(), id: Some(id.to_owned()) }) }
            }
            [BRONZE, ..] => {
                let path = &descriptor.path;
                return Err(format!(
                    "the path of a put of bronze is [bronze, TOPIC, TOPIC ID], not {path:?}"
                ));
            }
            [GOLD] => Put::Gold {},
            _ => return Ok(None),
        };
        return Ok(Some((put, Encoding::Json)));
    }
    if !Put::is_ours(&descriptor.cmd) {
        return Ok(None);
    }
    match Put::decode(&descriptor.cmd) {
        Ok(put) => Ok(Some((put, Encoding::of(&descriptor.cmd)))),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::FlightDescriptor;
    use position::Topic;
    use proto::Encoding;
    use proto::put::Put;

    use super::{put_bronze, put_gold, put_of};

    #[test]
    fn a_put_comes_back_from_its_descriptor() {
        for id in [None, Some("9Z".to_owned())] {
            let topic = Topic { name: "bitcoin_data".to_owned(), id };
            let put = Put::Bronze { topic: Some(topic.clone()) };
            assert_eq!(put_of(&put_bronze(&topic)), Ok(Some((put, Encoding::Protobuf))));
        }
        assert_eq!(put_of(&put_gold()), Ok(Some((Put::Gold {}, Encoding::Protobuf))));
    }

    #[test]
    fn a_path_names_the_table_the_topic_and_its_id() {
        let put = |path: &[&str]| {
            put_of(&FlightDescriptor::new_path(path.iter().map(ToString::to_string).collect()))
        };
        let bronze = |topic| Ok(Some((Put::Bronze { topic }, Encoding::Json)));
        assert_eq!(put(&["bronze"]), bronze(None));
        assert_eq!(put(&["bronze", "a"]), bronze(Some(Topic::named("a"))));
        let topic = Topic { name: "a".to_owned(), id: Some("b".to_owned()) };
        assert_eq!(put(&["bronze", "a", "b"]), bronze(Some(topic)));
        assert!(put(&["bronze", "a", "b", "c"]).unwrap_err().contains("TOPIC ID"));
        assert_eq!(put(&["gold"]), Ok(Some((Put::Gold {}, Encoding::Json))));
        assert_eq!(put(&["silver"]), Ok(None));
    }

    #[test]
    fn a_command_is_ours_by_its_first_byte() {
        let put = |command: &[u8]| put_of(&FlightDescriptor::new_cmd(command.to_vec()));
        assert_eq!(put(br#"{"put":"gold"}"#), Ok(Some((Put::Gold {}, Encoding::Json))));
        assert!(put(br#"{"put":"silver"}"#).is_err());
        assert_eq!(put(b"\x0a\x03abc"), Ok(None));
        assert_eq!(put(b""), Ok(None));
    }
}
