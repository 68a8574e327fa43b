//! Every case of vectors/standards/rfc8613-oscore.json and oscore-own.json.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use fivefold_core::counter::{Counter, Lease};
use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::Rejected;
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{
    AnswerNumber, Context, Id, InnerRequest, NUMBER_LIMIT, OscoreOption, Params, PartialIv, Plaintext, RequestId,
    judge_answer, judge_request, judge_tiny_request,
};
use fivefold_core::suite::Alg;
use fivefold_core::wire::coap::{Message, Options, Outer, Protected, Token, Type, number};
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Wants, Way, Within};
use serde_json::Value;

fn read(file: &str) -> Value {
    let path = format!("{}/../vectors/standards/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn cases<'a>(book: &'a Value, list: &str) -> &'a [Value] {
    let cases = book[list].as_array().unwrap();
    assert!(!cases.is_empty(), "{list} is empty");
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("no {field} in {case}"))
}

/// `None` for null or absent.
fn maybe(case: &Value, field: &str) -> Option<Vec<u8>> {
    case[field].as_str().map(|t| hex::decode(t).unwrap())
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    maybe(case, field).unwrap_or_else(|| panic!("no {field} in {case}"))
}

fn id(bytes: &[u8]) -> Id {
    Id::new(bytes).unwrap()
}

fn piv(bytes: &[u8]) -> PartialIv {
    PartialIv::from_minimal(bytes).unwrap()
}

fn code(text: &str) -> u8 {
    let (class, detail) = text.split_once('.').unwrap();
    class.parse::<u8>().unwrap() << 5 | detail.parse::<u8>().unwrap()
}

/// A counter of exactly this number, as a lease gives it.
fn counter(number: u64) -> Counter {
    let n = u32::try_from(number).unwrap();
    let mut lease = Lease::resume(n, n + 1);
    lease.extend(n + 1);
    lease.take().unwrap()
}

/// Both ends of a context.
struct Ends<L: OscoreLevel> {
    device: Context<L>,
    peer: Context<L>,
}

impl<L: OscoreLevel> Ends<L> {
    fn of(case: &Value) -> Self {
        let (secret, salt, id_context) =
            (bytes(case, "master_secret"), bytes(case, "master_salt"), maybe(case, "id_context"));
        let (device, peer) = (id(&bytes(case, "device_id")), id(&bytes(case, "peer_id")));
        let params = |sender_id, recipient_id| Params {
            alg: Alg::from_cose(case["alg"].as_u64().unwrap() as u8).unwrap(),
            master_secret: &secret,
            master_salt: &salt,
            id_context: id_context.as_deref(),
            sender_id,
            recipient_id,
        };
        Self { device: Context::derive(&params(device, peer)), peer: Context::derive(&params(peer, device)) }
    }

    /// Sender and receiver of a message.
    fn from(&self, from: &str) -> (&Context<L>, &Context<L>) {
        match from {
            "device" => (&self.device, &self.peer),
            "peer" => (&self.peer, &self.device),
            other => panic!("from {other}"),
        }
    }
}

enum Either {
    C2(Ends<E2>),
    C3(Ends<E3>),
}

fn contexts(book: &Value) -> BTreeMap<String, Either> {
    cases(book, "contexts")
        .iter()
        .map(|case| {
            let ends = match text(case, "layer") {
                "C2" => Either::C2(Ends::of(case)),
                "C3" => Either::C3(Ends::of(case)),
                other => panic!("layer {other}"),
            };
            (text(case, "id").to_owned(), ends)
        })
        .collect()
}

/// What was derived, as the other end would have to have it.
fn check_keys<L: OscoreLevel>(context: &Context<L>, other: &Context<L>, sender_key: &[u8], iv: &[u8]) {
    assert_eq!(other.receive_part().danger_recipient_key(), sender_key);
    assert_eq!(context.receive_part().common_iv(), iv);
}

