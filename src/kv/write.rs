//! The commands that change a store. A key that is due counts as absent: a write to it overwrites it in place.

use super::command::{Command, ExpireIf, Once, Pair, Set, SetAnswer, SetExpiry, SetIf};
use super::directory::KeyPosition;
use super::entry::{Entry, Value};
use super::expiry::Expiry;
use super::long_double;
use super::long_value::{LONG_VALUE_BYTES, LongValue, shared_word};
use super::number::{self, FloatError};
use super::progress::CommandProgress;
use super::read::{TOO_MUCH, View};
use super::reply::Reply;
use super::rolling::{Change, Rolling, ends, whole};
use super::store::{Discarded, Store};
use bytes::Bytes;
use groups::{Ms, WorkBudget};
use std::borrow::Cow;

/// Maximum steps of all reads of one transaction in the log. The node whose client asked executes them, and the group
/// does nothing else there meanwhile. The other nodes skip them: they do not need the replies.
const TRANSACTION_STEPS_MAX: u64 = 4 << 20;

impl Store {
    /// Executes a command at the group's time, until `work` is spent. Returns `None` if the command is not done: it
    /// continues with `progress`. If `wanted` is false, nobody gets the reply, so its content does not matter.
    pub(super) fn execute(
        &mut self,
        command: &Command<'_>,
        wanted: bool,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'_>> {
        use Command as C;
        self.begin_command(progress);
        match command {
            C::Del(keys) => return self.del(keys, progress, work),
            C::MSet(pairs) => return self.put_all(pairs, progress, work).then_some(Reply::Ok),
            C::MSetNx(pairs) => return self.mset_nx(pairs, progress, work),
            C::Once(once) => return self.once(once, progress, work),
            C::UploadComplete(complete) => return self.complete(complete, wanted, progress, work),
            C::Exec(commands) if command.is_write() || wanted => {
                return self.execute_all(commands, command.is_write(), wanted, progress, work);
            }
            read if !read.is_write() && !wanted => return Some(Reply::Null),
            read if !read.is_write() => return View::new(self, self.time_ms).answer(read, progress, work),
            _ => {}
        }
        work.spend(1);
        self.weigh(command, work);
        Some(self.write(command, progress.arguments.as_ref()))
    }

    /// Removes some keys that are due, once before each command.
    pub(super) fn begin_command(&mut self, progress: &mut CommandProgress) {
        if !std::mem::replace(&mut progress.begun, true) {
            self.remove_due(self.limits.due_per_command_max);
        }
    }

