//! Opens one frame as a receiver would that keeps no state: no window, no counters, no PAN of its own.

use fivefold_core::e1_link::{Control, open_e1s, open_frame};
use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Did, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{
    Id, InnerRequest, OscoreOption, PartialIv, judge_answer, judge_request, judge_tiny_request, nested_answer,
};
use fivefold_core::suite::LinkSchedule;
use fivefold_core::wire::coap::{Message, Outer, Protected};
use fivefold_core::wire::envelope::{Envelope, Kind as Carried};
use fivefold_core::wire::ieee802154::{Address, Frame, Security, check_fcs};
use fivefold_core::wire::mesh::{self, Dispatch};
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Wants, Within};

use super::envelope::EnvelopeLayer;
use super::fields::{self, Field};
use super::keys::{Keys, Named};
use super::{Kind, LinkLayer, MeshHeader, OscoreLayer, Report, Sender};

/// What is known beside the bytes.
pub struct Question<'k> {
    /// What the bytes are.
    pub kind: Kind,
    /// What opens them.
    pub keys: &'k Keys,
    /// Who the link says sent a tiny frame without kid.
    pub link_kid: Option<Id>,
    /// K of the policy record.
    pub kid_length: KidLength,
    /// Who sent a CoAP or tiny message.
    pub from: Option<Sender>,
    /// EUI-64 that the radio reports.
    pub source: Option<Did>,
    /// Number of the request that an answer belongs to.
    pub request: Option<PartialIv>,
    /// Whether an 802.15.4 frame ends with its check sequence.
    pub check_sequence: CheckSequence,
}

/// Whether an 802.15.4 frame ends with its check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckSequence {
    /// It does not.
    Absent,
    /// It does, and it is checked.
    Present,
}

/// Why decoding stopped.
enum Stop {
    /// A receiver refuses it.
    Refused(Rejected),
    /// We were not told enough.
    Usage(anyhow::Error),
}

impl From<Rejected> for Stop {
    fn from(rejected: Rejected) -> Self {
        Self::Refused(rejected)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Usage(error)
    }
}

/// Bytes for the application, if everything on the way to them opened.
type Application = Option<Vec<u8>>;

/// Decodes `bytes`.
///
/// # Errors
/// What is missing in the question; a refusal is part of the report.
pub fn decode(question: &Question<'_>, bytes: &[u8]) -> anyhow::Result<Report> {
    let mut walk = Walk { q: question, report: Report::new(question.kind) };
    let outcome = match question.kind {
        Kind::Coap => walk.coap(bytes),
        Kind::E1 => walk.frame(bytes),
        Kind::E1s => walk.e1s(bytes),
        Kind::Envelope => walk.envelope(bytes),
        Kind::Tiny => match bytes.first() {
            Some(0x1F) => Err(Rejected::new(Code::TinyMalformed, "E1S is no tiny message (--kind e1s)").into()),
            _ => walk.tiny(bytes, question.link_kid),
        },
        Kind::Classic | Kind::ClassicTiny => Err(anyhow::anyhow!("classic frames have no layers").into()),
    };
    match outcome {
        Ok(application) => walk.report.application = application,
        Err(Stop::Refused(rejected)) => walk.report.refused = Some(rejected),
        Err(Stop::Usage(error)) => return Err(error),
    }
    Ok(walk.report)
}

struct Walk<'k> {
    q: &'k Question<'k>,
    report: Report,
}

/// An OSCORE message on its way to be opened.
struct Sealed<'b> {
    /// Levels that it may be under.
    levels: &'static [u8],
    from: Sender,
    option: OscoreOption<'b>,
    ciphertext: &'b [u8],
    role: Role,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Answer,
    Request,
}