#[test]
fn rfc8613_keys_and_messages() {
    let book = read("rfc8613-oscore.json");
    let mut ends = BTreeMap::new();
    for case in cases(&book, "derivations") {
        let (secret, salt) = (bytes(case, "master_secret"), maybe(case, "master_salt").unwrap_or_default());
        let id_context = maybe(case, "id_context");
        let (sender_id, recipient_id) = (id(&bytes(case, "sender_id")), id(&bytes(case, "recipient_id")));
        let mut params = Params {
            alg: Alg::from_cose(case["aead_alg"].as_u64().unwrap() as u8).unwrap(),
            master_secret: &secret,
            master_salt: &salt,
            id_context: id_context.as_deref(),
            sender_id,
            recipient_id,
        };
        let own = Context::<E3>::derive(&params);
        (params.sender_id, params.recipient_id) = (recipient_id, sender_id);
        let other = Context::<E3>::derive(&params);
        check_keys(&own, &other, &bytes(case, "sender_key"), &bytes(case, "common_iv"));
        check_keys(&other, &own, &bytes(case, "recipient_key"), &bytes(case, "common_iv"));
        ends.insert(text(case, "section").to_owned(), (own, other));
    }
    let mut requests = BTreeMap::new();
    for case in cases(&book, "messages") {
        let (own, other) = &ends[text(case, "context")];
        let (protected, plaintext) = (bytes(case, "protected_coap"), bytes(case, "plaintext"));
        let message = Message::parse(&protected).unwrap();
        let option = message.options().find(|(n, _)| *n == number::OSCORE).unwrap().1;
        assert_eq!(option, bytes(case, "oscore_option"));
        let option = OscoreOption::parse(option).unwrap();
        let (mut sealed, mut opened) = ([0; 64], [0; 64]);
        let len = match text(case, "kind") {
            "request" => {
                let number = option.piv.unwrap();
                let (request, len) = own.seal_request(counter(number.value()), &plaintext, &mut sealed).unwrap();
                assert_eq!(option.kid, Some(own.sender_id().as_bytes()));
                requests.insert(text(case, "section").to_owned(), request);
                let read = other.open_request(number, message.payload, &mut opened).unwrap();
                assert_eq!(read.plaintext(), plaintext);
                len
            }
            _ => {
                let to = requests[text(case, "request")];
                let n = match option.piv {
                    Some(piv) => AnswerNumber::Own(counter(piv.value())),
                    None => AnswerNumber::Unnumbered(once(other, own, &to)),
                };
                let len = own.seal_answer(&to, n, &plaintext, &mut sealed).unwrap();
                let read = other.open_answer(&to, option.piv, message.payload, &mut opened).unwrap();
                assert_eq!(read.plaintext(), plaintext);
                len
            }
        };
        assert_eq!(&sealed[..len], bytes(case, "ciphertext"), "{}", text(case, "section"));
        assert_eq!(message.payload, &sealed[..len]);
    }
    assert_eq!(requests.len(), 3);
}

/// The right to answer a request without a number: it exists only for requests that were opened.
fn once<L: OscoreLevel>(
    asker: &Context<L>,
    answerer: &Context<L>,
    to: &RequestId,
) -> fivefold_core::oscore::UnnumberedAnswer<L> {
    let mut sealed = [0; 16];
    let (request, len) = asker.seal_request(counter(to.piv.value()), b"\x02\xff.", &mut sealed).unwrap();
    assert_eq!(request, *to);
    answerer.open_request(to.piv, &sealed[..len], &mut [0; 16]).unwrap().unnumbered()
}

#[test]
fn own_contexts_have_the_stated_keys() {
    let book = read("oscore-own.json");
    for case in cases(&book, "contexts") {
        let ends = Ends::<E3>::of(case);
        check_keys(&ends.device, &ends.peer, &bytes(case, "device_sender_key"), &bytes(case, "common_iv"));
        check_keys(&ends.peer, &ends.device, &bytes(case, "device_recipient_key"), &bytes(case, "common_iv"));
    }
}

#[test]
fn own_messages_seal_to_the_same_bytes_and_open() {
    let book = read("oscore-own.json");
    let contexts = contexts(&book);
    for case in cases(&book, "messages") {
        match &contexts[text(case, "context")] {
            Either::C2(ends) => check_message(case, ends),
            Either::C3(ends) => check_message(case, ends),
        }
    }
}

