//! One C2 context on its own, ahead of the state that will have it (downlink 5).

use crate::error::SealError;
use crate::id::{GatewayGroup, Net};
use crate::wire::cbor::{Element, Malformed, Reader, Writer};

use super::Context;

/// A context that was just agreed: `[version, net, gg, context]`, the context as it stands in a state.
///
/// `version` is that of the first state that has it. A gateway keeps it until it applies a state of that version or a
/// later one, which says for itself what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added<'b> {
    /// Which state has it.
    pub version: u64,
    /// The network; must be the gateway's own.
    pub net: Net,
    /// The gateway's group.
    pub group: GatewayGroup,
    /// The context.
    pub context: Context<'b>,
}

impl<'b> Added<'b> {
    /// Bytes, at most.
    pub const LONGEST: usize = 1 + 9 + 5 + 5 + Context::LONGEST;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.array_of(4)?;
        let version = r.unsigned()?;
        let net = Net::from_bytes(*r.bytes_of()?);
        let group = GatewayGroup::from_bytes(*r.bytes_of()?);
        let context = Element::parse(&mut r)?;
        r.end()?;
        Ok(Self { version, net, group, context })
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(4)?;
        w.unsigned(self.version)?;
        w.bytes(&self.net.to_bytes())?;
        w.bytes(&self.group.to_bytes())?;
        Element::emit(&self.context, &mut w)?;
        Ok(w.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Sid};
    use crate::suite::Alg;
    use crate::wire::state::{Share, Standing};

    #[test]
    fn a_context_on_its_own_reads_as_it_was_written_and_in_no_other_way() {
        let (master_secret, master_salt) = ([0x20; 32], [7; 8]);
        let context = Context {
            sid: Sid(0x0a17),
            epoch: Epoch(0xFFFF),
            alg: Alg::AesCcm16_64_256,
            standing: Standing::Pending,
            bctx: None,
            share: Share::Primary { master_secret: &master_secret, master_salt: &master_salt },
        };
        let added = Added { version: u64::MAX, net: Net(7), group: GatewayGroup(9), context };
        let mut out = [0; Added::LONGEST + 1];
        let len = added.emit(&mut out).unwrap();
        assert!(len <= Added::LONGEST);
        assert_eq!(Added::parse(&out[..len]), Ok(added));
        assert!(Added::parse(&out[..=len]).is_err());
        for cut in 0..len {
            assert!(Added::parse(&out[..cut]).is_err(), "cut at {cut}");
        }
    }
}