    /// Executes a write that takes only one turn. `arguments` is the memory that the command's words are slices of, if
    /// a value may share that memory.
    fn write(&mut self, command: &Command<'_>, arguments: Option<&Bytes>) -> Reply<'_> {
        use Command as C;
        match command {
            C::Set(set) => self.set(set, arguments),
            C::GetDel(key) => self.get_del(key),
            C::GetEx(key, when) => self.get_ex(key, when.map(|when| when.at_ms(self.time_ms))),
            C::Append(key, value) => self.append(key, value, arguments),
            C::SetRange(key, offset, value) => self.set_range(key, *offset, value, arguments),
            C::IncrBy(key, by) => self.incr_by(key, *by),
            C::IncrByFloat(key, by) => self.incr_by_float(key, by, number::float_sum),
            C::IncrByLongDouble(key, by) => self.incr_by_float(key, by, long_double::sum),
            C::Expire(key, when, only_if) => self.expire_at(key, when.at_ms(self.time_ms), *only_if),
            C::Persist(key) => self.persist(key),
            C::Rename { from, to, only_new } => self.rename(from, to, *only_new),
            C::Copy { from, to, replace } => self.copy(from, to, *replace),
            C::Flush => {
                self.flush();
                Reply::Ok
            }
            C::UploadPart(part) => {
                let reply = self.uploads.add(part, self.time_ms, &self.limits);
                self.rolling.fold(Change::Part, part.upload.number, whole(Value::Short(part.bytes)) ^ part.offset << 8);
                reply
            }
            C::UploadAbort(id) => {
                let is_gone = self.uploads.remove(*id).is_some();
                self.rolling.fold(Change::Uploaded, id.number, u64::from(is_gone));
                Reply::Ok
            }
            C::SessionNew => {
                let id = self.sessions.issue(self.time_ms);
                self.rolling.fold(Change::Issued, id.birth_ms().0, u64::from(self.sessions.issued));
                Reply::Bulk(Cow::Owned(id.text().into_bytes()))
            }
            _ => Reply::Ok,
        }
    }

    /// Charges `work` for the bytes of stored entries that a write checksums, copies or frees, in addition to the bytes of
    /// the command.
    fn weigh(&self, command: &Command<'_>, work: &mut WorkBudget) {
        use Command as C;
        // While all keys and values are short, the bytes of an entry cost less than this lookup would.
        if self.longest < WEIGHED_BYTES_MIN {
            return;
        }
        let found = |key: &[u8]| self.entries.find(self.position(key), key).map_or(0, Entry::len);
        work.spend_bytes(match command {
            C::Rename { from, to, .. } | C::Copy { from, to, .. } => found(from) + found(to),
            C::GetDel(key) | C::GetEx(key, ..) | C::Expire(key, ..) | C::Persist(key) => found(key),
            _ => 0,
        });
    }

    fn flush(&mut self) {
        let entries = self.entries.clear();
        let expiry = std::mem::take(&mut self.expiry);
        if entries.as_ref().is_some_and(|entries| entries.len() > 0) || expiry.len() > 0 {
            self.discarded.push(Discarded::new((entries, expiry)));
        }
        self.heap_bytes = 0;
        self.rolling.fold(Change::Flushed, 0, 0);
    }

    fn del(&mut self, keys: &[&[u8]], progress: &mut CommandProgress, work: &mut WorkBudget) -> Option<Reply<'_>> {
        while let Some(key) = keys.get(progress.done) {
            let entry = self.take(key);
            progress.count += i64::from(entry.is_some());
            progress.done += 1;
            work.spend(1);
            work.spend_bytes(key.len() + entry.as_ref().map_or(0, Entry::len));
            if work.is_spent() && progress.done < keys.len() {
                return None;
            }
        }
        Some(Reply::Int(progress.count))
    }