fn check_message<L: OscoreLevel>(case: &Value, ends: &Ends<L>) {
    let name = text(case, "id");
    let (sender, receiver) = ends.from(text(case, "from"));
    let (plaintext, protected) = (bytes(case, "plaintext"), bytes(case, "protected_coap"));
    let inner = Plaintext::parse(&plaintext).unwrap();
    assert_eq!(inner.code, code(text(case, "inner_code")), "{name}");
    assert_eq!(inner.options, bytes(case, "inner_options"));
    assert_eq!(inner.payload, bytes(case, "payload"));
    let mut again = [0; 256];
    let len = inner.emit(&mut again).unwrap();
    assert_eq!(&again[..len], plaintext);

    let is_request = text(case, "kind") == "request";
    let parsed = if is_request {
        Protected::parse_request(&protected, Outer::Strict)
    } else {
        Protected::parse_answer(&protected)
    }
    .unwrap_or_else(|r| panic!("{name}: {r}"));
    let request = RequestId { kid: id(&bytes(case, "request_kid")), piv: piv(&bytes(case, "request_piv")) };
    let own = maybe(case, "partial_iv").map(|p| piv(&p));
    assert_eq!(parsed.kind.as_str(), text(case, "type"));
    assert_eq!(u64::from(parsed.message_id), case["message_id"].as_u64().unwrap());
    assert_eq!(parsed.token.as_bytes(), bytes(case, "token"));
    assert_eq!(parsed.option.piv, own);
    assert_eq!(parsed.option.kid_context.is_some(), case["kid_context_sent"].as_bool().unwrap(), "{name}");

    let (mut sealed, mut opened) = ([0; 256], [0; 256]);
    let len = if is_request {
        assert_eq!(parsed.option.kid, Some(sender.sender_id().as_bytes()));
        let (made, len) = sender.seal_request(counter(request.piv.value()), &plaintext, &mut sealed).unwrap();
        assert_eq!(made, request);
        let read = receiver.open_request(request.piv, parsed.ciphertext, &mut opened).unwrap();
        assert_eq!((read.plaintext(), read.request()), (&plaintext[..], request));
        // The receiving half and a kept key open the same.
        let half = receiver.receive_part();
        assert!(half.open_request_with(&half.opening(), request.piv, parsed.ciphertext, &mut [0; 256]).is_ok());
        len
    } else {
        let n = match own {
            Some(own) => AnswerNumber::Own(counter(own.value())),
            None => AnswerNumber::Unnumbered(once(receiver, sender, &request)),
        };
        let len = sender.seal_answer(&request, n, &plaintext, &mut sealed).unwrap();
        let read = receiver.open_answer(&request, own, parsed.ciphertext, &mut opened).unwrap();
        assert_eq!(read.plaintext(), plaintext);
        assert!(judge_answer::<L>(&plaintext).is_ok());
        len
    };
    assert_eq!(&sealed[..len], bytes(case, "ciphertext"), "{name}");

    let mut option = [0; 32];
    let option_len = parsed.option.emit(&mut option).unwrap();
    assert_eq!(&option[..option_len], bytes(case, "oscore_option"));
    let rebuilt = Protected { ciphertext: &sealed[..len], ..parsed };
    let mut out = [0; 256];
    let out_len = rebuilt.emit(&mut out).unwrap();
    assert_eq!(&out[..out_len], protected, "{name}");

    if is_request && case.get("outside_profile").is_some() {
        assert!(judge_tiny_request::<L>(&plaintext).is_err(), "{name}");
        assert!(judge_request::<L>(&plaintext).is_err(), "{name}");
    }
}

#[test]
fn nested_messages_of_ip_links_open_twice() {
    let book = read("oscore-own.json");
    let contexts = contexts(&book);
    let message = |name: &str| cases(&book, "messages").iter().find(|m| text(m, "id") == name).unwrap();
    for case in cases(&book, "nested_ip") {
        let (outer, inner) = (message(text(case, "outer")), message(text(case, "inner")));
        let (Either::C2(c2), Either::C3(c3)) = (&contexts[text(outer, "context")], &contexts[text(inner, "context")])
        else {
            panic!("levels of {case}");
        };
        let bytes_of_outer = bytes(outer, "protected_coap");
        let at_gateway = Protected::parse_request(&bytes_of_outer, Outer::Strict).unwrap();
        let (mut first, mut second) = ([0; 256], [0; 256]);
        let opened = c2.peer.open_request(at_gateway.option.piv.unwrap(), at_gateway.ciphertext, &mut first).unwrap();
        let Ok(InnerRequest::Nested { option, ciphertext }) = judge_request::<E2>(opened.plaintext()) else {
            panic!("not nested: {case}");
        };
        assert_eq!(ciphertext, bytes(inner, "ciphertext"));
        let opened = c3.peer.open_request(option.piv.unwrap(), ciphertext, &mut second).unwrap();
        assert_eq!(judge_request::<E3>(opened.plaintext()), Ok(InnerRequest::Payload(&bytes(case, "application"))));
        // A second nesting, or one inside C3, is no message of ours.
        assert!(judge_request::<E3>(&bytes(outer, "plaintext")).is_err());
    }
}

