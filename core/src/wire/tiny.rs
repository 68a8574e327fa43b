//! Tiny frames: OSCORE messages without the bytes that both ends know (docs/protocol.md 6).
//!
//! A tiny frame expands, without keys, to one exact RFC 8613 message; [`Tiny::compress`] is the way back.

mod fragment;
mod inner;

pub use fragment::{Fragments, MAX_FRAGMENTS, REASSEMBLY_TIMEOUT, Reassembly};
pub use inner::{Inner, Within};

use crate::error::{Code, Rejected, SealError};
use crate::id::{BootContext, Sid};
use crate::oscore::{Id, OscoreOption, PartialIv, SHORTEST_CIPHERTEXT};
use crate::wire::coap::{CHANGED, POST, Protected, Token, Type};

/// Which contexts a tiny message is sealed with. Not authenticated by itself: the plaintext must be what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layers {
    /// C3 only.
    C3,
    /// C2 only.
    C2,
    /// C2 over C3.
    C2OverC3,
}

impl Layers {
    const ALL: [Self; 3] = [Self::C3, Self::C2, Self::C2OverC3];

    /// As the policy writes it: `e3`, `e2`, `e2+e3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::C3 => "e3",
            Self::C2 => "e2",
            Self::C2OverC3 => "e2+e3",
        }
    }
}

/// Whether requests carry the kid, K of the policy record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KidLength {
    /// K = 0: the link says who sent it.
    None,
    /// K = 2: the short id stands in the message.
    Two,
}

/// Whether the sender of a request waits for an answer: A of the RuleID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wants {
    /// A = 1: expands to CON with a token.
    Answer,
    /// A = 0: expands to NON without one.
    Nothing,
}

/// Which EDHOC message a frame carries (RFC 9528 A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdhocRule {
    /// 12: an error message.
    Error,
    /// 11: server to client.
    ToClient,
    /// 10: client to server, with F5 or C_R in front.
    ToServer,
}

