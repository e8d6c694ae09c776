//! Backups of a running node. The node is asked to write its states to checkpoints, as it does anyway from time to
//! time. The newest state of each group is then copied out of those files, and every byte of it is checked.

use super::Source;
use super::set::Draft;
use crate::client::{Client, resolve};
use crate::nodes::{field, number};
use crate::storage::checkpoint::{
    CheckpointError, CheckpointReader, CheckpointSequence, CheckpointWriter, Packing, SectionSummary, checkpoint_name,
    sequences,
};
use crate::storage::wal::hex;
use anyhow::{Context, bail, ensure};
use groups::GroupId;
use net::resp::value::Value;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time limit for the node's answers.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Interval between polls of the node's progress, and between searches for files.
const LOOK: Duration = Duration::from_millis(50);
/// Time limit for the search for files. Files vanish when newer ones replace them; a search that fails for longer has
/// another reason to fail.
const FILES_MAX: Duration = Duration::from_secs(10);

/// Open files, and the newest state of each group in them.
type Newest = (Vec<CheckpointReader>, Vec<Found>);

/// A state in an open file. It stays readable after the file's name is gone.
struct Found {
    reader: usize,
    summary: SectionSummary,
}

/// Backs up the node that runs in the directory and listens at the address.
pub(super) fn backup(source: &Source, address: &str, patience: Duration, out: &Path) -> anyhow::Result<()> {
    let resolved = resolve(address).with_context(|| format!("--connect {address}"))?;
    let no_answer = || format!("no answer from a node at {address}");
    let mut client = Client::connect(resolved, ANSWER_MAX).with_context(no_answer)?;
    let before = info(&mut client).with_context(no_answer)?;
    let is_it = field(&before, "cluster_id") == Some(&hex(&source.birth.cluster_id))
        && number(&before, "node_id") == u64::from(source.identity.node.0);
    ensure!(
        is_it,
        "the node at {address} does not run in {}: give the address of node {}",
        source.place,
        source.identity.node
    );
    if number(&before, "groups_not_whole") > 0 {
        bail!("node {} lacks the state of some groups itself; back up another node", source.identity.node);
    }
    // A read of the whole database: once it is answered, this node has all that was acknowledged before.
    if let Value::Error(text) = client.call(&[b"DBSIZE"]).with_context(no_answer)? {
        bail!("the node at {address} does not serve: {text}; stop it, and back it up without --connect");
    }
    let draft = Draft::create(out)?;
    make_checkpoints(&mut client, &before, patience).with_context(|| format!("node {}", source.identity.node))?;
    let (readers, found) = newest(source)?;
    let mut writer = CheckpointWriter::create(
        draft.disk.clone(),
        source.birth.checkpoint_header(CheckpointSequence(1)),
        Packing::Lz4,
    )?;
    for Found { reader, summary } in found {
        copy(&readers[reader], summary, &mut writer)?;
    }
    writer.finish()?;
    draft.finish(&[source], 1)
}

fn make_checkpoints(client: &mut Client, before: &str, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    if let Value::Error(text) = client.call(&[b"PAXOI", b"CHECKPOINT"])? {
        bail!("it makes no checkpoint: {text}");
    }
    loop {
        let now = info(client)?;
        if number(&now, "checkpoints_failed") > number(before, "checkpoints_failed") {
            bail!("it could not write a checkpoint: {}", why(&now));
        }
        if number(&now, "checkpoint_in_progress") == 0 {
            let made = number(&now, "checkpoints_made") > number(before, "checkpoints_made");
            ensure!(made, "it made no checkpoint: {}", why(&now));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "its checkpoints are not done after {patience:?}: give a longer --timeout");
        sleep(LOOK);
    }
}

/// Returns the node's reason for making no checkpoint.
fn why(info: &str) -> &str {
    match field(info, "last_checkpoint_error").map(str::trim_end) {
        Some("") => "it abandoned the checkpoint because it received a state from another node; try again",
        Some(reason) => reason,
        None => "its log says why",
    }
}

fn info(client: &mut Client) -> io::Result<String> {
    match client.call(&[b"INFO", b"paxos"])? {
        Value::Error(text) => Err(io::Error::other(text)),
        reply => Ok(String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned()),
    }
}

/// Finds the newest state of each group.
fn newest(source: &Source) -> anyhow::Result<Newest> {
    let deadline = Instant::now() + FILES_MAX;
    loop {
        match look(source) {
            Ok(Some((readers, found))) => return Ok((readers, found)),
            Ok(None) if Instant::now() > deadline => {
                bail!("some group has no checkpoint in {} yet; try again", source.place)
            }
            Err(error) if !vanished(&error) || Instant::now() > deadline => return Err(error.into()),
            Ok(None) | Err(_) => sleep(LOOK),
        }
    }
}

/// Searches the files once. Returns `None` if a group is in none of them.
fn look(source: &Source) -> Result<Option<Newest>, CheckpointError> {
    let unlisted = |source| CheckpointError::Read { file: "checkpoint-*".to_owned(), source };
    let (mut readers, header) = (Vec::new(), source.birth.checkpoint_header(CheckpointSequence(0)));
    for sequence in sequences(&source.disk).map_err(unlisted)? {
        let reader = CheckpointReader::open(&source.disk, &checkpoint_name(sequence))?;
        reader.expect_cluster(&header)?;
        readers.push(reader);
    }
    let of_group = |group: GroupId| {
        let mut newest: Option<Found> = None;
        for (reader, file) in readers.iter().enumerate() {
            let section = file.sections().binary_search_by_key(&group, |section| section.group);
            let summary = section.ok().map(|at| file.sections()[at]);
            let old = newest.as_ref().map(|found| found.summary.instance);
            if let Some(summary) = summary.filter(|section| old.is_none_or(|old| section.instance >= old)) {
                newest = Some(Found { reader, summary });
            }
        }
        newest
    };
    let found: Option<Vec<Found>> = (0..header.groups).map(GroupId).map(of_group).collect();
    Ok(found.map(|found| (readers, found)))
}

fn vanished(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn copy(reader: &CheckpointReader, summary: SectionSummary, writer: &mut CheckpointWriter) -> anyhow::Result<()> {
    let mut section = reader.section(summary.group)?.context("the state that the index names is missing")?;
    writer.begin(section.head())?;
    while let Some(block) = section.next_block()? {
        writer.block(&block)?;
    }
    Ok(writer.end(section.digest())?)
}
