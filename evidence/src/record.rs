//! # Records: what stands behind the entries of the log
//!
//! An entry is two letters and a hash; the record is what was hashed. Batches (`b1`) and receipts (`g1`) are COSE_Sign1 of
//! `core`; here are the others, in deterministic CBOR:
//!
//! ```text
//! en = ["en", did(8), net, sid, SubjectPublicKeyInfo (DER), made]          made: 0 unknown, 1 on the device,
//!                                                                          2 in a secure element, 3 elsewhere
//! rv = ["rv", n, [[kid8, revoked_unix_s], ..]]                             the whole list, kid8 ascending
//! rs = ["rs", unix_s, what]
//! cf = ["cf", did(8), policy record, [[template id, SHA-256 of its definition], ..]]      ids ascending
//! op = ["op", n, unix_s, SHA-256 of the line n, SHA-256 of the line before]               of the operator's log
//! ```
//!
//! Spec: docs/protocol.md 13.2.

use fivefold_core::error::SealError;
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::proof::KeyName;
use fivefold_core::wire::cbor::{Malformed, Reader, Writer};
use fivefold_keep::registry::Line;

/// Bytes around the contents of a record, at most.
const AROUND: usize = 80;

/// Where a signing key was made, as the operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Made {
    /// 3: not on the device: somebody else had it once.
    Elsewhere,
    /// 2: in a secure element that does not give it out.
    InSecureElement,
    /// 1: on the device.
    OnDevice,
    /// 0: nothing is known about it.
    Unknown,
}

impl Made {
    const fn wire(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::OnDevice => 1,
            Self::InSecureElement => 2,
            Self::Elsewhere => 3,
        }
    }

    /// For programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::OnDevice => "device",
            Self::InSecureElement => "secure-element",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// `en`: a device was enrolled, or got another signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolment<'b> {
    /// Which device.
    pub did: Did,
    /// Its network.
    pub net: Net,
    /// Its short id there.
    pub sid: Sid,
    /// SubjectPublicKeyInfo (DER) of its signing key.
    pub spki: &'b [u8],
    /// Where that key was made.
    pub made: Made,
}

impl<'b> Enrolment<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes, 6, "en")?;
        let record = Self {
            did: Did(*r.bytes_of()?),
            net: Net(r.uint()?),
            sid: Sid(r.uint()?),
            spki: r.bytes()?,
            made: match r.unsigned()? {
                0 => Made::Unknown,
                1 => Made::OnDevice,
                2 => Made::InSecureElement,
                3 => Made::Elsewhere,
                _ => return Err(Malformed::new("en: a key is made in one of four places")),
            },
        };
        r.end()?;
        Ok(record)
    }

    /// Writes it.
    ///
    /// # Errors
    /// None that its own lengths do not cause.
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        written(self.spki.len(), |w| {
            w.array(6)?;
            w.text("en")?;
            w.bytes(&self.did.0)?;
            w.unsigned(self.net.0)?;
            w.unsigned(self.sid.0)?;
            w.bytes(self.spki)?;
            w.unsigned(self.made.wire())
        })
    }
}

/// `rv`: all signing keys that are revoked, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// 0, 1, 2: one list after the other. List 0 is empty: a log begins with it.
    pub number: u64,
    /// Keys with the time of their revocation (Unix seconds), ascending.
    pub keys: Vec<(KeyName, u64)>,
}