/// A tiny frame, checked for shape. Nothing in it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiny<'b> {
    /// 01..03, 05..07: answer to a device's request.
    Answer {
        /// Its contexts.
        layers: Layers,
        /// The request's number modulo 256.
        token: u8,
        /// The answer's own number.
        piv: Option<PartialIv>,
        /// Ciphertext with tag.
        ciphertext: &'b [u8],
    },
    /// 0D..0F: a device's answer to a downlink request.
    DeviceAnswer {
        /// Its contexts.
        layers: Layers,
        /// The token of the downlink request.
        token: u8,
        /// Ciphertext with tag.
        ciphertext: &'b [u8],
    },
    /// 09..0B: request to a listening device.
    Downlink {
        /// Its contexts.
        layers: Layers,
        /// Token for the device's answer.
        token: u8,
        /// The sender's number.
        piv: PartialIv,
        /// Ciphertext with tag.
        ciphertext: &'b [u8],
    },
    /// 10..12: EDHOC.
    Edhoc {
        /// Which of the three.
        rule: EdhocRule,
        /// The CoAP payload of RFC 9528 A.2.
        payload: &'b [u8],
    },
    /// 17: a fragment of a longer tiny frame.
    Fragment {
        /// One for all fragments of a datagram.
        tag: u8,
        /// Place of this one, from 0.
        index: u8,
        /// Whether it ends the datagram.
        last: bool,
        /// Its bytes.
        bytes: &'b [u8],
    },
    /// 13: E1 control (docs/protocol.md 4.1), whole, with its RuleID.
    Hello(&'b [u8]),
    /// 1F: E1S (docs/protocol.md 4.2), whole, with its RuleID.
    Link(&'b [u8]),
    /// 19..1B: a body without any protection but the link's. Only for networks whose record says so (danger profile).
    Plain {
        /// The sender's number.
        piv: PartialIv,
        /// The sender, if K = 2.
        kid: Option<Sid>,
        /// Items of docs/protocol.md 7.
        payload: &'b [u8],
    },
    /// 20..37: a device's request.
    Request {
        /// Its contexts.
        layers: Layers,
        /// Whether an answer is wanted.
        wants: Wants,
        /// The sender's number.
        piv: PartialIv,
        /// Boot id; with it the frame has the explicit form (n = 0).
        bctx: Option<BootContext>,
        /// The sender, if K = 2.
        kid: Option<Sid>,
        /// Ciphertext with tag.
        ciphertext: &'b [u8],
    },
}

const ANSWER: u8 = 0x01;
const ANSWER_PIV: u8 = 0x05;
const DOWNLINK: u8 = 0x09;
const DEVICE_ANSWER: u8 = 0x0D;
const EDHOC: u8 = 0x10;
/// Bytes of an FRMPayload at the slowest data rate of LoRaWAN in region EU868 (DR0). The RuleID is not among them.
pub const LORAWAN_DR0: usize = 51;
/// RuleID of E1 control.
pub const HELLO: u8 = 0x13;
/// RuleID of a fragment.
pub const FRAGMENT: u8 = 0x17;
const PLAIN: u8 = 0x18;
/// RuleID of E1S.
pub const LINK: u8 = 0x1F;
const REQUEST: u8 = 0x20;

impl<'b> Tiny<'b> {
    /// Parses a frame that begins with its RuleID.
    ///
    /// # Errors
    /// `T-01` for an unknown RuleID or bytes that are missing; `T-02` for a number with a leading zero.
    pub fn parse(frame: &'b [u8], kid_length: KidLength) -> Result<Self, Rejected> {
        let Some((&rule, rest)) = frame.split_first() else {
            return malformed("no RuleID");
        };
        let layers = |first: u8| Layers::ALL.get(usize::from(rule - first)).copied().unwrap_or(Layers::C3);
        match rule {
            0x01..=0x03 => {
                let (token, rest) = byte(rest, "no token")?;
                Ok(Self::Answer { layers: layers(0x01), token, piv: None, ciphertext: ciphertext(rest)? })
            }
            0x05..=0x07 => {
                let (token, rest) = byte(rest, "no token")?;
                let (piv, rest) = counted_piv(rest)?;
                Ok(Self::Answer { layers: layers(0x05), token, piv: Some(piv), ciphertext: ciphertext(rest)? })
            }
            0x09..=0x0B => {
                let (token, rest) = byte(rest, "no token")?;
                let (piv, rest) = counted_piv(rest)?;
                Ok(Self::Downlink { layers: layers(0x09), token, piv, ciphertext: ciphertext(rest)? })
            }
            0x0D..=0x0F => {
                let (token, rest) = byte(rest, "no token")?;
                Ok(Self::DeviceAnswer { layers: layers(0x0D), token, ciphertext: ciphertext(rest)? })
            }
            0x10..=0x12 if rest.is_empty() => malformed("EDHOC message missing"),
            0x10 => Ok(Self::Edhoc { rule: EdhocRule::ToServer, payload: rest }),
            0x11 => Ok(Self::Edhoc { rule: EdhocRule::ToClient, payload: rest }),
            0x12 => Ok(Self::Edhoc { rule: EdhocRule::Error, payload: rest }),
            HELLO => Ok(Self::Hello(frame)),
            FRAGMENT => {
                let (tag, rest) = byte(rest, "no fragment tag")?;
                let (place, bytes) = byte(rest, "no fragment index")?;
                if bytes.is_empty() {
                    return malformed("fragment without bytes");
                }
                Ok(Self::Fragment { tag, index: place & 0x7F, last: place & 0x80 != 0, bytes })
            }
            0x19..=0x1B => {
                let (piv, rest) = piv_of(rest, rule - PLAIN)?;
                let (kid, payload) = kid_of(rest, kid_length)?;
                if payload.is_empty() {
                    return malformed("payload missing");
                }
                Ok(Self::Plain { piv, kid, payload })
            }
            LINK => Ok(Self::Link(frame)),
            0x20..=0x37 => {
                let wants = if rule & 0x04 == 0 { Wants::Nothing } else { Wants::Answer };
                let (piv, bctx, rest) = match rule & 0x03 {
                    0 => {
                        let (piv, rest) = counted_piv(rest)?;
                        let Some((bctx, rest)) = rest.split_first_chunk() else {
                            return malformed("boot id shorter than 8 bytes");
                        };
                        (piv, Some(BootContext(*bctx)), rest)
                    }
                    n => {
                        let (piv, rest) = piv_of(rest, n)?;
                        (piv, None, rest)
                    }
                };
                let (kid, rest) = kid_of(rest, kid_length)?;
                let layers = Layers::ALL.get(usize::from(rule >> 3 & 0x03)).copied().unwrap_or(Layers::C3);
                Ok(Self::Request { layers, wants, piv, bctx, kid, ciphertext: ciphertext(rest)? })
            }
            _ => malformed("RuleID reserved or not listed"),
        }
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn emitted_len(&self) -> usize {
        match self {
            Self::Answer { piv, ciphertext, .. } => 2 + piv.map_or(0, |p| 1 + p.as_bytes().len()) + ciphertext.len(),
            Self::DeviceAnswer { ciphertext, .. } => 2 + ciphertext.len(),
            Self::Downlink { piv, ciphertext, .. } => 3 + piv.as_bytes().len() + ciphertext.len(),
            Self::Edhoc { payload, .. } => 1 + payload.len(),
            Self::Fragment { bytes, .. } => 3 + bytes.len(),
            Self::Hello(frame) | Self::Link(frame) => frame.len(),
            Self::Plain { piv, kid, payload } => 1 + piv.as_bytes().len() + kid.map_or(0, |_| 2) + payload.len(),
            Self::Request { piv, bctx, kid, ciphertext, .. } => {
                1 + bctx.map_or(0, |_| 9) + piv.as_bytes().len() + kid.map_or(0, |_| 2) + ciphertext.len()
            }
        }
    }

    /// Writes the frame and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`]; [`SealError::TooLong`] for a number of more than 3 bytes or an index above 127.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        match *self {
            Self::Answer { layers, token, piv: None, ciphertext } => {
                put(out, &[&[ANSWER + layers as u8, token], ciphertext])
            }
            Self::Answer { layers, token, piv: Some(piv), ciphertext } => {
                let piv = tiny_piv(&piv)?;
                put(out, &[&[ANSWER_PIV + layers as u8, token, piv.len() as u8], piv, ciphertext])
            }
            Self::DeviceAnswer { layers, token, ciphertext } => {
                put(out, &[&[DEVICE_ANSWER + layers as u8, token], ciphertext])
            }
            Self::Downlink { layers, token, piv, ciphertext } => {
                let piv = tiny_piv(&piv)?;
                put(out, &[&[DOWNLINK + layers as u8, token, piv.len() as u8], piv, ciphertext])
            }
            Self::Edhoc { rule, payload } => {
                let offset = match rule {
                    EdhocRule::ToServer => 0,
                    EdhocRule::ToClient => 1,
                    EdhocRule::Error => 2,
                };
                put(out, &[&[EDHOC + offset], payload])
            }
            Self::Fragment { tag, index, last, bytes } => {
                if index > 0x7F {
                    return Err(SealError::TooLong);
                }
                put(out, &[&[FRAGMENT, tag, index | if last { 0x80 } else { 0 }], bytes])
            }
            Self::Hello(frame) | Self::Link(frame) => put(out, &[frame]),
            Self::Plain { piv, kid, payload } => {
                let piv = tiny_piv(&piv)?;
                let kid = kid.map(Sid::to_bytes);
                put(out, &[&[PLAIN | piv.len() as u8], piv, kid.as_ref().map_or(&[], |k| k), payload])
            }
            Self::Request { layers, wants, piv, bctx, kid, ciphertext } => {
                let piv = tiny_piv(&piv)?;
                let rule = REQUEST | (layers as u8) << 3 | if wants == Wants::Answer { 0x04 } else { 0 };
                let kid = kid.map(Sid::to_bytes);
                let kid: &[u8] = kid.as_ref().map_or(&[], |k| k);
                match bctx {
                    Some(bctx) => put(out, &[&[rule, piv.len() as u8], piv, &bctx.0, kid, ciphertext]),
                    None => put(out, &[&[rule | piv.len() as u8], piv, kid, ciphertext]),
                }
            }
        }
    }

    /// The OSCORE message that the frame stands for. `kid` is who the link says sent it, or for a downlink request the
    /// peer id of the context; a kid in the frame goes first. `None` for frames that stand for no OSCORE message, and for
    /// requests nobody names the sender of.
    pub fn protected<'a>(&'a self, kid: Option<&'a Id>, scratch: &'a mut [u8; 2]) -> Option<Protected<'a>> {
        let answer = |token: u8, piv, ciphertext| Protected {
            kind: Type::Non,
            code: CHANGED,
            message_id: 0,
            token: Token::from(token),
            option: OscoreOption { piv, kid_context: None, kid: None },
            ciphertext,
        };
        match self {
            Self::Answer { token, piv, ciphertext, .. } => Some(answer(*token, *piv, ciphertext)),
            Self::DeviceAnswer { token, ciphertext, .. } => Some(answer(*token, None, ciphertext)),
            Self::Downlink { token, piv, ciphertext, .. } => Some(Protected {
                kind: Type::Non,
                code: POST,
                message_id: piv.value() as u16,
                token: Token::from(*token),
                option: OscoreOption { piv: Some(*piv), kid_context: None, kid: Some(kid?.as_bytes()) },
                ciphertext,
            }),
            Self::Request { wants, piv, bctx, kid: own, ciphertext, .. } => {
                let kid: &[u8] = match own {
                    Some(sid) => {
                        *scratch = sid.to_bytes();
                        scratch
                    }
                    None => kid?.as_bytes(),
                };
                let (kind, token) = match wants {
                    Wants::Answer => (Type::Con, Token::from(piv.value() as u8)),
                    Wants::Nothing => (Type::Non, Token::default()),
                };
                Some(Protected {
                    kind,
                    code: POST,
                    message_id: piv.value() as u16,
                    token,
                    option: OscoreOption {
                        piv: Some(*piv),
                        kid_context: bctx.as_ref().map(|b| &b.0[..]),
                        kid: Some(kid),
                    },
                    ciphertext,
                })
            }
            Self::Edhoc { .. } | Self::Fragment { .. } | Self::Hello(_) | Self::Link(_) | Self::Plain { .. } => None,
        }
    }

    /// Writes the OSCORE message that the frame stands for; see [`protected`](Self::protected) for `kid`.
    ///
    /// # Errors
    /// `T-01` for a frame that stands for none, a request without kid, or a message longer than `out`.
    pub fn expand(&self, kid: Option<Id>, out: &mut [u8]) -> Result<usize, Rejected> {
        let mut scratch = [0; 2];
        self.protected(kid.as_ref(), &mut scratch)
            .ok_or(Rejected::new(Code::TinyMalformed, "no OSCORE message, or nobody named its sender"))?
            .emit(out)
            .map_err(|_| Rejected::new(Code::TinyMalformed, "longer than this receiver takes"))
    }

    /// The frame that expands to `message`, Type and Message ID aside: a request of a device, a downlink request or an
    /// answer to a device, by its code and `way`. `None` when no frame does.
    pub fn compress(message: &Protected<'b>, layers: Layers, way: Way) -> Option<Self> {
        let &Protected { code, token, option, ciphertext, .. } = message;
        let small = |piv: &PartialIv| piv.as_bytes().len() <= 3;
        let piv = match option.piv {
            Some(piv) if small(&piv) => Some(piv),
            None => None,
            Some(_) => return None,
        };
        match (way, code) {
            (Way::Down, CHANGED) => {
                let &[token] = token.as_bytes() else { return None };
                Some(Self::Answer { layers, token, piv, ciphertext })
            }
            (Way::Down, POST) if option.kid_context.is_none() => {
                let &[token] = token.as_bytes() else { return None };
                Some(Self::Downlink { layers, token, piv: piv?, ciphertext })
            }
            (Way::Up(_), CHANGED) if piv.is_none() => {
                let &[token] = token.as_bytes() else { return None };
                Some(Self::DeviceAnswer { layers, token, ciphertext })
            }
            (Way::Up(kid_length), POST) => {
                let piv = piv?;
                let wants = match token.as_bytes() {
                    [] => Wants::Nothing,
                    [token] if *token == piv.value() as u8 => Wants::Answer,
                    _ => return None,
                };
                let bctx = match option.kid_context {
                    None => None,
                    Some(context) => Some(BootContext(context.try_into().ok()?)),
                };
                let sid = Sid::from_bytes(option.kid?.try_into().ok()?);
                let kid = match kid_length {
                    KidLength::None => None,
                    KidLength::Two => Some(sid),
                };
                Some(Self::Request { layers, wants, piv, bctx, kid, ciphertext })
            }
            _ => None,
        }
    }
}

