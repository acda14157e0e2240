//! The command of the descriptor that opens a DoPut.

use position::Topic;
use serde::{Deserialize, Serialize};

use crate::Message;
use crate::v1;

/// The first bytes of the commands of [`Put`] in either encoding: `{`, and the tags of [`v1::Put`]'s fields. Those of Flight SQL begin
/// with the tag of field 1.
const FIRST_BYTES: [u8; 3] = [b'{', crate::tag(2), crate::tag(3)];

/// The command that opens a DoPut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "put", rename_all = "snake_case", deny_unknown_fields)]
pub enum Put {
    /// Puts batches of bronze: `{"put":"bronze","topic":{"name":"bitcoin_data"}}`.
    Bronze {
        /// Topic that the offsets belong to. A server with a different topic rejects the put. Without a topic, any server accepts the put.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Topic>,
    },
    /// Puts batches of gold for its followers: `{"put":"gold"}`.
    Gold {},
}

impl Put {
    /// Returns true if the bytes are a command of this protocol, and not of Flight SQL.
    pub fn is_ours(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| FIRST_BYTES.contains(first))
    }
}

impl Message for Put {
    type Protobuf = v1::Put;

    const NAME: &'static str = "put";

    fn to_protobuf(&self) -> v1::Put {
        use v1::put::Table;
        let table = match self {
            Put::Bronze { topic } => Table::Bronze(v1::PutBronze { topic: topic.clone().map(Into::into) }),
            Put::Gold {} => Table::Gold(v1::PutGold {}),
        };
        v1::Put { table: Some(table) }
    }
}

impl TryFrom<v1::Put> for Put {
    type Error = String;

    fn try_from(put: v1::Put) -> Result<Self, String> {
        use v1::put::Table;
        Ok(match put.table.ok_or("the put names no table: it has neither bronze nor gold")? {
            Table::Bronze(v1::PutBronze { topic }) => Put::Bronze { topic: topic.map(Into::into) },
            Table::Gold(v1::PutGold {}) => Put::Gold {},
        })
    }
}