fn kid_length(case: &Value) -> KidLength {
    match case["K"].as_u64() {
        Some(2) => KidLength::Two,
        _ => KidLength::None,
    }
}

/// Who sent a tiny frame, as the link or (downlink) the context says.
fn kid(case: &Value, contexts: &BTreeMap<String, Either>) -> Id {
    if text(case, "direction") == "uplink" {
        return id(&bytes(case, "link_kid"));
    }
    match &contexts[text(&case["layers"][0], "context")] {
        Either::C2(ends) => ends.peer.sender_id(),
        Either::C3(ends) => ends.peer.sender_id(),
    }
}

#[test]
fn tiny_frames_expand_open_and_compress_again() {
    let book = read("oscore-own.json");
    let contexts = contexts(&book);
    for case in cases(&book, "tiny") {
        let name = text(case, "id");
        let frame = bytes(case, "tiny");
        assert_eq!(frame[0], bytes(case, "rule_id")[0], "{name}");
        let tiny = Tiny::parse(&frame, kid_length(case)).unwrap_or_else(|r| panic!("{name}: {r}"));
        let mut out = [0; 256];
        let len = tiny.emit(&mut out).unwrap();
        assert_eq!((&out[..len], tiny.emitted_len()), (&frame[..], len), "{name}");

        let len = tiny.expand(Some(kid(case, &contexts)), &mut out).unwrap();
        assert_eq!(&out[..len], bytes(case, "decompressed"), "{name}");
        let (layers, way) = match tiny {
            Tiny::Answer { layers, .. } | Tiny::Downlink { layers, .. } => (layers, Way::Down),
            Tiny::Request { layers, .. } | Tiny::DeviceAnswer { layers, .. } => (layers, Way::Up(kid_length(case))),
            other => panic!("{name}: {other:?}"),
        };
        let is_request = matches!(tiny, Tiny::Request { .. } | Tiny::Downlink { .. });
        let protected = if is_request {
            Protected::parse_request(&out[..len], Outer::Strict)
        } else {
            Protected::parse_answer(&out[..len])
        }
        .unwrap();
        assert_eq!(Tiny::compress(&protected, layers, way), Some(tiny), "{name}");

        let application = open_layers(case, &tiny, protected, &contexts);
        assert_eq!(application, bytes(case, "application"), "{name}");
    }
}

/// Opens what `case.layers` lists, checks each plaintext, and returns what the application gets.
fn open_layers(case: &Value, tiny: &Tiny<'_>, outer: Protected<'_>, contexts: &BTreeMap<String, Either>) -> Vec<u8> {
    let name = text(case, "id");
    let layers = case["layers"].as_array().unwrap();
    let mut first = [0; 256];
    let plaintext = open(&layers[0], text(case, "direction"), &outer, contexts, &mut first);
    let within = match tiny {
        Tiny::Answer { layers: Layers::C2OverC3, .. } => Within::Answer,
        Tiny::DeviceAnswer { layers: Layers::C2OverC3, .. } => Within::DeviceAnswer,
        Tiny::Downlink { layers: Layers::C2OverC3, .. } => Within::Downlink,
        Tiny::Request { layers: Layers::C2OverC3, .. } => Within::Request,
        _ => return application(case, plaintext),
    };
    let inner = Inner::parse(plaintext, within).unwrap_or_else(|r| panic!("{name}: {r}"));
    assert_eq!(u64::from(plaintext[0]), case["inner_rule"].as_u64().unwrap(), "{name}");
    let mut again = [0; 256];
    let len = inner.emit(&mut again).unwrap();
    assert_eq!(&again[..len], plaintext);
    if let Inner::Own { code: own, payload } = inner {
        assert_eq!(own, code(text(case, "inner_code")));
        return payload.to_vec();
    }
    let kid = match within {
        Within::Downlink => match &contexts[text(&layers[1], "context")] {
            Either::C3(ends) => ends.peer.sender_id(),
            Either::C2(_) => panic!("{name}: C2 in C2"),
        },
        _ => id(&[0x0a, 0x17]),
    };
    let ct3 = match tiny {
        Tiny::Request { piv, bctx, wants, .. } => inner.request(*piv, bctx.as_ref(), *wants, &kid),
        Tiny::Downlink { piv, .. } => inner.request(*piv, None, Wants::Nothing, &kid),
        _ => inner.answer(0),
    }
    .unwrap();
    if within == Within::Answer {
        assert_eq!(Inner::of_answer(&ct3), inner);
    }
    let mut second = [0; 256];
    let plaintext = open(&layers[1], text(case, "direction"), &ct3, contexts, &mut second);
    application(case, plaintext)
}

