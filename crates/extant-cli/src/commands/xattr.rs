//! `extant xattr`: extended attributes.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use extant::{Error, Filesystem, InodeHandle};
use serde_json::{Map, json};

use super::acl;
use crate::address::ImagePath;
use crate::copy::is_access_list;
use crate::failure::{self, Usage};
use crate::names::Names;
use crate::output::{hex, json_name, print_json};
use crate::volume;

/// Show and change extended attributes
///
/// A symbolic link at the end of a path is followed. Access lists (system.posix_acl_access and system.posix_acl_default) have
/// the short form of getfacl(1): user::rw-,user:1000:r--,group::r--,mask::r--,other::---.
#[derive(Debug, clap::Args)]
pub struct XattrArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List names and values
    #[command(disable_help_flag = true)]
    List {
        /// Files, as IMAGE:/path
        #[arg(required = true, value_parser = super::inside_or_root())]
        files: Vec<ImagePath>,
        /// For a program to read: values in hexadecimal
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        link: Link,
    },
    /// Print one value as it is
    #[command(disable_help_flag = true)]
    Get {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside_or_root())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
        #[command(flatten)]
        link: Link,
    },
    /// Set a value, or replace it
    #[command(disable_help_flag = true)]
    Set {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside_or_root())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
        /// Text, or bytes in hexadecimal after 0x
        #[arg(required_unless_present = "from", conflicts_with = "from")]
        value: Option<OsString>,
        /// The bytes of this file; `-` is standard input
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        link: Link,
    },
    /// Remove a value
    #[command(disable_help_flag = true)]
    Rm {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside_or_root())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
        #[command(flatten)]
        link: Link,
    },
}

#[derive(Debug, clap::Args)]
struct Link {
    /// A symbolic link itself
    #[arg(short = 'h', long)]
    no_dereference: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Link {
    fn find(&self, filesystem: &Filesystem, at: &ImagePath) -> anyhow::Result<InodeHandle> {
        let found = match self.no_dereference {
            true => filesystem.symlink_inode(&at.path),
            false => filesystem.inode(&at.path),
        };
        found.with_context(|| at.to_string())
    }
}

pub fn run(args: &XattrArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        Action::List { files, json, link } => list(files, *json, link, out),
        Action::Get { file, name, link } => volume::read(&file.image, |filesystem| {
            let value = link.find(filesystem, file)?.xattr(name.as_bytes());
            let value = value.with_context(|| at(file, name))?;
            match is_access_list(name.as_bytes()).then(|| acl::show(&value)).flatten() {
                Some(text) => writeln!(out, "{text}")?,
                None => out.write_all(&value)?,
            }
            Ok(())
        }),
        Action::Set { file, name, value, from, link } => {
            let given = match (value, from) {
                (Some(value), _) => value.as_bytes().to_vec(),
                (None, Some(from)) => read_value(from)?,
                (None, None) => Vec::new(),
            };
            let is_list = is_access_list(name.as_bytes());
            volume::change(&file.image, |filesystem| {
                let value = match (is_list, from.is_some()) {
                    (true, _)
                        if !given.starts_with(b"0x")
                            && str::from_utf8(&given).is_ok_and(|text| text.contains(':')) =>
                    {
                        acl::parse(&given, &Names::of(filesystem))?
                    }
                    (_, true) => given,
                    (_, false) => parse_value(&given)?,
                };
                let handle = link.find(filesystem, file)?;
                let set = handle.set_xattr(name.as_bytes(), value);
                set.map_err(|error| explain(error, &handle, name)).with_context(|| at(file, name))
            })
        }
        Action::Rm { file, name, link } => volume::change(&file.image, |filesystem| {
            let handle = link.find(filesystem, file)?;
            let removed = handle.remove_xattr(name.as_bytes());
            removed.map_err(|error| explain(error, &handle, name)).with_context(|| at(file, name))
        }),
    }
}

/// A file and the name of an attribute, for messages.
fn at(file: &ImagePath, name: &OsStr) -> String {
    format!("{file}: {}", name.display())
}

/// Why an attribute was refused, where the error alone does not tell.
fn explain(error: Error, handle: &InodeHandle, name: &OsStr) -> anyhow::Error {
    let is_user = name.as_bytes().starts_with(b"user.");
    match error {
        Error::NotPermitted
            if is_user
                && !handle.metadata().is_ok_and(|found| found.is_file() || found.is_dir()) =>
        {
            anyhow::anyhow!(
                "operation not permitted: only files and directories have attributes of `user.`"
            )
        }
        error => error.into(),
    }
}

fn list(
    files: &[ImagePath],
    as_json: bool,
    link: &Link,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let several = files.len() > 1;
    let mut all = Vec::new();
    let outcome = failure::each(files, |file| {
        volume::read(&file.image, |filesystem| {
            let handle = link.find(filesystem, file)?;
            let mut values = Map::new();
            if several && !as_json {
                writeln!(out, "{file}:")?;
            }
            for name in handle.list_xattrs().with_context(|| file.to_string())? {
                let value = handle.xattr(&name).with_context(|| file.to_string())?;
                let shown = String::from_utf8_lossy(&name).into_owned();
                if as_json {
                    values.insert(shown, json!(hex(&value)));
                    continue;
                }
                let list = is_access_list(&name).then(|| acl::show(&value)).flatten();
                match (list, str::from_utf8(&value)) {
                    (Some(list), _) => writeln!(out, "{shown}={list}")?,
                    (None, Ok(text)) if !text.chars().any(char::is_control) => {
                        writeln!(out, "{shown}={text}")?;
                    }
                    _ => writeln!(out, "{shown}=0x{}", hex(&value))?,
                }
            }
            all.push(match several {
                true => json!({ "path": json_name(&file.path), "xattrs": values }),
                false => json!(values),
            });
            Ok(())
        })
    });
    match (as_json, several, all.pop()) {
        (true, false, Some(value)) => print_json(out, &value)?,
        (true, true, last) => {
            all.extend(last);
            print_json(out, &json!(all))?;
        }
        _ => {}
    }
    outcome
}

/// The bytes of a file, no more than a value can have.
fn read_value(from: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match from.as_os_str() == "-" {
        true => std::io::stdin().take(MOST_VALUE_BYTES + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(from)
            .and_then(|file| file.take(MOST_VALUE_BYTES + 1).read_to_end(&mut bytes)),
    };
    let count = read.with_context(|| from.display().to_string())?;
    if extant_format::cast::u64_from(count) > MOST_VALUE_BYTES {
        bail!("{}: a value has at most {MOST_VALUE_BYTES} bytes", from.display());
    }
    Ok(bytes)
}

/// Text as it is; hexadecimal digits after `0x` as the bytes that they stand for.
fn parse_value(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let Some(digits) = text.strip_prefix(b"0x") else { return Ok(text.to_vec()) };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.ok_or_else(|| Usage("after 0x come pairs of hexadecimal digits".to_owned()).into())
}

/// Linux keeps values below this.
const MOST_VALUE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_or_hexadecimal() {
        assert_eq!(parse_value(b"text").unwrap(), b"text");
        assert_eq!(parse_value(b"0x00fF").unwrap(), [0, 255]);
        assert!(parse_value(b"0x0").is_err());
        assert!(parse_value(b"0xzz").is_err());
    }
}
