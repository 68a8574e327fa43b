//! # The bundle: one reading with all that a stranger needs
//!
//! A file `.evb` is a CBOR sequence of maps, each complete by itself. Reading is strict and total: deterministic CBOR, all
//! of the keys 1 to 12, nothing else, and no more of anything than [`BYTES`] and the limits below allow. What is inside of
//! the byte strings is looked at by [`verify`](crate::verify), step by step.
//!
//! Spec: docs/protocol.md 13.3.

use std::fmt;

use fivefold_core::error::SealError;
use fivefold_core::proof::merkle::{Hash, LONGEST_PROOF, prove_inclusion};
use fivefold_core::proof::statement::Salt;
use fivefold_core::wire::cbor::{Malformed, Reader, Writer};

/// Bytes of one bundle, at most.
pub const BYTES: usize = 1 << 20;
/// Bytes of a file, at most.
pub const FILE_BYTES: usize = 64 << 20;
/// Certificates in one chain, at most.
pub const CHAIN: usize = 8;
/// Receipts of gateways in one bundle, at most.
pub const RECEIPTS: usize = 16;
/// Timestamps in one bundle, at most.
pub const TIMESTAMPS: usize = 16;
/// Hashes of one path, at most.
const PATH: usize = LONGEST_PROOF;
/// Certificate revocation lists beside one timestamp, at most.
const LISTS: usize = 8;
/// Item 1.
const MAGIC: &str = "evb1";
/// Items of the map.
const ITEMS: u64 = 12;

/// One reading with its evidence, as it came: its outer shape is checked, nothing is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle<'b> {
    /// 2, first half: `["r1", level, did, epoch, bctx, PIV, payload]`.
    pub tbs: &'b [u8],
    /// 2, second half.
    pub salt: Salt,
    /// 3: from the leaf to the root of its batch.
    pub path: Path,
    /// 4: the COSE_Sign1 with the statement over the batch.
    pub signed: &'b [u8],
    /// 5: certificates (DER) of the signing key, its own first, without the pinned one.
    pub chain: Vec<&'b [u8]>,
    /// 6: the record of the device's enrolment.
    pub enrolment: Logged<'b>,
    /// 7: where the batch stands in the log.
    pub proof: &'b str,
    /// 8: what the columns of the reading's template mean.
    pub template: Option<Definition<'b>>,
    /// 9: what gateways say of when they heard it.
    pub receipts: Vec<Heard<'b>>,
    /// 10: the list of revoked signing keys.
    pub revocations: Logged<'b>,
    /// 11: the policy record of the device.
    pub policy: Logged<'b>,
    /// 12: timestamps of others over the checkpoint of 7.
    pub timestamps: Vec<Timestamp<'b>>,
}

/// A path in a Merkle tree of RFC 9162.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Which leaf.
    pub index: u64,
    /// Of how many.
    pub size: u64,
    /// The hashes, leaf side first.
    pub hashes: Vec<Hash>,
}

/// A record of the log: its bytes, and the proof that its hash is an entry (`c2sp.org/tlog-proof@v1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged<'b> {
    /// The record.
    pub record: &'b [u8],
    /// Where it stands.
    pub proof: &'b str,
}

/// A template: its id, and its definition as it was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'b> {
    /// Which template.
    pub id: u64,
    /// `[id, [name, unit or null], ..]`.
    pub definition: &'b [u8],
}

/// What one gateway says: it had this envelope in a batch that it signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<'b> {
    /// The COSE_Sign1 of its receipt.
    pub receipt: &'b [u8],
    /// The envelope, as it stood in the batch.
    pub envelope: &'b [u8],
    /// From the envelope to the root in the receipt.
    pub path: Path,
    /// Where the receipt stands in the log.
    pub proof: &'b str,
    /// Certificates (DER) of the key that signed the receipt, its own first, without the pinned one.
    pub chain: Vec<&'b [u8]>,
}

/// A timestamp of RFC 3161 over SHA-256 of the signed note in 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp<'b> {
    /// The token (DER).
    pub token: &'b [u8],
    /// Certificates (DER) of the authority, its own first, without the pinned one.
    pub chain: Vec<&'b [u8]>,
    /// Certificate revocation lists (DER) of their issuers.
    pub lists: Vec<&'b [u8]>,
}

