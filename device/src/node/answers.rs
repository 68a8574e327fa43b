//! Answers to requests of ours: once each, under the contexts of the policy, and what they decide.

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Epoch;
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{
    Context, FAILURES_HARD, FAILURES_SOFT, Id, InnerAnswer, PartialIv, RequestId, judge_answer, nested_answer,
};
use fivefold_core::profile::Profile;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::wire::coap;
use fivefold_core::wire::tiny::{Inner, Layers, Within};
use heapless::Vec;

use super::{Event, NO_ANSWERS, Node};
use crate::boot::Ends;
use crate::evidence::Evidence;
use crate::outbox::{Asked, Number, State, Taken};
use crate::renewal::Why;

/// Trial decryptions of one answer, at most (docs/protocol.md 5).
const TRIALS: usize = 6;
const LONGEST: usize = 128;
/// First pause after 4.29, in milliseconds; doubled up to sixteen times as much.
const SLOW: u64 = 60_000;

/// An answer as it came.
#[derive(Clone, Copy)]
struct Answer<'b> {
    piv: Option<PartialIv>,
    ciphertext: &'b [u8],
}

/// Who speaks: the level that confirms readings, or the gateway around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Cloud,
    /// The gateway, where E3 is not in the policy.
    Gateway,
    /// The gateway, where only the cloud's word frees a reading.
    Keeper,
}

impl Voice {
    /// What is malformed inside counts as this: E2-07 or E3-07.
    const fn inner(self) -> Code {
        match self {
            Self::Cloud => E3::INNER,
            Self::Gateway | Self::Keeper => E2::INNER,
        }
    }
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    pub(super) fn answer(
        &mut self,
        layers: Layers,
        token: u8,
        piv: Option<PartialIv>,
        ciphertext: &[u8],
    ) -> Result<(), Rejected> {
        let wanted = self.layers().ok_or(NO_ANSWERS)?;
        if layers != wanted {
            let missing = if wanted == Layers::C2 { Code::GatewayLevelMissing } else { Code::CloudLevelMissing };
            return Err(Rejected::new(missing, "an answer under other levels than the policy's"));
        }
        if self.failures >= FAILURES_HARD {
            let limit = if wanted == Layers::C2 { Code::GatewayLimitReached } else { Code::CloudLimitReached };
            return Err(Rejected::new(limit, "too many answers failed"));
        }
        let candidates: Vec<Asked, TRIALS> = self.outbox.asked(token).take(TRIALS).collect();
        let stray = if wanted == Layers::C3 { Code::CloudReplayed } else { Code::GatewayReplayed };
        let mut refused = Rejected::new(stray, "answers no request that is open");
        for asked in candidates {
            match self.open(asked, Answer { piv, ciphertext }) {
                Ok(()) => return Ok(()),
                Err(other) => refused = other,
            }
        }
        if matches!(refused.code, Code::CloudForged | Code::GatewayForged) {
            self.failures = self.failures.saturating_add(1);
            if self.failures == FAILURES_SOFT {
                self.want_renewal(Why::Failures);
            }
        }
        Err(refused)
    }

    fn open(&mut self, asked: Asked, answer: Answer<'_>) -> Result<(), Rejected> {
        let (mut outer, mut inner) = ([0; LONGEST], [0; LONGEST]);
        if self.settings.policy.profile == Profile::ToCloud {
            return self.open_cloud(asked, answer, &mut inner);
        }
        let context = self.ends_of(asked.number.epoch)?.gateway.as_ref().ok_or(NO_ANSWERS)?;
        let plaintext = opened(context, self.id(asked.outer), &asked.by_gateway, answer, &mut outer)?;
        if let Some(asked) = self.outbox.asked_mut(asked.number) {
            asked.by_gateway.mark(answer.piv.map(|p| p.value()));
        }
        if self.settings.policy.profile == Profile::ToGateway {
            return self.verdict(asked.number, judge_answer::<E2>(plaintext)?, Voice::Gateway);
        }
        if self.is_on_ip() {
            // On IP the C3 answer stands inside as a message of its own; without one the gateway speaks for itself.
            return match nested_answer::<E2>(plaintext)? {
                Some((option, ciphertext)) => {
                    self.open_cloud(asked, Answer { piv: option.piv, ciphertext }, &mut inner)
                }
                None => self.verdict(asked.number, judge_answer::<E2>(plaintext)?, Voice::Keeper),
            };
        }
        match Inner::parse(plaintext, Within::Answer)? {
            Inner::Same { ct3 } => self.open_cloud(asked, Answer { piv: None, ciphertext: ct3 }, &mut inner),
            Inner::Explicit { piv, ct3, .. } => {
                self.open_cloud(asked, Answer { piv: Some(piv), ciphertext: ct3 }, &mut inner)
            }
            Inner::Own { code, payload } => self.verdict(asked.number, InnerAnswer { code, payload }, Voice::Keeper),
        }
    }