fn application(case: &Value, plaintext: &[u8]) -> Vec<u8> {
    match case["inner_code"].as_str() {
        Some(stated) => {
            let answer = judge_answer::<E3>(plaintext).unwrap();
            assert_eq!(answer.code, code(stated));
            answer.payload.to_vec()
        }
        None => judge_tiny_request::<E3>(plaintext).unwrap().to_vec(),
    }
}

fn open<'b>(
    layer: &Value,
    direction: &str,
    message: &Protected<'_>,
    contexts: &BTreeMap<String, Either>,
    out: &'b mut [u8],
) -> &'b [u8] {
    assert_eq!(message.ciphertext, bytes(layer, "ciphertext"));
    assert_eq!(message.option.piv, maybe(layer, "partial_iv").map(|p| piv(&p)));
    let to = RequestId { kid: id(&bytes(layer, "request_kid")), piv: piv(&bytes(layer, "request_piv")) };
    let plaintext = match &contexts[text(layer, "context")] {
        Either::C2(ends) => open_with(ends, direction, &to, message, out),
        Either::C3(ends) => open_with(ends, direction, &to, message, out),
    };
    assert_eq!(plaintext, bytes(layer, "plaintext"));
    plaintext
}

fn open_with<'b, L: OscoreLevel>(
    ends: &Ends<L>,
    direction: &str,
    to: &RequestId,
    message: &Protected<'_>,
    out: &'b mut [u8],
) -> &'b [u8] {
    match direction {
        "uplink" => ends.peer.open_request(to.piv, message.ciphertext, out),
        "downlink-request" => ends.device.open_request(to.piv, message.ciphertext, out),
        "answer" => ends.device.open_answer(to, message.option.piv, message.ciphertext, out),
        "device-answer" => ends.peer.open_answer(to, message.option.piv, message.ciphertext, out),
        other => panic!("direction {other}"),
    }
    .unwrap()
    .plaintext()
}

/// A receiver with the contexts C3-11 and C2-11 and no others: gateway first, cloud behind it.
struct Receiver {
    c2: Ends<E2>,
    c3: Ends<E3>,
}

impl Receiver {
    fn of(book: &Value) -> Self {
        let context = |name| cases(book, "contexts").iter().find(|c| text(c, "id") == name).unwrap();
        Self { c2: Ends::of(context("C2-11")), c3: Ends::of(context("C3-11")) }
    }

    fn tiny(&self, frame: &[u8], kid_length: KidLength, link_kid: Id) -> Result<Vec<u8>, Rejected> {
        let tiny = Tiny::parse(frame, kid_length)?;
        let Tiny::Request { layers, wants, piv, bctx, .. } = tiny else {
            return Ok(vec![]);
        };
        let mut scratch = [0; 2];
        let message = tiny.protected(Some(&link_kid), &mut scratch).unwrap();
        let mut out = [0; 256];
        match layers {
            Layers::C3 => {
                let plaintext = one(&self.c3.peer, &message, &mut out)?;
                judge_tiny_request::<E3>(plaintext).map(<[u8]>::to_vec).map_err(|r| r.rejected)
            }
            Layers::C2 => {
                let plaintext = one(&self.c2.peer, &message, &mut out)?;
                judge_tiny_request::<E2>(plaintext).map(<[u8]>::to_vec).map_err(|r| r.rejected)
            }
            Layers::C2OverC3 => {
                let inner = Inner::parse(one(&self.c2.peer, &message, &mut out)?, Within::Request)?;
                let kid = self.c3.peer.recipient_id();
                let message = inner.request(piv, bctx.as_ref(), wants, &kid).unwrap();
                let mut out = [0; 256];
                let plaintext = one(&self.c3.peer, &message, &mut out)?;
                judge_tiny_request::<E3>(plaintext).map(<[u8]>::to_vec).map_err(|r| r.rejected)
            }
        }
    }
}