/// Why parts make no bundle. It is for whoever puts them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAssembled {
    /// The batch has no such leaf.
    #[error("the batch has no leaf of this number")]
    NoSuchLeaf,
    /// More of something than a bundle holds.
    #[error("a bundle cannot hold it: {0}")]
    TooMuch(Malformed),
    /// It could not be written.
    #[error("a bundle cannot be written: {0}")]
    Unwritable(SealError),
}

impl From<SealError> for NotAssembled {
    fn from(e: SealError) -> Self {
        Self::Unwritable(e)
    }
}

/// The bundles of a file, one after the other. After the first that cannot be read there is nothing more: where the next
/// one begins is not known.
#[derive(Clone, Debug)]
pub struct Bundles<'b> {
    reader: Reader<'b>,
    is_broken: bool,
}

impl<'b> Bundles<'b> {
    /// Over the bytes of a file.
    ///
    /// # Errors
    /// When they are none, or more than [`FILE_BYTES`].
    pub const fn new(file: &'b [u8]) -> Result<Self, Malformed> {
        match file.len() {
            0 => Err(Malformed::new("the file is empty")),
            1..=FILE_BYTES => Ok(Self { reader: Reader::new(file), is_broken: false }),
            _ => Err(Malformed::new("the file is larger than 64 MiB")),
        }
    }
}

impl<'b> Iterator for Bundles<'b> {
    type Item = Result<Bundle<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken || self.reader.is_at_end() {
            return None;
        }
        let bundle = Bundle::read(&mut self.reader);
        self.is_broken = bundle.is_err();
        Some(bundle)
    }
}

impl<'b> Bundle<'b> {
    /// Reads one bundle, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let bundle = Self::read(&mut r)?;
        r.end()?;
        Ok(bundle)
    }

    fn read(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let start = r.rest().len();
        let bundle = Self::read_items(r)?;
        if start - r.rest().len() > BYTES {
            return Err(Malformed::new("a bundle is larger than 1 MiB"));
        }
        Ok(bundle)
    }

    fn read_items(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        if r.map()? != ITEMS {
            return Err(Malformed::new("a bundle has the items 1 to 12 and no other"));
        }
        item(r, 1)?;
        if r.text()? != MAGIC {
            return Err(Malformed::new("item 1 is not evb1"));
        }
        item(r, 2)?;
        r.array_of(2)?;
        let (tbs, salt) = (r.bytes()?, Salt(*r.bytes_of()?));
        item(r, 3)?;
        r.array_of(3)?;
        let path = Path::read(r)?;
        item(r, 4)?;
        let signed = r.bytes()?;
        item(r, 5)?;
        let chain = certificates(r)?;
        item(r, 6)?;
        let enrolment = Logged::read(r)?;
        item(r, 7)?;
        let proof = r.text()?;
        item(r, 8)?;
        let template = if r.null() {
            None
        } else {
            r.array_of(2)?;
            Some(Definition { id: r.unsigned()?, definition: r.bytes()? })
        };
        item(r, 9)?;
        let receipts = list(r, RECEIPTS, "item 9 has more than 16 receipts", Heard::read)?;
        item(r, 10)?;
        let revocations = Logged::read(r)?;
        item(r, 11)?;
        let policy = Logged::read(r)?;
        item(r, 12)?;
        let timestamps = list(r, TIMESTAMPS, "item 12 has more than 16 timestamps", Timestamp::read)?;
        Ok(Self {
            tbs,
            salt,
            path,
            signed,
            chain,
            enrolment,
            proof,
            template,
            receipts,
            revocations,
            policy,
            timestamps,
        })
    }

    /// Writes one that was put together, if whoever reads it will be able to. Nothing is verified.
    ///
    /// # Errors
    /// [`NotAssembled`].
    pub fn assemble(&self) -> Result<Vec<u8>, NotAssembled> {
        let bytes = self.emit()?;
        Bundle::parse(&bytes).map_err(NotAssembled::TooMuch)?;
        Ok(bytes)
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it is larger than [`BYTES`].
    pub fn emit(&self) -> Result<Vec<u8>, SealError> {
        let mut out = vec![0; BYTES];
        let mut w = Writer::new(&mut out);
        self.emit_items(&mut w)?;
        let n = w.len();
        out.truncate(n);
        out.shrink_to_fit();
        Ok(out)
    }

    fn emit_items(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.map(ITEMS as usize)?;
        w.unsigned(1u8)?;
        w.text(MAGIC)?;
        w.unsigned(2u8)?;
        w.array(2)?;
        w.bytes(self.tbs)?;
        w.bytes(&self.salt.0)?;
        w.unsigned(3u8)?;
        w.array(3)?;
        self.path.emit(w)?;
        w.unsigned(4u8)?;
        w.bytes(self.signed)?;
        w.unsigned(5u8)?;
        emit_list(w, &self.chain)?;
        w.unsigned(6u8)?;
        self.enrolment.emit(w)?;
        w.unsigned(7u8)?;
        w.text(self.proof)?;
        w.unsigned(8u8)?;
        match &self.template {
            None => w.null()?,
            Some(t) => {
                w.array(2)?;
                w.unsigned(t.id)?;
                w.bytes(t.definition)?;
            }
        }
        w.unsigned(9u8)?;
        w.array(self.receipts.len())?;
        self.receipts.iter().try_for_each(|heard| heard.emit(w))?;
        w.unsigned(10u8)?;
        self.revocations.emit(w)?;
        w.unsigned(11u8)?;
        self.policy.emit(w)?;
        w.unsigned(12u8)?;
        w.array(self.timestamps.len())?;
        self.timestamps.iter().try_for_each(|t| {
            w.array(3)?;
            w.bytes(t.token)?;
            emit_list(w, &t.chain)?;
            emit_list(w, &t.lists)
        })
    }
}