    /// Executes every command of a transaction, even if its reply is replaced by an error. The replies are bounded
    /// because all replicas have to hold them at once.
    fn execute_all(
        &mut self,
        commands: &[Command<'_>],
        writes: bool,
        wanted: bool,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'static>> {
        while let Some(command) = commands.get(progress.done) {
            let mut inner = progress.inner.take().unwrap_or_default();
            let reply = match command.is_write() {
                true => {
                    inner.arguments.clone_from(&progress.arguments);
                    self.execute(command, wanted, &mut inner, work).map(Reply::into_owned)
                }
                false => {
                    // A transaction that only reads removes nothing between its commands.
                    if writes {
                        self.begin_command(&mut inner);
                    }
                    if wanted { self.read_inside(command, progress, &mut inner, work) } else { Some(Reply::Null) }
                }
            };
            let Some(reply) = reply else {
                progress.inner = Some(inner);
                return None;
            };
            progress.keep(reply, self.limits.reply_bytes_max());
            if work.is_spent() && progress.done < commands.len() {
                return None;
            }
        }
        Some(Reply::Array(std::mem::take(&mut progress.replies)))
    }

    /// Answers a read in a transaction. A command that walks over the keys is refused once the reads of the transaction
    /// have cost `TRANSACTION_STEPS_MAX`.
    fn read_inside(
        &self,
        command: &Command<'_>,
        progress: &mut CommandProgress,
        inner: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'static>> {
        if command.walks() && progress.read_steps >= TRANSACTION_STEPS_MAX {
            return Some(TOO_MUCH);
        }
        let before = work.left();
        let reply = View::new(self, self.time_ms).answer(command, inner, work).map(Reply::into_owned);
        progress.read_steps += before - work.left();
        reply
    }

    /// Executes a command of a session at most once. The session keeps the reply, which makes it a part of the state:
    /// so the reply is computed even if nobody wants it here, and reads run without a limit of work.
    fn once(&mut self, once: &Once<'_>, progress: &mut CommandProgress, work: &mut WorkBudget) -> Option<Reply<'_>> {
        if progress.inner.is_none()
            && let Some(answer) = self.sessions.answer(once, self.time_ms, &self.limits)
        {
            work.spend(1);
            return Some(answer);
        }
        let is_read = !once.command.is_write();
        let mut inner = progress.inner.take().unwrap_or_default();
        inner.arguments.clone_from(&progress.arguments);
        let reply = if is_read {
            work.spend(1);
            self.execute(&once.command, true, &mut inner, &mut WorkBudget::unlimited()).map(Reply::into_owned)
        } else {
            self.execute(&once.command, true, &mut inner, work).map(Reply::into_owned)
        };
        let Some(reply) = reply else {
            progress.inner = Some(inner);
            return None;
        };
        self.sessions.keep(once, &reply, &self.limits);
        self.rolling.fold(Change::Kept, once.fingerprint ^ once.number, self.sessions.floor_ms.0);
        Some(reply)
    }

    pub(super) fn set(&mut self, set: &Set<'_>, arguments: Option<&Bytes>) -> Reply<'static> {
        let position = self.position(set.key);
        if set.is_plain() {
            self.put(position, set.key, set.value, Ms(0), arguments);
            return Reply::Ok;
        }
        let (reply, expires_at_ms) = self.judge_set(set);
        if let Some(expires_at_ms) = expires_at_ms {
            self.put(position, set.key, set.value, expires_at_ms, arguments);
        }
        reply
    }

    /// Decides a SET, and changes nothing. Returns the reply, and the new expiry if the key is to be set (0: it never
    /// expires).
    fn judge_set(&self, set: &Set<'_>) -> (Reply<'static>, Option<Ms>) {
        let old = self.live(self.position(set.key), set.key);
        let obey = match set.only_if {
            SetIf::Always => true,
            SetIf::Missing => old.is_none(),
            SetIf::Present => old.is_some(),
        };
        let reply = match set.answer {
            SetAnswer::Done if obey => Reply::Ok,
            SetAnswer::Done => Reply::Null,
            SetAnswer::OldValue => old.map_or(Reply::Null, |entry| entry.value().reply().into_owned()),
            SetAnswer::Changed => Reply::Int(i64::from(obey)),
        };
        let expires_at_ms = match set.expiry {
            SetExpiry::None => Ms(0),
            SetExpiry::Keep => old.map_or(Ms(0), |entry| entry.expires_at_ms()),
            SetExpiry::New(when) => when.at_ms(self.time_ms).max(Ms(1)),
        };
        (reply, obey.then_some(expires_at_ms))
    }

    fn get_del(&mut self, key: &[u8]) -> Reply<'_> {
        self.take(key).map_or(Reply::Null, |entry| entry.value().reply().into_owned())
    }

    fn get_ex(&mut self, key: &[u8], at_ms: Option<Ms>) -> Reply<'_> {
        let position = self.position(key);
        if at_ms.is_some_and(|at_ms| at_ms <= self.time_ms) {
            return self.get_del(key);
        }
        let Some(entry) = self.entries.find_mut(position, key).filter(|entry| !entry.is_due(self.time_ms)) else {
            return Reply::Null;
        };
        change_expiry(entry, at_ms.unwrap_or(Ms(0)), &mut self.expiry, &mut self.heap_bytes, &mut self.rolling);
        entry.value().reply()
    }

    /// Puts the pairs from `progress` on. Returns true if all of them are put, false if `work` is spent.
    fn put_all(&mut self, pairs: &[Pair<'_>], progress: &mut CommandProgress, work: &mut WorkBudget) -> bool {
        while let Some((key, value)) = pairs.get(progress.done) {
            self.put(self.position(key), key, value, Ms(0), progress.arguments.as_ref());
            progress.done += 1;
            work.spend(1);
            work.spend_bytes(key.len() + value.len());
            if work.is_spent() && progress.done < pairs.len() {
                return false;
            }
        }
        true
    }

    fn mset_nx(
        &mut self,
        pairs: &[Pair<'_>],
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'_>> {
        while !progress.checked {
            let Some((key, _)) = pairs.get(progress.done) else {
                (progress.checked, progress.done) = (true, 0);
                break;
            };
            if self.live(self.position(key), key).is_some() {
                return Some(Reply::Int(0));
            }
            progress.done += 1;
            work.spend(1);
            if work.is_spent() {
                return None;
            }
        }
        self.put_all(pairs, progress, work).then_some(Reply::Int(1))
    }

    fn append(&mut self, key: &[u8], value: &[u8], arguments: Option<&Bytes>) -> Reply<'_> {
        let position = self.position(key);
        let Some(entry) = self.entries.find_mut(position, key).filter(|entry| !entry.is_due(self.time_ms)) else {
            self.put(position, key, value, Ms(0), arguments);
            return Reply::Int(value.len() as i64);
        };
        if entry.value().len() + value.len() > self.limits.value_bytes_max {
            return TOO_LONG;
        }
        let before = entry.heap_bytes();
        match shared(value, arguments) {
            Some(value) => entry.append_shared(value),
            None => entry.append(value),
        }
        reweigh(&mut self.heap_bytes, before, entry);
        self.rolling.key(Change::Append, position, ends(value) ^ entry.value().len() as u64);
        self.longest = self.longest.max(entry.value().len());
        Reply::Int(entry.value().len() as i64)
    }

    fn set_range(&mut self, key: &[u8], offset: u64, value: &[u8], arguments: Option<&Bytes>) -> Reply<'_> {
        let position = self.position(key);
        let old_length = self.live(position, key).map_or(0, |entry| entry.value().len());
        if value.is_empty() {
            return Reply::Int(old_length as i64);
        }
        let end = offset.saturating_add(value.len() as u64);
        if end > self.limits.value_bytes_max as u64 {
            return TOO_LONG;
        }
        if self.live(position, key).is_none() {
            self.put(position, key, &[], Ms(0), None);
        }
        let Some(entry) = self.entries.find_mut(position, key) else { unreachable!("it was just put") };
        let before = entry.heap_bytes();
        match shared(value, arguments) {
            Some(value) => entry.write_shared_at(offset as usize, value),
            None => entry.write_at(offset as usize, value),
        }
        reweigh(&mut self.heap_bytes, before, entry);
        let length = entry.value().len();
        self.rolling.key(Change::Write, position, ends(value) ^ offset ^ (length as u64) << 32);
        self.longest = self.longest.max(length);
        Reply::Int(length as i64)
    }

    fn incr_by(&mut self, key: &[u8], by: i64) -> Reply<'_> {
        let position = self.position(key);
        let (old, expires_at_ms) = match self.live(position, key) {
            None => (0, Ms(0)),
            Some(entry) => match entry.value().short().and_then(number::integer) {
                Some(number) => (number, entry.expires_at_ms()),
                None => return Reply::error("ERR value is not an integer or out of range"),
            },
        };
        let Some(sum) = old.checked_add(by) else {
            return Reply::error("ERR increment or decrement would overflow");
        };
        self.rolling.key(Change::Made, position, sum as u64);
        self.put(position, key, itoa::Buffer::new().format(sum).as_bytes(), expires_at_ms, None);
        Reply::Int(sum)
    }