/// Lookup and opening of one level, without state.
fn one<'b, L: OscoreLevel>(
    context: &Context<L>,
    message: &Protected<'_>,
    out: &'b mut [u8],
) -> Result<&'b [u8], Rejected> {
    if message.option.kid != Some(context.recipient_id().as_bytes()) {
        return Err(Rejected::new(L::UNKNOWN_KID, "unknown kid"));
    }
    if message.option.kid_context.is_some() {
        return Err(Rejected::new(L::NO_CONTEXT, "no context for this boot id"));
    }
    Ok(context.open_request(message.option.piv.unwrap(), message.ciphertext, out)?.plaintext())
}

#[test]
fn malformed_tiny_frames_are_refused_with_the_stated_code() {
    let book = read("oscore-own.json");
    let receiver = Receiver::of(&book);
    for case in cases(&book, "malformed_tiny") {
        let verdict = receiver.tiny(&bytes(case, "tiny"), kid_length(case), id(&bytes(case, "link_kid")));
        let rejected = verdict.expect_err(text(case, "id"));
        assert_eq!(rejected.code.as_str(), text(case, "code"), "{}: {rejected}", text(case, "id"));
        // What the parser finds is found before any key is asked for.
        let at_parsing = Tiny::parse(&bytes(case, "tiny"), kid_length(case)).is_err();
        let stage = text(case, "stage");
        assert_eq!(at_parsing, stage == "decompress" || stage == "device", "{}", text(case, "id"));
    }
    for case in cases(&book, "tiny_still_valid") {
        let verdict = receiver.tiny(&bytes(case, "tiny"), kid_length(case), id(&bytes(case, "link_kid")));
        assert_eq!(verdict, Ok(bytes(case, "payload")), "{}", text(case, "id"));
    }
}

#[test]
fn malformed_oscore_messages_are_refused_with_the_stated_code() {
    let book = read("oscore-own.json");
    let receiver = Receiver::of(&book);
    for case in cases(&book, "malformed_oscore") {
        assert_eq!(text(case, "context"), "C3-11");
        let message = bytes(case, "coap");
        let mut out = [0; 256];
        let verdict = Protected::parse_request(&message, Outer::Strict)
            .and_then(|m| one(&receiver.c3.peer, &m, &mut out))
            .map(<[u8]>::to_vec);
        let rejected = verdict.expect_err(text(case, "id"));
        assert_eq!(rejected.code.as_str(), text(case, "code"), "{}: {rejected}", text(case, "id"));
    }
}

