//! Runs of EDHOC against the cloud's engine, with core's own device as the other side.

use fivefold_cloud::cloud::{Agreement, Outcome};
use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, Message, PeerKid, PqMix, WaitM2, WaitM4};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::sha256;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_keep::registry::{Device, FirstContexts, Renewal};
use fivefold_keep::sign::AgreementKey;

use super::{CLOUD, Gateway, NET, NOW, Node, World};

pub fn scalar(n: u16) -> AgreementKey {
    AgreementKey::from_random(&sha256(&[b"device", &n.to_be_bytes()])).unwrap()
}

pub fn renewal(d: &Device) -> Renewal {
    Renewal {
        did: d.did,
        x: scalar(d.sid.0).public_x(),
        first: FirstContexts::Installed,
        highest: d.epoch,
        agreed_at: None,
        ordered_at: None,
    }
}

/// The device's end of one run.
pub struct Run<S> {
    pub state: Initiator<E3, S>,
    pub message: Message,
    sid: u16,
}

/// A run under an ephemeral key of its own.
pub fn offer(sid: u16, epoch: u16, nonce: u8) -> Run<WaitM2<AgreementKey>> {
    let ephemeral = sha256(&[b"ephemeral", &sid.to_be_bytes(), &epoch.to_be_bytes(), &[nonce]]);
    let ephemeral = AgreementKey::from_random(&ephemeral).unwrap();
    let (state, message) = Initiator::offer(ephemeral, Sid(sid), Epoch(epoch), Announce::Nothing).unwrap();
    Run { state, message, sid }
}

pub fn cloud_credential() -> Credential<'static> {
    let key = AgreementKey::from_random(&CLOUD).unwrap();
    Credential::peer(PeerKid::new(5).unwrap(), key.public_x())
}

impl Run<WaitM2<AgreementKey>> {
    pub fn take(self, m2: &[u8]) -> Run<WaitM4> {
        let key = scalar(self.sid);
        let credential = Credential::device(Sid(self.sid), key.public_x());
        self.take_as(m2, &key, &credential)
    }

    pub fn take_as(self, m2: &[u8], key: &AgreementKey, credential: &Credential<'_>) -> Run<WaitM4> {
        let own = Identity { key, credential };
        let (state, message) = self.state.handle_message_2(m2, &own, &cloud_credential()).unwrap();
        Run { state, message, sid: self.sid }
    }
}

impl Run<WaitM4> {
    /// The device's end of the new C3.
    pub fn end(self, m4: &[u8], d: &Device) -> Node {
        let agreed = self.state.handle_message_4(m4).unwrap();
        let epoch = agreed.epoch().unwrap();
        let mix = d.policy.pq_mix.then(|| PqMix::new(&[9; 32], d.did));
        let secrets = agreed.secrets(d.policy.alg, mix.as_ref());
        let context = secrets.e3.context_for_device(d.sid, epoch, None, d.policy.alg).unwrap();
        let mut lease = Lease::resume(0, 1 << 20);
        lease.extend(1 << 20);
        Node { sid: d.sid, context, lease, bctx: None }
    }
}

pub fn envelope(sid: u16, payload: &[u8]) -> Envelope<'_> {
    Envelope {
        seq: 9,
        received: NOW,
        kind: Kind::Edhoc,
        bytes: payload,
        originator: Originator::Node { net: NET, sid: Sid(sid) },
        rssi: None,
        lqi: None,
        opened: None,
        link: LinkClass::MacCcm,
        hops: None,
        key_index: Some(1),
    }
}

pub fn body(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut out = vec![0; envelope.bytes.len() + 128];
    let len = envelope.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

/// What became of a message of a device.
pub enum Said {
    Agreed(Box<Agreement>),
    Message(Vec<u8>),
    Nothing,
}

impl Said {
    pub fn message(self) -> Vec<u8> {
        match self {
            Self::Message(bytes) => bytes,
            _ => panic!("no message"),
        }
    }
}

/// As far as the engine goes by itself: what it counts is written, nothing else.
pub fn ask(w: &World, sid: u16, payload: &[u8]) -> Said {
    ask_by(w, &w.gateway, sid, payload)
}

pub fn ask_by(w: &World, gateway: &Gateway, sid: u16, payload: &[u8]) -> Said {
    let bytes = body(&envelope(sid, payload));
    let ephemeral = sha256(&[b"cloud", payload, &w.now.0.to_be_bytes()]);
    let exchange = w.cloud.exchange(&gateway.proven, &bytes, &ephemeral, w.now).unwrap();
    w.cloud.memory().store().commit_now(exchange.write).unwrap();
    match exchange.outcome {
        Outcome::Agree(agreement) => Said::Agreed(agreement),
        Outcome::Answer(m) | Outcome::Repeat { m4: m, .. } => Said::Message(m.as_bytes().to_vec()),
        Outcome::Nothing => Said::Nothing,
    }
}

/// Notes, writes and takes in use.
pub fn conclude(w: &mut World, agreement: &Agreement) -> Vec<u8> {
    let (did, epoch) = agreement.noted();
    w.source.renewals.iter_mut().find(|r| r.did == did).unwrap().highest = epoch;
    let write = agreement.write(w.vault.as_ref().unwrap()).unwrap();
    w.cloud.memory().store().commit_now(write).unwrap();
    w.cloud.agreed(agreement).unwrap().as_bytes().to_vec()
}

/// A run up to message_3.
pub fn proof(w: &World, epoch: u16, nonce: u8) -> Run<WaitM4> {
    let run = offer(0x0a17, epoch, nonce);
    let m2 = ask(w, 0x0a17, run.message.as_bytes()).message();
    run.take(&m2)
}

/// A whole run.
pub fn renew(w: &mut World, epoch: u16) -> Node {
    let d = w.source.devices[0].clone();
    let run = proof(w, epoch, 0);
    let Said::Agreed(agreement) = ask(w, 0x0a17, run.message.as_bytes()) else { panic!("nothing was agreed") };
    let m4 = conclude(w, &agreement);
    run.end(&m4, &d)
}
