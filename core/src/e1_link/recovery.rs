//! Recovery mode of a gateway (docs/protocol.md 4.3): under a retired key it takes EDHOC, and the HELLO without which
//! neither side would take a frame of the other. Only of stragglers: whoever was heard under a usable key is none.
//!
//! Whoever was shut out by the rotation holds the retired key as well. So nothing that comes under it changes what is
//! known of a neighbour under usable keys, takes its place, or makes us ask.

use super::keys::{KeyState, Under};
use super::neighbour::{Neighbours, Step};
use super::{JUMP, Link, REPLAYED, RETIRED, Received, Station};
use crate::error::{Rejected, SealError};
use crate::id::Sid;
use crate::time::Millis;
use crate::wire::ieee802154::{Ack, Address, MAX_FRAME, Security};
use crate::wire::mesh;
use crate::wire::tiny::{EdhocRule, Tiny};

use super::open;

impl<T: Neighbours, const N: usize> Link<T, N> {
    /// Whether somebody may speak under a retired key: to a gateway, and only one who was not heard under a usable key.
    /// That it is registered shows when its HELLO is open.
    pub(super) fn check_straggler(&mut self, who: Address) -> Result<(), Rejected> {
        let neighbour = match who {
            Address::Extended(did) => self.neighbours.by_did(did),
            Address::Short(sid) => self.neighbours.by_sid(sid),
        };
        let shown = neighbour.filter(|n| n.is_synced()).and_then(|n| self.keys.index_of(n.shown()));
        match shown {
            Some((_, KeyState::Usable)) => Err(RETIRED),
            _ if self.identity.station == Station::Gateway => Ok(()),
            _ => Err(RETIRED),
        }
    }

    /// A frame with a short source under a retired key.
    pub(super) fn receive_in_recovery<'b>(
        &mut self,
        now: Millis,
        sid: Sid,
        security: &Security,
        frame: &'b mut [u8],
        header: usize,
    ) -> Result<Received<'b>, Rejected> {
        self.check_straggler(Address::Short(sid))?;
        let key = self.keys.find(now, security.key_index)?;
        let neighbour = self.neighbours.by_sid(sid).filter(|n| n.is_synced()).ok_or(RETIRED)?;
        let did = neighbour.did();
        let step = neighbour.step(key.generation, security.frame_counter);
        if step == Step::Replay {
            return Err(REPLAYED);
        }
        let plaintext = open::open_in_place(&key.schedule, did, security, frame, header)?;
        if step == Step::Jump {
            return Err(JUMP);
        }
        neighbour.store(key.generation, security.frame_counter);
        let state = key.state;
        self.pass_on(now, did, sid, *security, state, plaintext)
    }

    /// Seals an EDHOC message for a straggler under the retired key with this index, counted and leased like any other:
    /// after [`SealError::LeaseSpent`], [`LinkKeys::lease_due`](super::LinkKeys::lease_due) has a bound to make durable.
    ///
    /// It answers what was received within the key's time.
    ///
    /// # Errors
    /// As [`Link::seal`]; [`SealError::LeaseSpent`] also when no retired key has this index.
    pub fn seal_in_recovery(
        &mut self,
        key_index: u8,
        to: (Sid, Ack),
        mesh: Option<mesh::Header>,
        (rule, payload): (EdhocRule, &[u8]),
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let mut message = [0; MAX_FRAME];
        let len = Tiny::Edhoc { rule, payload }.emit(&mut message).map_err(|_| SealError::TooLong)?;
        let message = message.get(..len).unwrap_or_default();
        self.seal_over(Under::Recovery(key_index), to, mesh, message, out)
    }
}
