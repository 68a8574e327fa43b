//! What the operator is told of a refused envelope (`fivefold why`): the name of its message, what was expected, what came.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Epoch, Sid};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::suite::CiphertextHash;
use fivefold_core::why::{Detail, FrameId, Refusal, Value};
use fivefold_core::wire::classic::Report;
use fivefold_core::wire::coap::{Outer, Protected};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};

use super::Judged;
use crate::book::Device;

impl Judged {
    /// An envelope is refused: it is counted, told to its gateway, and explained.
    pub(super) fn refuse(&mut self, envelope: &Envelope<'_>, why: impl Into<Rejected>, device: Option<&Device>) {
        let rejected = why.into();
        let sid = match envelope.originator {
            Originator::Node { sid, .. } => Some(sid),
            Originator::Classic(_) => None,
        };
        self.count(rejected.code, sid);
        self.refused.push((envelope.seq, rejected.code));
        let detail = detail(self, rejected.code, envelope, device);
        self.explain(id_of(envelope), rejected, detail, sid);
    }

    /// Explains what was counted.
    pub(super) fn explain(&mut self, id: FrameId, why: impl Into<Rejected>, detail: Detail, sid: Option<Sid>) {
        let (net, gateway) = (Some(self.gateway.net()), Some(self.gateway.gateway()));
        self.write.explain(Refusal { id, at: self.now, rejected: why.into(), detail, net, gateway, sid });
    }
}

/// What a message is called ([`FrameId`]).
fn id_of(envelope: &Envelope<'_>) -> FrameId {
    match envelope.kind {
        Kind::CloudTiny | Kind::CloudCoap => Protected::parse_request(envelope.bytes, Outer::Strict)
            .map_or_else(|_| FrameId::of(envelope.bytes), |m| CiphertextHash::of(m.ciphertext).into()),
        Kind::Classic => Report::parse(envelope.bytes).map_or_else(|_| FrameId::of(envelope.bytes), |r| of_classic(&r)),
        _ => FrameId::of(envelope.bytes),
    }
}

/// A classic frame is called what its gateway calls it.
pub(super) fn of_classic(report: &Report<'_>) -> FrameId {
    FrameId::of(report.frame)
}

/// What the check of this code compared, as far as it is a value.
fn detail(judged: &Judged, code: Code, envelope: &Envelope<'_>, device: Option<&Device>) -> Detail {
    let length = Value::Bytes(envelope.bytes.len());
    let said = Said::of(envelope);
    let number = said.piv.map_or(Value::Unsaid, Value::Sender);
    let epoch = device.map_or(Value::Unsaid, |d| Value::Epoch(d.epoch));
    match code {
        Code::ChannelWrongNet => match envelope.originator {
            Originator::Node { net, .. } => Detail::new(Value::Net(judged.gateway.net()), Value::Net(net)),
            Originator::Classic(_) => Detail::new(Value::Net(judged.gateway.net()), Value::Unsaid),
        },
        Code::GatewayUnknownKid | Code::CloudUnknownKid => match envelope.originator {
            Originator::Node { sid, .. } => Detail::new(Value::Unsaid, Value::Sid(sid)),
            Originator::Classic(_) => Detail::new(Value::Unsaid, length),
        },
        Code::GatewayNoContext | Code::CloudNoContext => {
            let came = said.boot.map(Value::Boot).or(said.epoch.map(Value::Epoch));
            Detail::new(epoch, came.unwrap_or(number))
        }
        Code::CloudForged => Detail::new(epoch, number),
        Code::GatewayLevelMissing | Code::CloudLevelMissing => {
            let profile = device.map_or(Value::Unsaid, |d| Value::Word(d.policy.profile.as_str()));
            Detail::new(profile, Value::Word(levels(envelope)))
        }
        Code::GatewayLimitReached | Code::CloudLimitReached => Detail::new(Value::AtMost(NUMBER_LIMIT.into()), number),
        Code::CloudStale | Code::CloudInnerMalformed | Code::GatewayInnerMalformed => {
            Detail::new(Value::Unsaid, number)
        }
        _ => Detail::new(Value::Unsaid, length),
    }
}

/// Which levels the gateway says it came with.
fn levels(envelope: &Envelope<'_>) -> &'static str {
    if !envelope.link.is_e1() {
        return "no E1";
    }
    match (envelope.kind, &envelope.opened) {
        (Kind::CloudTiny | Kind::CloudCoap, Some(_)) => "E2 over E3",
        (Kind::CloudTiny | Kind::CloudCoap, None) => "E3 alone",
        (Kind::GatewayOpened, _) => "E2 alone",
        _ => "neither E2 nor E3",
    }
}

/// What a message says in the clear, or its gateway of it.
#[derive(Default)]
struct Said {
    piv: Option<u64>,
    boot: Option<BootContext>,
    epoch: Option<Epoch>,
}

impl Said {
    fn of(envelope: &Envelope<'_>) -> Self {
        if let (Kind::CloudTiny | Kind::CloudCoap, Ok(message)) =
            (envelope.kind, Protected::parse_request(envelope.bytes, Outer::Strict))
        {
            let boot = message.option.kid_context.and_then(|c| c.try_into().ok()).map(BootContext);
            return Self { piv: message.option.piv.map(|piv| piv.value()), boot, epoch: None };
        }
        envelope.opened.map_or_else(Self::default, |o| Self { piv: Some(o.piv), boot: o.bctx, epoch: Some(o.epoch) })
    }
}
