//! An event as a line of the kernel's says it: a name, and fields with names.
//!
//! Both sides print the same text, so both are read by the same table, `oracle/formats.txt`: a line an event, the print
//! format with the names of the record's fields in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// Whose work an event is part of.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stream {
    /// The program that runs the script.
    Caller,
    /// The end of I/O.
    EndOfIo,
    /// The journal's commits.
    Journal,
    /// Writeback that no caller waits for.
    Flusher,
}

impl Stream {
    /// Every stream, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Caller, Self::EndOfIo, Self::Journal, Self::Flusher];
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::EndOfIo => "end of I/O",
            Self::Journal => "journal",
            Self::Flusher => "flusher",
        })
    }
}

/// One event.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Event {
    /// The kernel's name of it.
    pub name: &'static str,
    /// Fields in the order of the text.
    pub fields: Vec<(&'static str, String)>,
}

impl Event {
    /// The event that a line says, as `ext4_sync_fs: dev 7,0 wait 1`.
    ///
    /// # Errors
    /// That the table does not know the event, or that the text is another.
    pub fn parse(line: &str) -> Result<Self, String> {
        let (name, text) = line.split_once(':').ok_or_else(|| format!("no event: {line}"))?;
        let Some((name, format)) = FORMATS.get_key_value(name.trim()) else {
            return Err(format!("an event that the table does not know: {line}"));
        };
        // Which function of the kernel asked is the text's last field, and not compared.
        let text = text.trim();
        let text = text.rfind("caller ").map_or(text, |at| text[..at].trim_end_matches([' ', ',']));
        let fields = format.read(text).ok_or_else(|| format!("not as the table says: {line}"))?;
        Ok(Self { name, fields })
    }

    /// A field's text.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> Option<i64> {
        self.get(field)?.parse().ok()
    }

    /// Changes a field, if the event has it.
    pub fn set(&mut self, field: &str, value: impl ToString) {
        if let Some(known) = self.fields.iter_mut().find(|(name, _)| *name == field) {
            known.1 = value.to_string();
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, field: &str) {
        self.fields.retain(|(name, _)| *name != field);
    }
}

impl fmt::Display for Event {
    /// Short, for people: without the group of events.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.strip_prefix("ext4_").unwrap_or(self.name))?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// The text of one kind of event: what stands before each field, and behind the last.
struct Format {
    fields: Vec<(&'static str, &'static str)>,
    tail: &'static str,
}

static FORMATS: LazyLock<HashMap<&'static str, Format>> = LazyLock::new(|| {
    let lines = include_str!("../../oracle/formats.txt").lines();
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, text)| (name, Format::new(text)))
        .collect()
});

/// The names of all events that the table knows.
pub fn known() -> impl Iterator<Item = &'static str> {
    FORMATS.keys().copied()
}

impl Format {
    fn new(text: &'static str) -> Self {
        let mut pieces = text.split('{');
        let mut before = pieces.next().unwrap_or_default();
        let mut fields = Vec::new();
        for piece in pieces {
            let (name, behind) = piece.split_once('}').unwrap_or((piece, ""));
            fields.push((before, name));
            before = behind;
        }
        Self { fields, tail: before.trim_end() }
    }

    /// The fields in `text`, each up to where the next piece of the format begins.
    fn read(&self, text: &str) -> Option<Vec<(&'static str, String)>> {
        let mut rest = text.strip_prefix(self.fields.first()?.0)?;
        let mut fields = Vec::with_capacity(self.fields.len());
        for (place, (_, name)) in self.fields.iter().enumerate() {
            let next = self.fields.get(place + 1).map_or(self.tail, |next| next.0);
            let end = if next.is_empty() { rest.len() } else { end_of_field(rest, next)? };
            fields.push((*name, rest[..end].trim().to_owned()));
            rest = rest.get(end + next.len()..).unwrap_or_default();
        }
        fields.retain(|(name, _)| *name != "dev");
        rest.trim().is_empty().then_some(fields)
    }
}

/// Where `next` begins; an empty field leaves one blank of two, or of the text's end.
fn end_of_field(rest: &str, next: &str) -> Option<usize> {
    rest.find(next)
        .or_else(|| rest.ends_with(next.trim_end()).then(|| rest.len() - next.trim_end().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Vec<String> {
        let event = Event::parse(line).unwrap();
        event.fields.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_line_becomes_fields() {
        assert_eq!(
            fields(
                "ext4_es_insert_delayed_extent: dev 7,0 ino 12 es [0/1) mapped 0 status D allocated 0 0"
            ),
            [
                "ino=12",
                "lblk=0",
                "len=1",
                "pblk=0",
                "status=D",
                "lclu_allocated=0",
                "end_allocated=0"
            ]
        );
        assert_eq!(
            fields(
                "ext4_da_reserve_space: dev 7,0 ino 12 mode 0100644 i_blocks 0 reserve_blocks 1reserved_data_blocks 2"
            )[3..],
            ["reserve_blocks=1", "reserved_data_blocks=2"]
        );
    }

    #[test]
    fn empty_fields_and_callers_are_read() {
        let exit =
            "ext4_ext_map_blocks_exit: dev 7,0 ino 12 flags  lblk 0 pblk 0 len 1 mflags  ret 0";
        assert_eq!(
            fields(exit),
            ["ino=12", "flags=", "lblk=0", "pblk=0", "len=1", "mflags=", "ret=0"]
        );
        let enter = "ext4_ext_map_blocks_enter: dev 7,0 ino 12 lblk 0 len 1 flags";
        assert_eq!(fields(enter)[3], "flags=");
        let missed = "ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 0 [0/0) 0";
        assert_eq!(fields(missed)[5], "status=");
        let start = "ext4_journal_start_inode: dev 7,0 blocks 2, rsv_blocks 0, revoke_creds 8, type 1, ino 12, caller f+0x34/0x90";
        assert_eq!(fields(start)[3..], ["type=1", "ino=12"]);
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        assert!(Event::parse("ext4_news: dev 7,0 ino 12").is_err());
        assert!(Event::parse("ext4_sync_fs: dev 7,0 waits 1").is_err());
        assert!(
            Event::parse("ext4_sync_fs: dev 7,0 wait 1 more 2")
                .is_ok_and(|event| { event.get("wait") == Some("1 more 2") })
        );
    }
}
