//! The gateway's receipt over a batch of envelopes: the last item of the batch, signed (docs/protocol.md 10).

use crate::error::{Code, Rejected, SealError};
use crate::id::GatewayId;
use crate::proof::merkle::{Hash, Tree};
use crate::proof::{Sign, Sign1, SignError, Verify};
use crate::time::Millis;
use crate::wire::cbor::{Malformed, Reader, Writer};
use crate::wire::envelope::Envelope;

/// The external_aad under which receipts are signed.
pub const CONTEXT: &[u8] = b"iotsec-receipt-v1";

/// Random id of one run of a gateway: its sequence numbers count from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayBoot(pub [u8; 8]);

/// What a gateway says of a batch: `["g1", gw, boot, first_seq, count, root, first_rx, last_rx]`, ids as byte strings of
/// 4 and 8 bytes, times in Unix milliseconds. Of an empty batch, numbers and times are 0 and the root is that of no leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Which gateway.
    pub gateway: GatewayId,
    /// In which run.
    pub boot: GatewayBoot,
    /// Sequence number of the first envelope.
    pub first_seq: u64,
    /// How many envelopes.
    pub count: u64,
    /// Merkle root over the envelopes, as they came.
    pub root: Hash,
    /// When the first of them was received.
    pub first_received: Millis,
    /// When the last of them was received.
    pub last_received: Millis,
}

impl Receipt {
    /// Bytes of the signed receipt, at most.
    pub const LONGEST: usize = 100 + Sign1::OVERHEAD;

    /// Signs it and writes the COSE_Sign1 that ends a batch; returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small ([`Receipt::LONGEST`] always suffices), or the signer fails.
    pub fn seal(&self, key: &impl Sign, out: &mut [u8]) -> Result<usize, SignError> {
        let mut payload = [0; 100];
        let n = self.emit(&mut payload)?;
        Sign1::seal(key, CONTEXT, payload.get(..n).unwrap_or_default(), out)
    }

    /// Reads a signed receipt and checks its signature.
    ///
    /// # Errors
    /// EV-01 when it has another form, was signed by another key, or the signature does not hold.
    pub fn open(bytes: &[u8], key: &impl Verify) -> Result<Self, Rejected> {
        let signed = Sign1::parse(bytes).map_err(|m| m.counted(Code::EvidenceSignature))?;
        let payload = signed.verify(key, CONTEXT)?;
        Self::parse(payload).map_err(|m| m.counted(Code::EvidenceSignature))
    }

    /// Reads the payload alone, and nothing after it. It proves nothing.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        r.array_of(8)?;
        if r.text()? != "g1" {
            return Err(Malformed::new("receipt: not a g1"));
        }
        let receipt = Self {
            gateway: GatewayId::from_bytes(*r.bytes_of()?),
            boot: GatewayBoot(*r.bytes_of()?),
            first_seq: r.unsigned()?,
            count: r.unsigned()?,
            root: Hash(*r.bytes_of()?),
            first_received: Millis(r.unsigned()?),
            last_received: Millis(r.unsigned()?),
        };
        r.end()?;
        Ok(receipt)
    }

    /// Writes the payload alone, and returns how many bytes it took: at most 100.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(8)?;
        w.text("g1")?;
        w.bytes(&self.gateway.to_bytes())?;
        w.bytes(&self.boot.0)?;
        w.unsigned(self.first_seq)?;
        w.unsigned(self.count)?;
        w.bytes(&self.root.0)?;
        w.unsigned(self.first_received.0)?;
        w.unsigned(self.last_received.0)?;
        Ok(w.len())
    }
}

/// Goes through a batch envelope by envelope and ends in the receipt that belongs to it: the gateway signs it, the cloud
/// compares it with the one that was signed.
#[derive(Clone, Debug)]
pub struct Tally {
    receipt: Receipt,
    tree: Tree,
}

impl Tally {
    /// Of an empty batch.
    pub fn new(gateway: GatewayId, boot: GatewayBoot) -> Self {
        let receipt = Receipt {
            gateway,
            boot,
            first_seq: 0,
            count: 0,
            root: Hash::of_nothing(),
            first_received: Millis(0),
            last_received: Millis(0),
        };
        Self { receipt, tree: Tree::new() }
    }

    /// One more envelope, with its bytes as they stand in the batch.
    pub fn add(&mut self, bytes: &[u8], envelope: &Envelope<'_>) {
        if self.receipt.count == 0 {
            self.receipt.first_seq = envelope.seq;
            self.receipt.first_received = envelope.received;
        }
        self.receipt.last_received = envelope.received;
        self.receipt.count += 1;
        self.tree.append(Hash::of_leaf([bytes]));
    }

    /// The receipt over what was added.
    pub fn receipt(&self) -> Receipt {
        Receipt { root: self.tree.root(), ..self.receipt }
    }
}
