//! The output of `paxoi inspect checkpoint`. The command takes no lock, writes nothing, and reads the whole file.

use super::format::SectionSummary;
use super::reader::{CheckpointReader, VerifiedSection};
use crate::plural::plural;
use crate::storage::disk::Disk;
use std::io::{self, Write};

/// Prints the header of a checkpoint, a line for each section, and the verdict. Returns true if all of it is sound.
pub fn inspect_checkpoint(disk: &dyn Disk, name: &str, out: &mut dyn Write) -> io::Result<bool> {
    let checkpoint = match CheckpointReader::open(disk, name) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            writeln!(out, "unusable: {error}")?;
            return Ok(false);
        }
    };
    let header = checkpoint.header();
    let cluster: String = header.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (sequence, groups, bytes) = (header.sequence, header.groups, checkpoint.bytes());
    let sections = checkpoint.sections();
    let (held, plural_groups) = (sections.len(), plural(u64::from(groups)));
    writeln!(
        out,
        "checkpoint {sequence} of cluster {cluster}: {held} of {groups} group{plural_groups}, {bytes} bytes"
    )?;
    let (mut keys, mut unsound) = (0, 0);
    for section in sections {
        match checkpoint.verify_section(*section) {
            Ok(verified) => {
                keys += verified.keys;
                writeln!(out, "{}", describe(&verified))?;
            }
            Err(error) => {
                unsound += 1;
                writeln!(out, "group {}  instance {}  unusable: {error}", section.group, section.instance)?;
            }
        }
    }
    if unsound > 0 {
        writeln!(out, "damaged: {unsound} of {held} section{}", plural(held as u64))?;
        return Ok(false);
    }
    writeln!(out, "sound: {keys} key{}", plural(keys))?;
    Ok(true)
}

fn describe(verified: &VerifiedSection) -> String {
    let VerifiedSection { head, summary, keys, sessions } = verified;
    let SectionSummary { group, instance, length, end, .. } = summary;
    format!(
        "group {group}  instance {instance}  chosen {}  chain {:08x}  {keys} key{}  {sessions} session{}  {} block{} of \
         {} bytes, {length} in the file  digest {:016x}",
        head.state.chosen,
        head.state.chain,
        plural(*keys),
        plural(*sessions),
        end.blocks,
        plural(end.blocks),
        end.block_bytes,
        end.digest
    )
}