impl Walk<'_> {
    fn frame(&mut self, bytes: &[u8]) -> Result<Application, Stop> {
        let bytes = match self.q.check_sequence {
            CheckSequence::Absent => bytes,
            CheckSequence::Present => check_fcs(bytes)?,
        };
        let view = Frame::parse(bytes)?;
        let security = view.security(self.q.keys.minimum);
        let mut layer = LinkLayer::of(view.security, security.as_ref().ok());
        layer.sequence = Some(view.sequence);
        layer.destination_pan = Some(format!("{:04x}", view.pan.0));
        layer.destination = Some(view.destination.to_string());
        match view.source {
            Address::Short(sid) => layer.source = Some(sid.to_string()),
            Address::Extended(did) => layer.source_eui64 = Some(did.to_string()),
        }
        layer.fields = fields::frame(bytes, &view, security.as_ref().ok());
        self.report.push_link(layer);
        let security = security?;
        let Some(schedule) = schedule(self.q.keys, &security)? else {
            return Ok(None);
        };
        let source = match view.source {
            Address::Extended(did) => did,
            Address::Short(sid) => self.eui64_of(sid)?,
        };
        self.report.link().source_eui64 = Some(source.to_string());
        let mut copy = bytes.to_vec();
        let (_, plaintext) = open_frame(schedule, source, self.q.keys.minimum, &mut copy)?;
        let plaintext = &*plaintext;
        self.report.link().plaintext = Some(hex::encode(plaintext));
        if let Address::Extended(_) = view.source {
            Control::parse(plaintext)?;
        }
        let Address::Short(sender) = view.source else {
            self.report.link().dispatch = Some("hello");
            if let Ok(control) = Tiny::parse(plaintext, KidLength::None) {
                self.report.link().fields.extend(fields::tiny(plaintext, &control));
            }
            return Ok(None);
        };
        self.under_link(plaintext, Some(Id::from(sender)))
    }

    fn e1s(&mut self, bytes: &[u8]) -> Result<Application, Stop> {
        const SHORT: Rejected = Rejected::new(Code::LinkMalformed, "shorter than E1S header and MIC");
        let Some((&rule, rest)) = bytes.split_first() else { return Err(SHORT.into()) };
        if rule != fivefold_core::e1_link::E1S_RULE {
            return Err(Rejected::new(Code::TinyMalformed, "not RuleID 1f").into());
        }
        let (&header, sealed) = rest.split_first_chunk::<6>().ok_or(SHORT)?;
        let security = Security::parse(header, self.q.keys.minimum)
            .and_then(|s| if sealed.len() < s.level.mic_len() { Err(SHORT) } else { Ok(s) });
        let mut layer = LinkLayer::of(header, security.as_ref().ok());
        layer.source_eui64 = self.q.source.map(|s| s.to_string());
        layer.fields = fields::e1s(bytes, security.as_ref().ok());
        self.report.push_link(layer);
        let security = security?;
        let Some(schedule) = schedule(self.q.keys, &security)? else {
            return Ok(None);
        };
        let Some(source) = self.q.source else {
            return Err(anyhow::anyhow!("E1S needs the EUI-64 that the radio reports: --source-eui64 HEX").into());
        };
        let neighbours = self.q.keys.neighbours.as_deref();
        let known = neighbours.map(|all| all.iter().find(|(_, did)| *did == source).map(|(sid, _)| *sid));
        if known == Some(None) {
            return Err(Rejected::new(Code::LinkNeighbourUnknown, "the EUI-64 is not a neighbour").into());
        }
        let mut copy = bytes.to_vec();
        let (_, plaintext) = open_e1s(schedule, source, self.q.keys.minimum, &mut copy)?;
        let plaintext = &*plaintext;
        self.report.link().plaintext = Some(hex::encode(plaintext));
        self.under_link(plaintext, known.flatten().map(Id::from))
    }

    fn eui64_of(&self, sid: Sid) -> Result<Did, Rejected> {
        let table = self.q.keys.neighbours.as_deref().unwrap_or_default();
        self.q
            .source
            .or_else(|| table.iter().find(|(short, _)| *short == sid).map(|(_, did)| *did))
            .ok_or(Rejected::new(Code::LinkNeighbourUnknown, "the short address is not a neighbour's"))
    }

    /// What an opened E1 frame carries: E1 has decided, so that nothing below is a refusal.
    fn under_link(&mut self, plaintext: &[u8], sender: Option<Id>) -> Result<Application, Stop> {
        let parsed = mesh::parse(plaintext)?;
        let explained = fields::link_plaintext(plaintext, &parsed);
        let layer = self.report.link();
        layer.fields.extend(explained);
        layer.mesh = parsed.mesh.map(|m| MeshHeader {
            hops: m.hops,
            originator: m.originator.to_string(),
            destination: m.destination.to_string(),
        });
        layer.dispatch = Some(match parsed.dispatch {
            Dispatch::Fragment => "fragment",
            Dispatch::Iphc => "iphc",
            Dispatch::Tiny(_) => "tiny",
        });
        if !matches!(parsed.dispatch, Dispatch::Tiny(_)) || self.q.keys.contexts.is_empty() {
            return Ok(None);
        }
        let sender = self.q.link_kid.or(parsed.mesh.map(|m| Id::from(m.originator))).or(sender);
        let carried = self.tiny(parsed.rest, sender);
        self.below(carried)
    }

    /// What is under a layer that has decided already: nothing in it is a refusal.
    fn below(&mut self, carried: Result<Application, Stop>) -> Result<Application, Stop> {
        match carried {
            Ok(application) => Ok(application),
            Err(Stop::Refused(rejected)) => {
                self.report.not_opened = Some(rejected);
                Ok(None)
            }
            Err(Stop::Usage(_)) => Ok(None),
        }
    }

    fn envelope(&mut self, bytes: &[u8]) -> Result<Application, Stop> {
        let envelope = Envelope::parse(bytes).map_err(|m| m.counted(Code::TinyMalformed))?;
        self.report.envelope = Some(EnvelopeLayer::of(bytes, &envelope)?);
        match envelope.kind {
            Carried::CloudTiny | Carried::CloudCoap => {
                let carried = self.coap(envelope.bytes);
                self.below(carried)
            }
            Carried::GatewayOpened => {
                let payload = judge_tiny_request::<E2>(envelope.bytes).map_err(|r| r.rejected.into());
                self.below(payload.map(|bytes| Some(bytes.to_vec())))
            }
            Carried::DangerPlain => Ok(Some(envelope.bytes.to_vec())),
            Carried::Edhoc | Carried::Classic | Carried::Event | Carried::KeyMessage => Ok(None),
        }
    }

    fn tiny(&mut self, bytes: &[u8], link_kid: Option<Id>) -> Result<Application, Stop> {
        let tiny = Tiny::parse(bytes, self.q.kid_length)?;
        let fields = fields::tiny(bytes, &tiny);
        let sent_by = match tiny {
            Tiny::Answer { .. } | Tiny::Downlink { .. } => Sender::Peer,
            _ => Sender::Device,
        };
        if self.q.from.is_some_and(|from| from != sent_by)
            && !matches!(tiny, Tiny::Edhoc { .. } | Tiny::Fragment { .. })
        {
            return Err(Rejected::new(Code::TinyMalformed, "RuleID of the other direction").into());
        }
        let mut scratch = [0; 2];
        match tiny {
            Tiny::Request { layers, wants, piv, ref bctx, kid, .. } => {
                let Some(kid) = kid.map(Id::from).or(link_kid) else {
                    return Err(anyhow::anyhow!("with K = 0 the link says who sent it: --link-kid HEX").into());
                };
                let Some(message) = tiny.protected(Some(&kid), &mut scratch) else { return Ok(None) };
                let sealed = Sealed::request(levels(layers), Sender::Device, &message, fields);
                let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
                self.tiny_request(layers, wants, piv, bctx.as_ref(), &kid, &plaintext)
            }
            Tiny::Downlink { layers, piv, ciphertext, .. } => {
                let option = OscoreOption { piv: Some(piv), kid_context: None, kid: None };
                let sealed = Sealed {
                    levels: levels(layers),
                    from: Sender::Peer,
                    option,
                    ciphertext,
                    role: Role::Request,
                    fields,
                };
                let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
                if layers != Layers::C2OverC3 {
                    return self.judge_tiny(layers, &plaintext);
                }
                let inner = self.inner(&plaintext, Within::Downlink)?;
                let (piv, ciphertext) = match inner {
                    Inner::Explicit { piv, ct3, .. } => (piv, ct3),
                    Inner::Same { ct3 } => (piv, ct3),
                    Inner::Own { .. } => return Ok(None),
                };
                let option = OscoreOption { piv: Some(piv), kid_context: None, kid: None };
                let sealed = Sealed {
                    levels: &[3],
                    from: Sender::Peer,
                    option,
                    ciphertext,
                    role: Role::Request,
                    fields: Vec::new(),
                };
                let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
                self.judge_tiny(Layers::C3, &plaintext)
            }
            Tiny::Answer { layers, .. } | Tiny::DeviceAnswer { layers, .. } => {
                let Some(message) = tiny.protected(None, &mut scratch) else { return Ok(None) };
                let sealed = Sealed::answer(levels(layers), sent_by, message.option, message.ciphertext, fields);
                let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
                let within = if sent_by == Sender::Peer { Within::Answer } else { Within::DeviceAnswer };
                self.tiny_answer(layers, sent_by, within, &plaintext)
            }
            Tiny::Plain { payload, .. } => {
                self.report.unprotected = fields;
                Ok(Some(payload.to_vec()))
            }
            Tiny::Edhoc { .. } | Tiny::Fragment { .. } | Tiny::Hello(_) | Tiny::Link(_) => {
                self.report.unprotected = fields;
                Ok(None)
            }
        }
    }

    fn tiny_request(
        &mut self,
        layers: Layers,
        wants: Wants,
        piv: PartialIv,
        bctx: Option<&BootContext>,
        kid: &Id,
        plaintext: &[u8],
    ) -> Result<Application, Stop> {
        if layers != Layers::C2OverC3 {
            return self.judge_tiny(layers, plaintext);
        }
        let inner = self.inner(plaintext, Within::Request)?;
        let Some(message) = inner.request(piv, bctx, wants, kid) else { return Ok(None) };
        let sealed = Sealed::request(&[3], Sender::Device, &message, Vec::new());
        let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
        self.judge_tiny(Layers::C3, &plaintext)
    }

    fn tiny_answer(
        &mut self,
        layers: Layers,
        from: Sender,
        within: Within,
        plaintext: &[u8],
    ) -> Result<Application, Stop> {
        if layers != Layers::C2OverC3 {
            return self.judge_answer(layers == Layers::C2, plaintext);
        }
        let inner = self.inner(plaintext, within)?;
        if let Inner::Own { code, payload } = inner {
            if let Some(layer) = self.report.innermost() {
                layer.inner_code = Some(fields::dotted(code));
            }
            return Ok(Some(payload.to_vec()));
        }
        let Some(message) = inner.answer(0) else { return Ok(None) };
        let sealed = Sealed::answer(&[3], from, message.option, message.ciphertext, Vec::new());
        let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
        self.judge_answer(false, &plaintext)
    }

    fn inner<'p>(&mut self, plaintext: &'p [u8], within: Within) -> Result<Inner<'p>, Rejected> {
        let inner = Inner::parse(plaintext, within)?;
        if let Some(layer) = self.report.innermost() {
            layer.inner_rule = plaintext.first().copied();
            layer.fields.extend(fields::inner(plaintext, &inner));
        }
        Ok(inner)
    }

    fn judge_tiny(&mut self, layers: Layers, plaintext: &[u8]) -> Result<Application, Stop> {
        self.explain(plaintext);
        let payload = match layers {
            Layers::C2 => judge_tiny_request::<E2>(plaintext),
            _ => judge_tiny_request::<E3>(plaintext),
        };
        Ok(Some(payload.map_err(|r| r.rejected)?.to_vec()))
    }

    fn judge_answer(&mut self, at_gateway: bool, plaintext: &[u8]) -> Result<Application, Stop> {
        self.explain(plaintext);
        let answer = if at_gateway { judge_answer::<E2>(plaintext) } else { judge_answer::<E3>(plaintext) }?;
        Ok(Some(answer.payload.to_vec()))
    }

    fn explain(&mut self, plaintext: &[u8]) {
        if let Some(layer) = self.report.innermost() {
            layer.fields.extend(fields::plaintext(plaintext));
            layer.inner_code = plaintext.first().map(|code| fields::dotted(*code));
        }
    }

    fn coap(&mut self, bytes: &[u8]) -> Result<Application, Stop> {
        let message = Message::parse(bytes)?;
        let fields = fields::coap(bytes, &message);
        if message.code == 0 {
            self.report.unprotected = fields;
            return Ok(None);
        }
        if message.code >> 5 == 0 {
            let protected = Protected::parse_request(bytes, Outer::StockClient)?;
            let from = self.q.from.unwrap_or(Sender::Device);
            let Some(plaintext) = self.open(Sealed::request(&[3, 2], from, &protected, fields))? else {
                return Ok(None);
            };
            return self.coap_request(from, &plaintext);
        }
        let protected = Protected::parse_answer(bytes)?;
        let from = self.q.from.unwrap_or(Sender::Peer);
        let sealed = Sealed::answer(&[3, 2], from, protected.option, protected.ciphertext, fields);
        let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
        self.explain(&plaintext);
        if self.report.innermost().is_some_and(|layer| layer.level == 3) {
            return Ok(Some(judge_answer::<E3>(&plaintext)?.payload.to_vec()));
        }
        let Some((option, ciphertext)) = nested_answer::<E2>(&plaintext)? else {
            return Ok(Some(judge_answer::<E2>(&plaintext)?.payload.to_vec()));
        };
        let Some(plaintext) = self.open(Sealed::answer(&[3], from, option, ciphertext, Vec::new()))? else {
            return Ok(None);
        };
        self.judge_answer(false, &plaintext)
    }

    fn coap_request(&mut self, from: Sender, plaintext: &[u8]) -> Result<Application, Stop> {
        self.explain(plaintext);
        let judged = match self.report.innermost().map(|layer| layer.level) {
            Some(2) => judge_request::<E2>(plaintext),
            _ => judge_request::<E3>(plaintext),
        };
        match judged.map_err(|r| r.rejected)? {
            InnerRequest::Payload(payload) => Ok(Some(payload.to_vec())),
            InnerRequest::Nested { option, ciphertext } => {
                let sealed = Sealed { levels: &[3], from, option, ciphertext, role: Role::Request, fields: Vec::new() };
                let Some(plaintext) = self.open(sealed)? else { return Ok(None) };
                self.coap_request(from, &plaintext)
            }
        }
    }

    /// Opens one OSCORE layer with the contexts of the file, and reports it. `None` when there is none of its levels.
    fn open(&mut self, sealed: Sealed<'_>) -> Result<Option<Vec<u8>>, Stop> {
        let Sealed { levels, from, option, ciphertext, role, fields } = sealed;
        let of_level: Vec<&Named> = self.q.keys.contexts.iter().filter(|c| levels.contains(&c.level())).collect();
        // With both levels in question the code is that of the cloud, to whom a gateway hands on what it cannot open.
        let level = of_level.iter().map(|c| c.level()).max().unwrap_or(levels.first().copied().unwrap_or(3));
        let mut layer = OscoreLayer {
            level,
            context: None,
            alg: None,
            kid: option.kid.map(hex::encode),
            kid_context: option.kid_context.map(hex::encode),
            partial_iv: option.piv.map(|p| hex::encode(p.as_bytes())),
            request_piv: None,
            ciphertext: hex::encode(ciphertext),
            plaintext: None,
            inner_rule: None,
            inner_code: None,
            fields,
        };
        if of_level.is_empty() {
            self.report.push_oscore(layer);
            return Ok(None);
        }
        let outcome = match role {
            Role::Request => open_request(&of_level, level, from, &option, ciphertext),
            Role::Answer => {
                let Some(request) = self.q.request else {
                    return Err(no_request().into());
                };
                layer.request_piv = Some(hex::encode(request.as_bytes()));
                let of_device = |c: &&&Named| self.q.link_kid.is_none_or(|kid| kid == c.id_of(Sender::Device));
                let candidates: Vec<&Named> = of_level.iter().filter(of_device).copied().collect();
                open_answer(&candidates, level, from, request, &option, ciphertext)
            }
        };
        match outcome {
            Ok((context, plaintext)) => {
                layer.level = context.level();
                layer.context = Some(context.name.clone());
                layer.alg = Some(context.alg.cose());
                layer.plaintext = Some(hex::encode(&plaintext));
                self.report.push_oscore(layer);
                Ok(Some(plaintext))
            }
            Err(rejected) => {
                self.report.push_oscore(layer);
                Err(rejected.into())
            }
        }
    }
}