    fn open_cloud(&mut self, asked: Asked, answer: Answer<'_>, out: &mut [u8]) -> Result<(), Rejected> {
        let context = self.ends_of(asked.number.epoch)?.cloud.as_ref().ok_or(NO_ANSWERS)?;
        let plaintext = opened(context, self.id(asked.number.value), &asked.by_cloud, answer, out)?;
        if let Some(asked) = self.outbox.asked_mut(asked.number) {
            asked.by_cloud.mark(answer.piv.map(|p| p.value()));
        }
        self.verdict(asked.number, judge_answer::<E3>(plaintext)?, Voice::Cloud)
    }

    /// The contexts that answers to a message come under.
    fn ends_of(&self, epoch: Epoch) -> Result<&Ends, Rejected> {
        if epoch == self.epoch() {
            return Ok(&self.ends);
        }
        let before = self.before.as_ref().filter(|b| b.epoch == epoch);
        let code = if self.settings.policy.profile.has_e3() { Code::CloudNoContext } else { Code::GatewayNoContext };
        before.map(|b| &b.ends).ok_or(Rejected::new(code, "an answer under contexts that are wiped"))
    }

    fn id(&self, number: u32) -> RequestId {
        RequestId { kid: Id::from(self.settings.sid), piv: PartialIv::from_value(number) }
    }

    /// What a verified answer decides.
    fn verdict(&mut self, number: Number, answer: InnerAnswer<'_>, voice: Voice) -> Result<(), Rejected> {
        let now = self.now;
        self.way_is_open();
        if voice != Voice::Keeper {
            self.heard(number.epoch);
        }
        let gateway = voice != Voice::Cloud;
        match answer.code {
            coap::CHANGED if voice != Voice::Keeper => {
                self.verified |= number.epoch == self.epoch();
                self.hold = 0;
                if let Some(message) = self.outbox.find(number) {
                    message.state = State::Confirmed;
                }
                self.outbox.wake(now);
                if answer.payload.is_empty() { Ok(()) } else { self.told_by(number, answer.payload, voice.inner()) }
            }
            coap::CHANGED | coap::GATEWAY_TIMEOUT if gateway => {
                self.park(number);
                self.tell(Event::Custody(number));
                Ok(())
            }
            coap::SERVICE_UNAVAILABLE if gateway => {
                self.park(number);
                Ok(())
            }
            coap::UNAUTHORIZED => {
                self.park(number);
                if number.epoch == self.epoch() {
                    self.unwelcome(number, voice);
                }
                Ok(())
            }
            coap::TOO_MANY_REQUESTS => {
                self.park(number);
                self.hold = if self.hold == 0 { SLOW } else { (self.hold * 2).min(16 * SLOW) };
                self.held_until = now.plus(self.hold);
                self.tell(Event::SlowDown(self.hold));
                Ok(())
            }
            // A gateway alone cannot make a reading of the cloud's vanish.
            _ if voice == Voice::Keeper => {
                self.park(number);
                Ok(())
            }
            code @ 0x80..0xA0 => {
                self.outbox.take(number);
                self.tell(Event::Refused { number, code });
                Ok(())
            }
            _ => Err(Rejected::new(voice.inner(), "an answer code that is none of docs/protocol.md 7.2")),
        }
    }

    /// 4.01. Of a gateway alone it is a reason to renew contexts that are an hour old, and none to be silent: a stolen one
    /// must not use up the epochs.
    fn unwelcome(&mut self, number: Number, voice: Voice) {
        if voice == Voice::Keeper
            && let Some(renewal) = &mut self.renewal
        {
            if self.now.since(self.since) >= renewal.timers().back_off {
                renewal.want(Why::Refused);
            }
            return;
        }
        if let Some(message) = self.outbox.find(number) {
            message.unwelcome = true;
        }
        self.halt(Why::Refused);
    }

    pub(super) fn way_is_open(&mut self) {
        let now = self.now;
        if let Some(mesh) = &mut self.mesh
            && let Some(parent) = mesh.parent(now)
        {
            mesh.answered_by(parent);
        }
    }

    fn park(&mut self, number: Number) {
        let (now, patience) = (self.now, self.outbox.patience);
        if let Some(message) = self.outbox.find(number).filter(|m| m.state != State::Confirmed) {
            message.park(now, patience);
        }
    }
}

/// Opens an answer that was not taken before.
fn opened<'b, L: OscoreLevel>(
    context: &Context<L>,
    request: RequestId,
    taken: &Taken,
    answer: Answer<'_>,
    out: &'b mut [u8],
) -> Result<&'b [u8], Rejected> {
    if !taken.is_new(answer.piv.map(|p| p.value())) {
        return Err(Rejected::new(L::REPLAYED, "this answer was taken before"));
    }
    Ok(context.open_answer(&request, answer.piv, answer.ciphertext, out)?.plaintext())
}
