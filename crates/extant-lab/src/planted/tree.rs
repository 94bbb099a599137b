//! Defects of how directories hang together, and of links.

use extant_image::check::Rule;

use super::{ALL, Defect, INDEXED, SOME, defect};

pub(super) fn list() -> Vec<Defect> {
    vec![
        defect("directory with two names", Rule::TwoParents, SOME, |stage| {
            let entry = stage.entry(stage.inode("sizes"), b"60")?;
            stage.set32(entry, stage.inode("names"));
            stage.set8(entry + 7, 2);
            Some(())
        }),
        defect("directory without a name", Rule::Unconnected, ALL, |stage| {
            stage.set32(stage.entry(2, b"names")?, 0);
            Some(())
        }),
        defect("directory in itself", Rule::DirectoryLoop, SOME, |stage| {
            // `deep` loses its name in the root, and gets one at its own end.
            stage.set32(stage.entry(2, b"deep")?, 0);
            let mut path = String::from("deep");
            (0..19).for_each(|level| path += &format!("/level{level}"));
            let entry = stage.entry(stage.inode(&path), b"level19")?;
            stage.set32(entry, stage.inode("deep"));
            Some(())
        }),
        defect("two dots that lead elsewhere", Rule::DotDot, ALL, |stage| {
            let block = stage.blocks(stage.inode("sizes")).first().copied()?;
            stage.set32(block + 12, stage.inode("names"));
            Some(())
        }),
        defect("no lost+found", Rule::LostFoundMissing, SOME, |stage| {
            let entry = stage.entry(2, b"lost+found")?;
            stage.set8(entry + 8, b'L');
            Some(())
        }),
        defect("lost+found that is a file", Rule::LostFoundType, SOME, |stage| {
            let entry = stage.entry(2, b"lost+found")?;
            stage.set32(entry, stage.inode("sizes/1"));
            stage.set8(entry + 7, 1);
            Some(())
        }),
        defect("lost+found in its inode", Rule::LostFoundInline, &["inline"], |stage| {
            stage.or32(stage.at(stage.inode("lost+found"), 32), 0x1000_0000);
            Some(())
        }),
        defect("encrypted lost+found", Rule::LostFoundEncrypted, &["ext4", "ext4-4k"], |stage| {
            stage.or32(stage.superblock(0x60), 0x1_0000);
            stage.or32(stage.at(stage.inode("lost+found"), 32), 0x800);
            Some(())
        }),
        defect("file without a name", Rule::Unattached, ALL, |stage| {
            let entry = stage.entry(stage.inode("sizes"), b"60")?;
            stage.set32(entry, 0);
            Some(())
        }),
        defect("one link too many", Rule::LinkCount, ALL, |stage| {
            let links = stage.at(stage.inode("sizes/1"), 26);
            stage.set16(links, 2);
            Some(())
        }),
        defect("one link too few", Rule::LinkCount, SOME, |stage| {
            let links = stage.at(stage.inode("sticky"), 26);
            stage.set16(links, stage.get16(links) - 1);
            Some(())
        }),
        defect("directory that counts no more", Rule::LinkOverflow, INDEXED, |stage| {
            stage.set16(stage.at(stage.inode("many"), 26), 1);
            Some(())
        }),
    ]
}