#[test]
fn v1_to_v6_of_the_protocol() {
    let book = read("oscore-own.json");
    let receiver = Receiver::of(&book);
    let h = |t: &str| hex::decode(t).unwrap();
    let application = h("840118d7182d1825");
    let sid = id(&[0x0a, 0x17]);
    let mut out = [0; 64];

    let v1 = h("5002012c950a012c0a17ff6b2efbb9e120be077d6dc0b1d4d9f5301d38");
    let message = Protected::parse_request(&v1, Outer::Strict).unwrap();
    assert_eq!(one(&receiver.c3.peer, &message, &mut out).unwrap(), h("02ff840118d7182d1825"));
    for (v, k) in [
        ("22012c6b2efbb9e120be077d6dc0b1d4d9f5301d38", KidLength::None),
        ("26012c0a176b2efbb9e120be077d6dc0b1d4d9f5301d38", KidLength::Two),
        ("32012c6ed4bf869537adb6f2436110257e64c8a9970f44bf07a941f21441", KidLength::None),
    ] {
        assert_eq!(receiver.tiny(&h(v), k, sid).unwrap(), application);
    }
    let v3 = h("26012c0a176b2efbb9e120be077d6dc0b1d4d9f5301d38");
    let len = Tiny::parse(&v3, KidLength::Two).unwrap().expand(None, &mut out).unwrap();
    assert_eq!(out[..len], h("4102012c2c950a012c0a17ff6b2efbb9e120be077d6dc0b1d4d9f5301d38"));

    let v5 = h("012cbf7d614f50a9a7d2ad");
    let Ok(Tiny::Answer { layers: Layers::C3, token: 0x2c, piv: None, ciphertext }) = Tiny::parse(&v5, KidLength::None)
    else {
        panic!("V5")
    };
    let to = RequestId { kid: sid, piv: PartialIv::from_value(300) };
    assert_eq!(receiver.c3.device.open_answer(&to, None, ciphertext, &mut out).unwrap().plaintext(), [0x44]);

    let v6 = h("200100a1a2a3a4a5a6a7a8b113ce335093be12eeeb53b4d292e6d86a15");
    let Ok(Tiny::Request { bctx: Some(bctx), piv, ciphertext, .. }) = Tiny::parse(&v6, KidLength::None) else {
        panic!("V6")
    };
    let salt = h("9e7ca92223786340");
    let secret: Vec<u8> = (0..32).collect();
    let cloud = fivefold_core::e3_cloud::E3Secret::new(&secret, &salt)
        .unwrap()
        .context_for_peer(fivefold_core::id::Sid(0x0a17), fivefold_core::id::Epoch(5), Some(bctx), Alg::AesCcm16_64_256)
        .unwrap();
    assert_eq!(cloud.open_request(piv, ciphertext, &mut out).unwrap().plaintext()[2..], application);
    assert_eq!((bctx.0, piv.value()), ([0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8], 0));
}

#[test]
fn every_flipped_bit_of_a_ciphertext_is_forged() {
    let book = read("oscore-own.json");
    let receiver = Receiver::of(&book);
    let sealed = hex::decode("6b2efbb9e120be077d6dc0b1d4d9f5301d38").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut out = [0xAA; 64];
        let no = receiver.c3.peer.open_request(PartialIv::from_value(300), &flipped, &mut out).unwrap_err();
        assert_eq!(no.code.as_str(), "E3-03");
        assert!(out[..10].iter().all(|b| *b == 0), "plaintext of a forgery was left behind");
    }
}

#[test]
fn numbers_end_at_two_to_the_twenty_on_both_sides() {
    let book = read("oscore-own.json");
    let Receiver { c3, .. } = Receiver::of(&book);
    let mut out = [0; 64];
    let limit = u64::from(NUMBER_LIMIT);
    assert!(c3.device.seal_request(counter(limit - 1), b"\x02\xffx", &mut out).is_ok());
    assert!(c3.device.seal_request(counter(limit), b"\x02\xffx", &mut out).is_err());
    let above = c3.peer.open_request(PartialIv::from_value(NUMBER_LIMIT + 1), &[0; 20], &mut out).unwrap_err();
    assert_eq!(above.code.as_str(), "E3-09");
    let at = c3.peer.open_request(PartialIv::from_value(NUMBER_LIMIT), &[0; 20], &mut out).unwrap_err();
    assert_eq!(at.code.as_str(), "E3-03");
}

#[test]
fn an_answer_to_another_request_does_not_open() {
    let book = read("oscore-own.json");
    let Receiver { c3, .. } = Receiver::of(&book);
    let to = RequestId { kid: c3.device.sender_id(), piv: PartialIv::from_value(7) };
    let other = RequestId { piv: PartialIv::from_value(8), ..to };
    let mut sealed = [0; 64];
    let own = AnswerNumber::Own(counter(3));
    let len = c3.peer.seal_answer(&to, own, b"\x44", &mut sealed).unwrap();
    let (piv, mut out) = (Some(PartialIv::from_value(3)), [0; 64]);
    assert!(c3.device.open_answer(&to, piv, &sealed[..len], &mut out).is_ok());
    assert!(c3.device.open_answer(&other, piv, &sealed[..len], &mut out).is_err());
    assert!(c3.device.open_answer(&to, None, &sealed[..len], &mut out).is_err());
    // The right to answer one request without a number is no right for another, nor for one of our own.
    let right = once(&c3.device, &c3.peer, &to);
    assert!(c3.peer.seal_answer(&other, AnswerNumber::Unnumbered(right), b"\x44", &mut sealed).is_err());
    let ours = RequestId { kid: c3.peer.sender_id(), ..to };
    assert!(c3.peer.seal_answer(&ours, AnswerNumber::Own(counter(4)), b"\x44", &mut sealed).is_err());
}