    fn incr_by_float(&mut self, key: &[u8], by: &[u8], sum: FloatSum) -> Reply<'_> {
        let position = self.position(key);
        let (old, expires_at_ms) = match self.live(position, key) {
            // A long value is never a number: it is read as an empty text.
            Some(entry) => (entry.value().short().unwrap_or_default(), entry.expires_at_ms()),
            None => (&b"0"[..], Ms(0)),
        };
        match sum(old, by) {
            Ok(sum) => {
                self.rolling.key(Change::Made, position, whole(Value::Short(sum.as_bytes())));
                self.put(position, key, sum.as_bytes(), expires_at_ms, None);
                Reply::Bulk(Cow::Owned(sum.into_bytes()))
            }
            Err(FloatError::NotANumber) => Reply::error("ERR value is not a valid float"),
            Err(FloatError::Infinite) => Reply::error("ERR increment would produce NaN or Infinity"),
        }
    }

    fn expire_at(&mut self, key: &[u8], at_ms: Ms, only_if: ExpireIf) -> Reply<'_> {
        let position = self.position(key);
        let Some(entry) = self.entries.find_mut(position, key).filter(|entry| !entry.is_due(self.time_ms)) else {
            return Reply::Int(0);
        };
        let old = entry.expires_at_ms();
        let refused = only_if.missing && old != Ms(0)
            || only_if.present && old == Ms(0)
            || only_if.later && (old == Ms(0) || at_ms <= old)
            || only_if.sooner && old != Ms(0) && at_ms >= old;
        if refused {
            return Reply::Int(0);
        }
        if at_ms <= self.time_ms {
            self.take(key);
        } else {
            change_expiry(entry, at_ms, &mut self.expiry, &mut self.heap_bytes, &mut self.rolling);
        }
        Reply::Int(1)
    }

    fn persist(&mut self, key: &[u8]) -> Reply<'_> {
        let position = self.position(key);
        let entry = self.entries.find_mut(position, key).filter(|entry| !entry.is_due(self.time_ms));
        let Some(entry) = entry.filter(|entry| entry.expires_at_ms() != Ms(0)) else { return Reply::Int(0) };
        change_expiry(entry, Ms(0), &mut self.expiry, &mut self.heap_bytes, &mut self.rolling);
        Reply::Int(1)
    }

    fn rename(&mut self, from: &[u8], to: &[u8], only_new: bool) -> Reply<'_> {
        if self.live(self.position(from), from).is_none() {
            return Reply::error("ERR no such key");
        }
        let answer = |done: bool| if only_new { Reply::Int(i64::from(done)) } else { Reply::Ok };
        if from == to || only_new && self.live(self.position(to), to).is_some() {
            return answer(false);
        }
        if let Some(entry) = self.take(from) {
            self.take(to);
            self.insert_made(to, entry.value(), entry.expires_at_ms());
        }
        answer(true)
    }

    fn copy(&mut self, from: &[u8], to: &[u8], replace: bool) -> Reply<'_> {
        let Some(entry) = self.live(self.position(from), from) else { return Reply::Int(0) };
        let entry = entry.clone();
        if !replace && self.live(self.position(to), to).is_some() {
            return Reply::Int(0);
        }
        self.take(to);
        self.insert_made(to, entry.value(), entry.expires_at_ms());
        Reply::Int(1)
    }

    /// The key's entry, unless it is due.
    fn live(&self, position: KeyPosition, key: &[u8]) -> Option<&Entry> {
        self.entries.find(position, key).filter(|entry| !entry.is_due(self.time_ms))
    }

    /// Removes a key. Returns its entry, unless it was due.
    fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(self.position(key), key)?;
        self.forget(&entry);
        (!entry.is_due(self.time_ms)).then_some(entry)
    }

    /// Gives a key a value and an expiry (0: never), whatever it held before. If the expiry is due already, the key is
    /// removed instead. A long value shares the memory of `arguments` where [`shared`] allows it, and is copied
    /// otherwise.
    fn put(&mut self, position: KeyPosition, key: &[u8], value: &[u8], expires_at_ms: Ms, arguments: Option<&Bytes>) {
        if expires_at_ms != Ms(0) && expires_at_ms <= self.time_ms {
            self.take(key);
            return;
        }
        self.rolling.key(Change::Put, position, ends(value) ^ expires_at_ms.0);
        self.longest = self.longest.max(value.len());
        if value.len() >= LONG_VALUE_BYTES {
            let value = shared(value, arguments).unwrap_or_else(|| Bytes::copy_from_slice(value));
            return self.put_long(Entry::long(position, key, LongValue::from(value), expires_at_ms));
        }
        let entry = match self.entries.place(position, key) {
            Ok(entry) => entry,
            Err(gap) => {
                let entry = Entry::new(position, key, value, expires_at_ms);
                self.count(&entry);
                self.entries.fill(gap, entry);
                return;
            }
        };
        self.expiry.change(position, entry.expires_at_ms(), expires_at_ms);
        let before = entry.heap_bytes();
        entry.put(value, expires_at_ms);
        reweigh(&mut self.heap_bytes, before, entry);
    }

    /// Puts an entry with a long value, and replaces the entry of its key. The old entry goes to `discarded`, to be
    /// freed elsewhere.
    fn put_long(&mut self, entry: Entry) {
        let (position, expires_at_ms, heap_bytes) = (entry.position, entry.expires_at_ms(), entry.heap_bytes());
        match self.entries.replace(entry) {
            Ok((expired_at_ms, old_bytes, old)) => {
                self.expiry.change(position, expired_at_ms, expires_at_ms);
                self.heap_bytes = self.heap_bytes - old_bytes + heap_bytes;
                self.discarded.extend(old.map(Discarded::new));
            }
            Err((gap, entry)) => {
                self.count(&entry);
                self.entries.fill(gap, entry);
            }
        }
    }

    /// Adds a missing key with the value of another key, for RENAME and COPY.
    fn insert_made(&mut self, key: &[u8], value: Value<'_>, expires_at_ms: Ms) {
        let position = self.position(key);
        self.rolling.key(Change::Made, position, whole(value) ^ expires_at_ms.0);
        let entry = match value {
            Value::Short(value) => Entry::new(position, key, value, expires_at_ms),
            Value::Long(value) => Entry::long(position, key, value.clone(), expires_at_ms),
        };
        self.count(&entry);
        self.entries.insert(entry);
    }

    /// Accounts for an entry that comes into the directory: its expiry, its heap memory, and its length.
    pub(super) fn count(&mut self, entry: &Entry) {
        self.expiry.change(entry.position, Ms(0), entry.expires_at_ms());
        self.heap_bytes += entry.heap_bytes();
        self.longest = self.longest.max(entry.key().len()).max(entry.value().len());
    }
}

