//! What a C2 layer around a C3 layer carries on tiny links (docs/protocol.md 6.3).

use super::{Wants, put, tiny_piv};
use crate::error::{Code, Rejected, SealError};
use crate::id::BootContext;
use crate::oscore::{Id, OscoreOption, PartialIv, SHORTEST_CIPHERTEXT};
use crate::wire::coap::{CHANGED, POST, Protected, Token, Type};

/// In which message the C2 plaintext was found: each allows other rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Within {
    /// An answer to a device: rules 01, 02, 04.
    Answer,
    /// A device's answer to a downlink request: rule 01.
    DeviceAnswer,
    /// A downlink request: rules 01, 02.
    Downlink,
    /// A device's request: rules 01, 02, 03.
    Request,
}

/// A C2 plaintext under L = 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner<'b> {
    /// 02, 03: C3 under a number of its own.
    Explicit {
        /// The C3 number.
        piv: PartialIv,
        /// Boot id of the C3 context (rule 03).
        bctx: Option<BootContext>,
        /// C3 ciphertext with tag.
        ct3: &'b [u8],
    },
    /// 04: the gateway's own answer, without C3.
    Own {
        /// CoAP code.
        code: u8,
        /// Items of docs/protocol.md 7.
        payload: &'b [u8],
    },
    /// 01: C3 under the C2 layer's number, kid and boot id; in answers without one.
    Same {
        /// C3 ciphertext with tag.
        ct3: &'b [u8],
    },
}

impl<'b> Inner<'b> {
    /// Parses a C2 plaintext.
    ///
    /// # Errors
    /// `E2-07` for an unknown rule, one that does not exist in this place, and anything cut or not minimal.
    pub fn parse(plaintext: &'b [u8], within: Within) -> Result<Self, Rejected> {
        let Some((&rule, rest)) = plaintext.split_first() else {
            return malformed("empty C2 plaintext");
        };
        let allowed: &[u8] = match within {
            Within::Answer => &[1, 2, 4],
            Within::DeviceAnswer => &[1],
            Within::Downlink => &[1, 2],
            Within::Request => &[1, 2, 3],
        };
        if !allowed.contains(&rule) {
            return malformed("inner rule unknown, or not for this direction");
        }
        match rule {
            1 => Ok(Self::Same { ct3: ct3(rest)? }),
            4 => match rest.split_first() {
                Some((&code, payload)) => Ok(Self::Own { code, payload }),
                None => malformed("inner rule 04 without a code"),
            },
            _ => {
                let Some((piv, rest)) = rest
                    .split_first()
                    .filter(|(n, _)| matches!(**n, 1..=3))
                    .and_then(|(&n, rest)| rest.split_at_checked(n.into()))
                else {
                    return malformed("inner PIV: length not 1..3, or cut");
                };
                let piv = PartialIv::from_minimal(piv)
                    .map_err(|_| Rejected::new(Code::GatewayInnerMalformed, "inner PIV not minimal"))?;
                if rule == 2 {
                    return Ok(Self::Explicit { piv, bctx: None, ct3: ct3(rest)? });
                }
                match rest.split_first_chunk() {
                    Some((bctx, rest)) => Ok(Self::Explicit { piv, bctx: Some(BootContext(*bctx)), ct3: ct3(rest)? }),
                    None => malformed("inner boot id shorter than 8 bytes"),
                }
            }
        }
    }

    /// Writes the C2 plaintext and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`]; [`SealError::TooLong`] for a number of more than 3 bytes.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        match *self {
            Self::Explicit { piv, bctx, ct3 } => {
                let piv = tiny_piv(&piv)?;
                match bctx {
                    None => put(out, &[&[2, piv.len() as u8], piv, ct3]),
                    Some(bctx) => put(out, &[&[3, piv.len() as u8], piv, &bctx.0, ct3]),
                }
            }
            Self::Own { code, payload } => put(out, &[&[4, code], payload]),
            Self::Same { ct3 } => put(out, &[&[1], ct3]),
        }
    }

    /// The C3 request inside a device's request whose C2 layer had this number, boot id and A: what the gateway hands on
    /// to the cloud. `None` for rule 04.
    pub fn request<'a>(
        &'a self,
        outer_piv: PartialIv,
        outer_bctx: Option<&'a BootContext>,
        wants: Wants,
        kid: &'a Id,
    ) -> Option<Protected<'a>> {
        let (piv, bctx, ciphertext) = match self {
            Self::Explicit { piv, bctx, ct3 } => (*piv, bctx.as_ref(), *ct3),
            Self::Own { .. } => return None,
            Self::Same { ct3 } => (outer_piv, outer_bctx, *ct3),
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
            option: OscoreOption { piv: Some(piv), kid_context: bctx.map(|b| &b.0[..]), kid: Some(kid.as_bytes()) },
            ciphertext,
        })
    }

    /// The C3 answer inside an answer to a device, as an OSCORE message. `None` for rule 04.
    pub fn answer(&self, token: u8) -> Option<Protected<'b>> {
        let (piv, ciphertext) = match *self {
            Self::Explicit { piv, ct3, .. } => (Some(piv), ct3),
            Self::Own { .. } => return None,
            Self::Same { ct3 } => (None, ct3),
        };
        Some(Protected {
            kind: Type::Non,
            code: CHANGED,
            message_id: 0,
            token: Token::from(token),
            option: OscoreOption { piv, kid_context: None, kid: None },
            ciphertext,
        })
    }

    /// The inner rule that carries a C3 answer to a device: the way back from the message that the cloud sealed.
    pub fn of_answer(answer: &Protected<'b>) -> Self {
        match answer.option.piv {
            None => Self::Same { ct3: answer.ciphertext },
            Some(piv) => Self::Explicit { piv, bctx: None, ct3: answer.ciphertext },
        }
    }
}

fn ct3(rest: &[u8]) -> Result<&[u8], Rejected> {
    if rest.len() < SHORTEST_CIPHERTEXT {
        return malformed("C3 ciphertext shorter than tag and code");
    }
    Ok(rest)
}

fn malformed<T>(reason: &'static str) -> Result<T, Rejected> {
    Err(Rejected::new(Code::GatewayInnerMalformed, reason))
}