impl Path {
    /// To leaf number `index` of these.
    ///
    /// # Errors
    /// [`NotAssembled::NoSuchLeaf`].
    pub fn of(leaves: &[Hash], index: usize) -> Result<Self, NotAssembled> {
        let proof = prove_inclusion(leaves, index).ok_or(NotAssembled::NoSuchLeaf)?;
        Ok(Self { index: index as u64, size: leaves.len() as u64, hashes: proof.as_slice().to_vec() })
    }

    /// The three items, without a head of their own.
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (index, size) = (r.unsigned()?, r.unsigned()?);
        let hashes = list(r, PATH, "a path is longer than any tree is high", |r| Ok(Hash(*r.bytes_of()?)))?;
        Ok(Self { index, size, hashes })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.unsigned(self.index)?;
        w.unsigned(self.size)?;
        w.array(self.hashes.len())?;
        self.hashes.iter().try_for_each(|h| w.bytes(&h.0))
    }
}

impl<'b> Logged<'b> {
    fn read(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        Ok(Self { record: r.bytes()?, proof: r.text()? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.bytes(self.record)?;
        w.text(self.proof)
    }
}

impl<'b> Heard<'b> {
    fn read(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(7)?;
        let (receipt, envelope) = (r.bytes()?, r.bytes()?);
        Ok(Self { receipt, envelope, path: Path::read(r)?, proof: r.text()?, chain: certificates(r)? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(7)?;
        w.bytes(self.receipt)?;
        w.bytes(self.envelope)?;
        self.path.emit(w)?;
        w.text(self.proof)?;
        emit_list(w, &self.chain)
    }
}

impl<'b> Timestamp<'b> {
    fn read(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        let token = r.bytes()?;
        let chain = certificates(r)?;
        let lists = list(r, LISTS, "a timestamp has more than 8 revocation lists", Reader::bytes)?;
        Ok(Self { token, chain, lists })
    }
}

impl fmt::Display for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (receipts, timestamps) = (self.receipts.len(), self.timestamps.len());
        write!(f, "leaf {} of {}, {receipts} receipts, {timestamps} timestamps", self.path.index, self.path.size)
    }
}

/// The key of the next item.
fn item(r: &mut Reader<'_>, number: u64) -> Result<(), Malformed> {
    if r.unsigned()? == number { Ok(()) } else { Err(Malformed::new("a bundle has the items 1 to 12 and no other")) }
}

/// An array of at most `most` items. Each takes a byte at least, so what is said of their number costs nothing.
fn list<'b, T>(
    r: &mut Reader<'b>,
    most: usize,
    too_many: &'static str,
    mut read: impl FnMut(&mut Reader<'b>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let n = usize::try_from(r.array()?).unwrap_or(usize::MAX);
    if n > most {
        return Err(Malformed::new(too_many));
    }
    (0..n).map(|_| read(r)).collect()
}

fn certificates<'b>(r: &mut Reader<'b>) -> Result<Vec<&'b [u8]>, Malformed> {
    let chain = list(r, CHAIN, "a chain has more than 8 certificates", Reader::bytes)?;
    if chain.is_empty() { Err(Malformed::new("a chain has no certificate")) } else { Ok(chain) }
}