/// The text of the sum of two numbers given as text.
type FloatSum = fn(&[u8], &[u8]) -> Result<String, FloatError>;

/// Entries are weighed once the longest key or value has this many bytes.
const WEIGHED_BYTES_MIN: usize = 4 << 10;

/// Changes when the key of an entry expires (0: never), and accounts for the change.
fn change_expiry(
    entry: &mut Entry,
    expires_at_ms: Ms,
    expiry: &mut Expiry,
    heap_bytes: &mut usize,
    rolling: &mut Rolling,
) {
    expiry.change(entry.position, entry.expires_at_ms(), expires_at_ms);
    let before = entry.heap_bytes();
    entry.set_expiry(expires_at_ms);
    reweigh(heap_bytes, before, entry);
    rolling.key(Change::Expiry, entry.position, expires_at_ms.0);
}

/// Updates `heap_bytes` after a write to `entry`, whose memory was `before` bytes.
fn reweigh(heap_bytes: &mut usize, before: usize, entry: &Entry) {
    *heap_bytes = *heap_bytes - before + entry.heap_bytes();
}

/// Returns `word` as a slice that shares the memory of `arguments`. The word must be long and take at least half of
/// `arguments`, because the slice keeps all of that memory alive. Otherwise returns `None`.
fn shared(word: &[u8], arguments: Option<&Bytes>) -> Option<Bytes> {
    shared_word(word, arguments.filter(|all| word.len() >= all.len() / 2)?)
}

const TOO_LONG: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
