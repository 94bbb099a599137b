//! `extant xattr`: extended attributes.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use serde_json::{Map, json};

use crate::address::ImagePath;
use crate::failure::Usage;
use crate::output::{hex, print_json};
use crate::volume;

/// Show and change extended attributes
#[derive(Debug, clap::Args)]
pub struct XattrArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List names and values
    List {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside_or_root())]
        file: ImagePath,
        /// For a program to read: values in hexadecimal
        #[arg(long)]
        json: bool,
    },
    /// Print one value as it is
    Get {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
    },
    /// Set a value, or replace it
    Set {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
        /// Text, or bytes in hexadecimal after 0x
        value: OsString,
    },
    /// Remove a value
    Rm {
        /// A file, as IMAGE:/path
        #[arg(value_parser = super::inside())]
        file: ImagePath,
        /// Such as user.comment
        name: OsString,
    },
}

pub fn run(args: &XattrArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        Action::List { file, json } => list(file, *json, out).with_context(|| file.to_string()),
        Action::Get { file, name } => {
            let value = volume::open(&file.image)?.xattr(&file.path, name.as_bytes());
            Ok(out.write_all(&value.with_context(|| file.to_string())?)?)
        }
        Action::Set { file, name, value } => {
            let value = parse_value(value.as_bytes())?;
            volume::change(&file.image, |filesystem| {
                filesystem
                    .set_xattr(&file.path, name.as_bytes(), &value)
                    .with_context(|| file.to_string())
            })
        }
        Action::Rm { file, name } => volume::change(&file.image, |filesystem| {
            filesystem.remove_xattr(&file.path, name.as_bytes()).with_context(|| file.to_string())
        }),
    }
}

fn list(file: &ImagePath, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let handle = volume::open(&file.image)?.symlink_inode(&file.path)?;
    let mut values = Map::new();
    for name in handle.list_xattrs()? {
        let value = handle.xattr(&name)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if json {
            values.insert(name, json!(hex(&value)));
            continue;
        }
        match std::str::from_utf8(&value) {
            Ok(text) if !text.chars().any(char::is_control) => writeln!(out, "{name}={text}")?,
            _ => writeln!(out, "{name}=0x{}", hex(&value))?,
        }
    }
    if json { print_json(out, &json!(values)) } else { Ok(()) }
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