impl Revocations {
    /// Reads a list, and nothing after it.
    ///
    /// # Errors
    /// When it has another form, or names a key twice or out of order.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes, 3, "rv")?;
        let number = r.unsigned()?;
        let n = r.array()?;
        let mut keys: Vec<(KeyName, u64)> = Vec::new();
        for _ in 0..n {
            r.array_of(2)?;
            let (key, at) = (KeyName(*r.bytes_of()?), r.unsigned()?);
            if keys.last().is_some_and(|(last, _)| key <= *last) {
                return Err(Malformed::new("rv: keys repeat or are out of order"));
            }
            keys.push((key, at));
        }
        r.end()?;
        Ok(Self { number, keys })
    }

    /// Writes the list. `keys` must be ascending.
    ///
    /// # Errors
    /// None that its own lengths do not cause.
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        written(self.keys.len() * 19, |w| {
            w.array(3)?;
            w.text("rv")?;
            w.unsigned(self.number)?;
            w.array(self.keys.len())?;
            self.keys.iter().try_for_each(|(key, at)| {
                w.array(2)?;
                w.bytes(&key.0)?;
                w.unsigned(*at)
            })
        })
    }

    /// Since when a key is revoked, Unix seconds; `None` when it is not.
    pub fn since(&self, key: KeyName) -> Option<u64> {
        self.keys.binary_search_by_key(&key, |(name, _)| *name).ok().and_then(|at| self.keys.get(at)).map(|(_, at)| *at)
    }
}

/// `rs`: the cloud was put back from a copy, or something else of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored<'b> {
    /// When, Unix seconds.
    pub at: u64,
    /// What, in a few words.
    pub what: &'b str,
}

impl<'b> Restored<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes, 3, "rs")?;
        let record = Self { at: r.unsigned()?, what: r.text()? };
        r.end()?;
        Ok(record)
    }

    /// Writes it.
    ///
    /// # Errors
    /// None that its own lengths do not cause.
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        written(self.what.len(), |w| {
            w.array(3)?;
            w.text("rs")?;
            w.unsigned(self.at)?;
            w.text(self.what)
        })
    }
}

/// `cf`: what a device must do from now on, and the templates that its readings may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured<'b> {
    /// Which device.
    pub did: Did,
    /// Its policy record ([`core::profile::Policy`](fivefold_core::profile::Policy)).
    pub policy: &'b [u8],
    /// Template ids, ascending, each with SHA-256 of its definition.
    pub templates: Vec<(u64, [u8; 32])>,
}

impl<'b> Configured<'b> {
    /// Reads one, and nothing after it. The policy record is not looked into.
    ///
    /// # Errors
    /// When it has another form, or names a template twice or out of order.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes, 4, "cf")?;
        let (did, policy) = (Did(*r.bytes_of()?), r.bytes()?);
        let n = r.array()?;
        let mut templates: Vec<(u64, [u8; 32])> = Vec::new();
        for _ in 0..n {
            r.array_of(2)?;
            let (id, hash) = (r.unsigned()?, *r.bytes_of()?);
            if templates.last().is_some_and(|(last, _)| id <= *last) {
                return Err(Malformed::new("cf: templates repeat or are out of order"));
            }
            templates.push((id, hash));
        }
        r.end()?;
        Ok(Self { did, policy, templates })
    }

    /// Writes it. `templates` must be ascending.
    ///
    /// # Errors
    /// None that its own lengths do not cause.
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        written(self.policy.len() + self.templates.len() * 45, |w| {
            w.array(4)?;
            w.text("cf")?;
            w.bytes(&self.did.0)?;
            w.bytes(self.policy)?;
            w.array(self.templates.len())?;
            self.templates.iter().try_for_each(|(id, hash)| {
                w.array(2)?;
                w.unsigned(*id)?;
                w.bytes(hash)
            })
        })
    }
}

/// `op`: a line of the operator's log. Who did what stands in the line, which stays with the operator: here are hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Number of the line: 1, 2, 3.
    pub number: u64,
    /// When, Unix seconds.
    pub at: u64,
    /// Hash of the line.
    pub line: [u8; 32],
    /// Hash of the line before; of the first, zeros.
    pub before: [u8; 32],
}