impl<'b> Sealed<'b> {
    fn request(levels: &'static [u8], from: Sender, message: &Protected<'b>, fields: Vec<Field>) -> Self {
        let Protected { option, ciphertext, .. } = *message;
        Self { levels, from, option, ciphertext, role: Role::Request, fields }
    }

    fn answer(
        levels: &'static [u8],
        from: Sender,
        option: OscoreOption<'b>,
        ciphertext: &'b [u8],
        fields: Vec<Field>,
    ) -> Self {
        Self { levels, from, option, ciphertext, role: Role::Answer, fields }
    }
}

fn levels(layers: Layers) -> &'static [u8] {
    match layers {
        Layers::C3 => &[3],
        Layers::C2 | Layers::C2OverC3 => &[2],
    }
}

fn no_request() -> anyhow::Error {
    anyhow::anyhow!("an answer needs the request it answers: --request-piv HEX")
}

fn codes(level: u8) -> (Code, Code, Code) {
    if level == 2 {
        (E2::UNKNOWN_KID, E2::NO_CONTEXT, E2::FORGED)
    } else {
        (E3::UNKNOWN_KID, E3::NO_CONTEXT, E3::FORGED)
    }
}

/// The schedule of the key index, or `None` when we were given no network key at all.
fn schedule<'k>(keys: &'k Keys, security: &Security) -> Result<Option<&'k LinkSchedule>, Rejected> {
    let links = &keys.links;
    match links.iter().find(|(index, _)| *index == security.key_index) {
        Some((1..=254, schedule)) => Ok(Some(schedule)),
        None if links.is_empty() => Ok(None),
        _ => Err(Rejected::new(Code::LinkKeyUnknown, "unknown key index")),
    }
}