fn emit_list(w: &mut Writer<'_>, list: &[&[u8]]) -> Result<(), SealError> {
    w.array(list.len())?;
    list.iter().try_for_each(|bytes| w.bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Vec<u8> {
        let leaves: Vec<_> = (0..5u8).map(|n| Hash([n; 32])).collect();
        let logged = Logged { record: b"record", proof: "proof" };
        let bundle = Bundle {
            tbs: b"tbs",
            salt: Salt([7; 16]),
            path: Path::of(&leaves, 3).unwrap(),
            signed: b"signed",
            chain: vec![b"certificate"],
            enrolment: logged,
            proof: "proof",
            template: Some(Definition { id: 3, definition: b"definition" }),
            receipts: vec![Heard {
                receipt: b"receipt",
                envelope: b"envelope",
                path: Path::of(&leaves, 4).unwrap(),
                proof: "proof",
                chain: vec![b"one", b"two"],
            }],
            revocations: logged,
            policy: logged,
            timestamps: vec![Timestamp { token: b"token", chain: vec![b"one"], lists: vec![b"list"] }],
        };
        assert_eq!(Path::of(&leaves, 5), Err(NotAssembled::NoSuchLeaf));
        bundle.assemble().unwrap()
    }

    #[test]
    fn what_is_assembled_is_read_and_written_again_as_it_was() {
        let bytes = bundle();
        let read = Bundle::parse(&bytes).unwrap();
        assert_eq!((read.path.index, read.path.size, read.path.hashes.len()), (3, 5, 3));
        assert_eq!(read.emit().unwrap(), bytes);
        let two = [&bytes[..], &bytes].concat();
        assert_eq!(Bundles::new(&two).unwrap().filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn no_cut_is_a_bundle_and_nothing_follows_one() {
        let bytes = bundle();
        for n in 0..bytes.len() {
            assert!(Bundle::parse(&bytes[..n]).is_err(), "cut to {n} bytes");
        }
        assert!(Bundle::parse(&[&bytes[..], &[0]].concat()).is_err());
        let broken = [&bytes[..], &[0], &bytes].concat();
        let read: Vec<_> = Bundles::new(&broken).unwrap().map(|b| b.is_ok()).collect();
        assert_eq!(read, [true, false], "nothing after what cannot be read");
        assert!(Bundles::new(&[]).is_err());
    }

    #[test]
    fn an_item_too_few_or_too_many_is_refused() {
        let bytes = bundle();
        let mut fewer = bytes.clone();
        fewer[0] = 0xAB;
        assert!(Bundle::parse(&fewer).is_err());
        let mut more = bytes.clone();
        more[0] = 0xAD;
        more.extend([13, 0]);
        assert!(Bundle::parse(&more).is_err());
        let mut other = bytes;
        let at = other.windows(4).position(|w| w == b"evb1").unwrap();
        other[at + 3] = b'2';
        assert!(Bundle::parse(&other).is_err());
    }

    #[test]
    fn more_than_the_limits_is_refused() {
        let bytes = bundle();
        let mut read = Bundle::parse(&bytes).unwrap();
        read.chain = vec![&[]; CHAIN + 1];
        assert!(Bundle::parse(&read.emit().unwrap()).is_err());
        assert!(matches!(read.assemble(), Err(NotAssembled::TooMuch(_))));
        read.chain.truncate(CHAIN);
        assert!(Bundle::parse(&read.emit().unwrap()).is_ok());
        read.chain.clear();
        assert!(Bundle::parse(&read.emit().unwrap()).is_err());
        let much = vec![0; BYTES];
        read.chain = vec![&much];
        assert!(matches!(read.assemble(), Err(NotAssembled::Unwritable(_))));
    }
}