/// Which way a message goes, for [`Tiny::compress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To a device.
    Down,
    /// From a device.
    Up(KidLength),
}

fn byte<'b>(rest: &'b [u8], missing: &'static str) -> Result<(u8, &'b [u8]), Rejected> {
    rest.split_first().map(|(b, rest)| (*b, rest)).ok_or(Rejected::new(Code::TinyMalformed, missing))
}

/// A number whose length stands before it.
fn counted_piv(rest: &[u8]) -> Result<(PartialIv, &[u8]), Rejected> {
    let (n, rest) = byte(rest, "no PIV length")?;
    piv_of(rest, n)
}

fn piv_of(rest: &[u8], n: u8) -> Result<(PartialIv, &[u8]), Rejected> {
    if n > 3 {
        return malformed("PIV length above 3");
    }
    let (piv, rest) =
        rest.split_at_checked(n.into()).ok_or(Rejected::new(Code::TinyMalformed, "PIV shorter than n"))?;
    Ok((PartialIv::from_minimal(piv)?, rest))
}

fn kid_of(rest: &[u8], kid_length: KidLength) -> Result<(Option<Sid>, &[u8]), Rejected> {
    match kid_length {
        KidLength::None => Ok((None, rest)),
        KidLength::Two => match rest.split_first_chunk() {
            Some((kid, rest)) => Ok((Some(Sid::from_bytes(*kid)), rest)),
            None => malformed("kid shorter than K"),
        },
    }
}

fn ciphertext(rest: &[u8]) -> Result<&[u8], Rejected> {
    if rest.len() < SHORTEST_CIPHERTEXT {
        return malformed("ciphertext missing, or shorter than tag and code");
    }
    Ok(rest)
}

fn tiny_piv(piv: &PartialIv) -> Result<&[u8], SealError> {
    let bytes = piv.as_bytes();
    if bytes.len() > 3 { Err(SealError::TooLong) } else { Ok(bytes) }
}

fn put(out: &mut [u8], parts: &[&[u8]]) -> Result<usize, SealError> {
    let len = parts.iter().map(|p| p.len()).sum();
    let out = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
    out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(o, p)| *o = *p);
    Ok(len)
}

fn malformed<T>(reason: &'static str) -> Result<T, Rejected> {
    Err(Rejected::new(Code::TinyMalformed, reason))
}