impl Deed {
    /// Of a line.
    pub fn of(line: &Line) -> Self {
        Self { number: line.number, at: line.at, line: line.hash(), before: line.before }
    }

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes, 5, "op")?;
        let record = Self { number: r.unsigned()?, at: r.unsigned()?, line: *r.bytes_of()?, before: *r.bytes_of()? };
        r.end()?;
        Ok(record)
    }

    /// Writes it.
    ///
    /// # Errors
    /// None that its own lengths do not cause.
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        written(64, |w| {
            w.array(5)?;
            w.text("op")?;
            w.unsigned(self.number)?;
            w.unsigned(self.at)?;
            w.bytes(&self.line)?;
            w.bytes(&self.before)
        })
    }
}

/// The array of a record, past its name.
fn start<'b>(bytes: &'b [u8], items: u64, name: &str) -> Result<Reader<'b>, Malformed> {
    let mut r = Reader::new(bytes);
    r.array_of(items)?;
    if r.text()? != name {
        return Err(Malformed::new("a record of another kind"));
    }
    Ok(r)
}

fn written(
    contents: usize,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), SealError>,
) -> Result<Vec<u8>, SealError> {
    let mut out = vec![0; contents + AROUND];
    let mut w = Writer::new(&mut out);
    write(&mut w)?;
    let n = w.len();
    out.truncate(n);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_read_as_it_was_written_and_no_cut_of_it_is_one() {
        let enrolment =
            Enrolment { did: Did([7; 8]), net: Net(9), sid: Sid(0x0A17), spki: &[3; 91], made: Made::OnDevice };
        let bytes = enrolment.emit().unwrap();
        assert_eq!(Enrolment::parse(&bytes), Ok(enrolment));
        (0..bytes.len()).for_each(|n| assert!(Enrolment::parse(&bytes[..n]).is_err()));

        let list = Revocations { number: 2, keys: vec![(KeyName([1; 8]), 5), (KeyName([2; 8]), u64::MAX)] };
        let bytes = list.emit().unwrap();
        assert_eq!(Revocations::parse(&bytes), Ok(list.clone()));
        (0..bytes.len()).for_each(|n| assert!(Revocations::parse(&bytes[..n]).is_err()));
        assert_eq!((list.since(KeyName([1; 8])), list.since(KeyName([3; 8]))), (Some(5), None));

        let restored = Restored { at: 1_790_000_000, what: "put back from a copy" };
        assert_eq!(Restored::parse(&restored.emit().unwrap()), Ok(restored));

        let configured =
            Configured { did: Did([7; 8]), policy: b"policy", templates: vec![(3, [1; 32]), (u64::MAX, [2; 32])] };
        let bytes = configured.emit().unwrap();
        assert_eq!(Configured::parse(&bytes), Ok(configured));
        (0..bytes.len()).for_each(|n| assert!(Configured::parse(&bytes[..n]).is_err()));

        let deed = Deed { number: u64::MAX, at: u64::MAX, line: [1; 32], before: [2; 32] };
        let bytes = deed.emit().unwrap();
        assert_eq!(Deed::parse(&bytes), Ok(deed));
        (0..bytes.len()).for_each(|n| assert!(Deed::parse(&bytes[..n]).is_err()));
    }

    #[test]
    fn a_list_that_repeats_or_is_out_of_order_is_refused() {
        for keys in [vec![(KeyName([2; 8]), 5), (KeyName([1; 8]), 5)], vec![(KeyName([1; 8]), 5); 2]] {
            assert!(Revocations::parse(&Revocations { number: 0, keys }.emit().unwrap()).is_err());
        }
        let configured = Configured { did: Did([7; 8]), policy: b"", templates: vec![(3, [1; 32]); 2] };
        assert!(Configured::parse(&configured.emit().unwrap()).is_err());
    }

    #[test]
    fn one_kind_is_not_read_as_another() {
        let list = Revocations::default().emit().unwrap();
        assert!(Restored::parse(&list).is_err());
        let mut other = Enrolment { did: Did([7; 8]), net: Net(9), sid: Sid(1), spki: &[], made: Made::Unknown };
        other.made = Made::Elsewhere;
        let mut bytes = other.emit().unwrap();
        *bytes.last_mut().unwrap() = 4;
        assert!(Enrolment::parse(&bytes).is_err());
    }
}