#[test]
fn inner_options_are_judged_as_section_5_says() {
    // [options ‖ FF payload] after the code, and the answer code; 0 is "taken".
    let cases: &[(&str, &str, u8)] = &[
        ("root", "02ff01", 0),
        ("Uri-Path r", "02b172ff01", 0),
        ("r, Content-Format 112, query, Accept", "02b17211703161 2170ff01", 0),
        ("Content-Format 60", "02c13cff01", 0),
        ("Content-Format 42", "02c12aff01", 0),
        ("Content-Format 0 (text)", "02c0ff01", 0x8F),
        ("elective Observe", "0260ff01", 0),
        ("elective No-Response, number 258", "02d1f502ff01", 0),
        ("critical Uri-Host inside", "023161ff01", 0x82),
        ("critical option 13", "02d000ff01", 0x82),
        ("path x", "02b178ff01", 0x84),
        ("path r/x", "02b1720178ff01", 0x84),
        ("path of one empty segment", "02b0ff01", 0x84),
        ("GET", "01", 0x85),
        ("PUT", "03ff01", 0x85),
        ("GET of another path", "01b178", 0x84),
        ("no payload", "02", 0x80),
        ("marker, no payload", "02ff", 0x80),
        ("cut option", "02b5", 0x80),
        ("nothing", "", 0x80),
    ];
    for (name, plaintext, expected) in cases {
        let plaintext = hex::decode(plaintext.replace(' ', "")).unwrap();
        match judge_request::<E3>(&plaintext) {
            Ok(InnerRequest::Payload(payload)) => assert_eq!((payload, *expected), (&[1][..], 0), "{name}"),
            Ok(nested) => panic!("{name}: {nested:?}"),
            Err(refused) => {
                assert_eq!(refused.answer_code, *expected, "{name}: {}", refused.rejected);
                assert_eq!(refused.rejected.code.as_str(), "E3-07");
                assert_eq!(judge_request::<E2>(&plaintext).unwrap_err().rejected.code.as_str(), "E2-07", "{name}");
            }
        }
    }
}

#[test]
fn outer_options_of_stock_clients_are_skipped_and_ours_have_none() {
    // Uri-Host "h", Uri-Port 5683, OSCORE, elective 258 (No-Response).
    let ciphertext = [7; 9];
    let mut options = [0; 64];
    let mut at = 0;
    let mut last = 0;
    for (n, value) in [(3u16, &b"h"[..]), (7, &[0x16, 0x33]), (9, &[0x09, 5, 0x0a, 0x17]), (258, &[2])] {
        at += fivefold_core::wire::coap::emit_option(&mut options[at..], last, n, value).unwrap();
        last = n;
    }
    let all = Options::new(&options[..at]).count();
    assert_eq!(all, 4);
    let message = Message {
        kind: Type::Con,
        code: 2,
        message_id: 9,
        token: Token::from(1),
        options: &options[..at],
        payload: &ciphertext,
    };
    let mut out = [0; 64];
    let len = message.emit(&mut out).unwrap();
    assert!(Protected::parse_request(&out[..len], Outer::Strict).is_err());
    let taken = Protected::parse_request(&out[..len], Outer::StockClient).unwrap();
    assert_eq!(taken.option.kid, Some(&[0x0a, 0x17][..]));
    let mut forwarded = [0; 64];
    let len = taken.emit(&mut forwarded).unwrap();
    let again = Message::parse(&forwarded[..len]).unwrap();
    assert_eq!(again.options().collect::<Vec<_>>(), [(9, &[0x09, 5, 0x0a, 0x17][..])]);

    // FETCH (observing), Uri-Path outside, ACK: none is taken.
    for (code, kind, options) in [
        (5, Type::Con, &options[..at]),
        (2, Type::Con, &[0x94, 9, 5, 0x0a, 0x17, 0x21, b'r']),
        (2, Type::Ack, &options[..at]),
    ] {
        let len = Message { code, kind, options, ..message }.emit(&mut out).unwrap();
        let no = Protected::parse_request(&out[..len], Outer::StockClient).unwrap_err();
        assert_eq!(no.code.as_str(), "T-01");
    }
}