/// Lookup, then trial openings. A downlink request of a tiny link names no kid: its context is found by trying.
fn open_request<'c>(
    of_level: &[&'c Named],
    level: u8,
    from: Sender,
    option: &OscoreOption<'_>,
    ciphertext: &[u8],
) -> Result<(&'c Named, Vec<u8>), Rejected> {
    let (unknown_kid, no_context, forged) = codes(level);
    let piv = option.piv.ok_or(Rejected::new(Code::TinyMalformed, "request without PIV"))?;
    let named = |c: &&&Named| option.kid.is_none_or(|kid| c.id_of(from).as_bytes() == kid);
    let known: Vec<&Named> = of_level.iter().filter(named).copied().collect();
    if known.is_empty() {
        return Err(Rejected::new(unknown_kid, "unknown kid"));
    }
    let booted = |c: &&&Named| option.kid_context.is_none_or(|b| c.id_context.as_deref() == Some(b));
    let candidates: Vec<&Named> = known.iter().filter(booted).copied().collect();
    if candidates.is_empty() {
        return Err(Rejected::new(no_context, "no context for this boot id"));
    }
    let mut last = Rejected::new(forged, "tag failure");
    for context in candidates {
        match context.open_request(from, piv, ciphertext) {
            Ok(plaintext) => return Ok((context, plaintext)),
            Err(rejected) if context.level() == level => last = rejected,
            Err(_) => {}
        }
    }
    Err(last)
}

fn open_answer<'c>(
    candidates: &[&'c Named],
    level: u8,
    from: Sender,
    request: PartialIv,
    option: &OscoreOption<'_>,
    ciphertext: &[u8],
) -> Result<(&'c Named, Vec<u8>), Rejected> {
    let (unknown_kid, _, forged) = codes(level);
    if candidates.is_empty() {
        return Err(Rejected::new(unknown_kid, "unknown kid"));
    }
    let mut last = Rejected::new(forged, "tag failure");
    for context in candidates {
        match context.open_answer(from, request, option.piv, ciphertext) {
            Ok(plaintext) => return Ok((context, plaintext)),
            Err(rejected) if context.level() == level => last = rejected,
            Err(_) => {}
        }
    }
    Err(last)
}
