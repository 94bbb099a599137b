//! Differences that are accepted: `oracle/trace-exceptions.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Seen;

/// Which side has the event that the other lacks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The kernel alone.
    Kernel,
    /// The engine alone.
    Ours,
}

/// One event that one side may have alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Its name.
    pub event: String,
    /// Who has it.
    pub side: Side,
    /// Fields, and what they have to be.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Only of visits of the flusher that find nothing to write, for a reason that is chance.
    #[serde(default)]
    pub idle: bool,
    /// Only in operations that begin with this word.
    pub operation: Option<String>,
    /// Why it may differ.
    pub reason: String,
}

/// All that is accepted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    /// In the file's order.
    #[serde(rename = "exception")]
    pub list: Vec<Exception>,
}

impl Exceptions {
    /// Those of the repository.
    ///
    /// # Panics
    /// If the file breaks its own rules.
    pub fn ours() -> Self {
        let text = include_str!("../../oracle/trace-exceptions.toml");
        Self::parse(text).unwrap_or_else(|reason| panic!("trace-exceptions.toml: {reason}"))
    }

    /// The list that `text` says, if it keeps to the rules.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let all: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if all.list.len() > MOST {
            return Err(format!("{} entries, more than {MOST}", all.list.len()));
        }
        match all.list.iter().find(|entry| PROTECTED.iter().any(|part| entry.event.contains(part)))
        {
            Some(entry) => Err(format!("{} is never excused", entry.event)),
            None => Ok(all),
        }
    }

    /// Which entry excuses an event that only `side` has.
    pub fn find(&self, side: Side, seen: &Seen, operation: &str) -> Option<usize> {
        self.list.iter().position(|entry| {
            let has = |(name, value): (&String, &String)| seen.event.get(name) == Some(value);
            entry.side == side
                && entry.event == seen.event.name
                && (seen.is_idle || !entry.idle)
                && entry
                    .operation
                    .as_deref()
                    .is_none_or(|word| operation.split(' ').next() == Some(word))
                && entry.fields.iter().all(has)
        })
    }
}

const MOST: usize = 10;
/// Parts of the names of events that are never excused: reservations, the status tree, mapping, extents.
const PROTECTED: [&str; 5] = ["_da_", "_es_", "map_blocks", "ext4_ext_", "remove_blocks"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::event::{Event, Stream};

    const ONE: &str = "[[exception]]\nevent = 'ext4_sync_fs'\nside = 'ours'\nfields = { wait = '0' }\noperation = 'sync'\nreason = 'r'\n";

    #[test]
    fn an_entry_excuses_what_it_says_and_nothing_else() {
        let all = Exceptions::parse(ONE).unwrap();
        let seen = |line| Seen {
            stream: Stream::Caller,
            step: 0,
            event: Event::parse(line).unwrap(),
            is_idle: false,
        };
        let event = seen("ext4_sync_fs: dev 7,0 wait 0");
        assert_eq!(all.find(Side::Ours, &event, "sync"), Some(0));
        assert_eq!(all.find(Side::Kernel, &event, "sync"), None);
        assert_eq!(all.find(Side::Ours, &event, "fsync a"), None);
        assert_eq!(all.find(Side::Ours, &seen("ext4_sync_fs: dev 7,0 wait 1"), "sync"), None);
        let all = Exceptions::parse(&ONE.replace("operation", "idle = true\noperation")).unwrap();
        assert_eq!(all.find(Side::Ours, &event, "sync"), None);
        assert_eq!(all.find(Side::Ours, &Seen { is_idle: true, ..event }, "sync"), Some(0));
    }

    #[test]
    fn the_list_has_limits() {
        assert!(Exceptions::parse(&ONE.repeat(10)).is_ok());
        assert!(Exceptions::parse(&ONE.repeat(11)).is_err());
        for event in [
            "ext4_da_reserve_space",
            "ext4_es_insert_extent",
            "ext4_ind_map_blocks_exit",
            "ext4_ext_rm_leaf",
        ] {
            assert!(Exceptions::parse(&ONE.replace("ext4_sync_fs", event)).is_err(), "{event}");
        }
        Exceptions::ours();
    }
}
