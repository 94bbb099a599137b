//! A finding: which rule is broken, where, what is there and what should be.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use extant_format::{BlockGroup, InodeNumber, PhysicalBlock};

use super::rule::{Pass, Rule};

/// One broken rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Where.
    pub place: Place,
    /// What is there.
    pub found: Value,
    /// What should be.
    pub expected: Value,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule.name(), self.rule.text())?;
        match (&self.found, &self.expected) {
            (Value::Nothing, Value::Nothing) => Ok(()),
            (found, Value::Nothing) => write!(f, ": {found}"),
            (Value::Nothing, expected) => write!(f, "; should be {expected}"),
            (found, expected) => write!(f, ": {found}, should be {expected}"),
        }
    }
}

/// Where a rule is broken, as far as that says anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// In this group.
    pub group: Option<BlockGroup>,
    /// In this inode, or in what belongs to it.
    pub inode: Option<InodeNumber>,
    /// In or at this block of the device.
    pub block: Option<PhysicalBlock>,
    /// This block of the file.
    pub logical: Option<u32>,
    /// At this byte of the structure.
    pub offset: Option<u32>,
    /// At the entry or attribute of this name.
    pub name: Option<Box<[u8]>>,
}

impl Place {
    /// The superblock.
    pub fn superblock() -> Self {
        Self::default()
    }

    /// A group.
    pub fn group(group: BlockGroup) -> Self {
        Self { group: Some(group), ..Self::default() }
    }

    /// An inode.
    pub fn inode(inode: InodeNumber) -> Self {
        Self { inode: Some(inode), ..Self::default() }
    }

    /// The same, in or at a block.
    #[must_use]
    pub fn block(self, block: PhysicalBlock) -> Self {
        Self { block: Some(block), ..self }
    }

    /// The same, at a block of the file.
    #[must_use]
    pub fn logical(self, block: u32) -> Self {
        Self { logical: Some(block), ..self }
    }

    /// The same, at a byte.
    #[must_use]
    pub fn offset(self, offset: usize) -> Self {
        Self { offset: u32::try_from(offset).ok(), ..self }
    }

    /// The same, at a name.
    #[must_use]
    pub fn name(self, name: &[u8]) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// What findings of one pass are ordered by: inode or group, then the block of a directory.
    pub(super) fn order(&self, pass: Pass) -> (u32, u32) {
        let major = self.inode.map(InodeNumber::get).or(self.group.map(BlockGroup::get));
        let minor = self.logical.filter(|_| pass == Pass::Directories);
        (major.unwrap_or(0), minor.unwrap_or(0))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let written = write!(f, "{sep}{text}");
            sep = ", ";
            written
        };
        if let Some(group) = self.group {
            part(f, format_args!("{group}"))?;
        }
        if let Some(inode) = self.inode {
            part(f, format_args!("{inode}"))?;
        }
        if let Some(logical) = self.logical {
            part(f, format_args!("file block {logical}"))?;
        }
        if let Some(block) = self.block {
            part(f, format_args!("block {}", block.get()))?;
        }
        if let Some(offset) = self.offset {
            part(f, format_args!("byte {offset}"))?;
        }
        if let Some(name) = &self.name {
            part(f, format_args!("\"{}\"", name.escape_ascii()))?;
        }
        if self == &Self::default() { f.write_str("superblock") } else { Ok(()) }
    }
}

/// What is there, or what should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// The rule says it all.
    Nothing,
    /// A number.
    Number(u64),
    /// A checksum, a hash or flags.
    Bits(u64),
    /// A run: the first, and the last.
    Run(u64, u64),
    /// An inode.
    Inode(u32),
    /// Words.
    Words(&'static str),
    /// Words that had to be made.
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<PhysicalBlock> for Value {
    fn from(block: PhysicalBlock) -> Self {
        Self::Number(block.get())
    }
}

impl From<InodeNumber> for Value {
    fn from(inode: InodeNumber) -> Self {
        Self::Inode(inode.get())
    }
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Self::Nothing
    }
}

impl From<&'static str> for Value {
    fn from(words: &'static str) -> Self {
        Self::Words(words)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bits(bits) => write!(f, "{bits:#x}"),
            Self::Run(first, last) if first == last => write!(f, "{first}"),
            Self::Run(first, last) => write!(f, "{first} to {last}"),
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::Words(words) => f.write_str(words),
            Self::Text(text) => f.write_str(text),
        }
    }
}
