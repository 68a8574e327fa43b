//! HELLO (docs/protocol.md 4.1): two neighbours prove to each other that their frame counters are fresh.
//!
//! Nothing here changes a neighbour but the echo of a nonce that we drew less than five seconds ago. What a replayed
//! HELLO can make us do is bounded per claimed EUI-64 and in total, and a part of the total is kept for those we know.

use super::keys::Generation;
use super::neighbour::{Neighbours, Rate, Registration, may_bind};
use crate::error::{Code, Rejected};
use crate::id::{Did, Sid};
use crate::suite::hmac_sha256;
use crate::time::Millis;
use zeroize::Zeroize;

/// RuleID of E1 control messages.
pub const RULE: u8 = 0x13;
/// Largest control message in bytes.
pub const LONGEST: usize = 21;
/// How long a nonce of ours is good, in milliseconds.
pub const NONCE_LIFE: u64 = 5_000;
/// Answers to one claimed EUI-64 in a minute.
pub const ANSWERS_A_MINUTE: u8 = 4;
/// Beside those, HELLOs answered a minute that may be recordings: not counted on from what was heard before.
const RECORDINGS_A_MINUTE: u8 = 1;
/// Answers wait up to this long, in milliseconds.
const JITTER: u64 = 1_000;
/// Pauses between our own HELLOs, in milliseconds, while one is wanted.
const PAUSES: [u64; 6] = [2_000, 4_000, 8_000, 15_000, 30_000, 60_000];

/// The body of an E1 control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `13 02`: the answer to a HELLO.
    Ack {
        /// Nonce of the HELLO.
        nonce_a: [u8; 8],
        /// Nonce of the answering side.
        nonce_b: [u8; 8],
        /// Short address of the sender.
        sid: Sid,
        /// Key index that the sender sends under.
        key_index: u8,
    },
    /// `13 03`: the end of the exchange.
    Fin {
        /// Nonce of the answer.
        nonce_b: [u8; 8],
    },
    /// `13 01`: broadcast at boot, or when counters must be synced again.
    Hello {
        /// Nonce of the asking side.
        nonce_a: [u8; 8],
        /// Short address of the sender.
        sid: Sid,
        /// Key index that the sender sends under.
        key_index: u8,
    },
    /// `13 04`: the sender sends under this key index from now on.
    KeySwitch {
        /// Key index.
        key_index: u8,
    },
}

impl Control {
    /// Reads an exact control message.
    ///
    /// # Errors
    /// `E1-11` for anything else: it stands under a 64-bit source, where nothing else may.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejected> {
        match *bytes {
            [RULE, 1, ref rest @ ..] => {
                let (nonce_a, tail) = rest.split_first_chunk::<8>().ok_or(NO_HELLO)?;
                let &[s1, s2, key_index] = tail else { return Err(NO_HELLO) };
                Ok(Self::Hello { nonce_a: *nonce_a, sid: Sid::from_bytes([s1, s2]), key_index })
            }
            [RULE, 2, ref rest @ ..] => {
                let (nonce_a, rest) = rest.split_first_chunk::<8>().ok_or(NO_HELLO)?;
                let (nonce_b, tail) = rest.split_first_chunk::<8>().ok_or(NO_HELLO)?;
                let &[s1, s2, key_index] = tail else { return Err(NO_HELLO) };
                Ok(Self::Ack { nonce_a: *nonce_a, nonce_b: *nonce_b, sid: Sid::from_bytes([s1, s2]), key_index })
            }
            [RULE, 3, ref rest @ ..] => Ok(Self::Fin { nonce_b: rest.try_into().map_err(|_| NO_HELLO)? }),
            [RULE, 4, key_index] => Ok(Self::KeySwitch { key_index }),
            _ => Err(NO_HELLO),
        }
    }

    /// Writes the message and returns it.
    pub fn emit(self, out: &mut [u8; LONGEST]) -> &[u8] {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            for &b in bytes {
                if let Some(slot) = out.get_mut(at) {
                    *slot = b;
                    at += 1;
                }
            }
        };
        match self {
            Self::Hello { nonce_a, sid, key_index } => {
                put(&[RULE, 1]);
                put(&nonce_a);
                put(&sid.to_bytes());
                put(&[key_index]);
            }
            Self::Ack { nonce_a, nonce_b, sid, key_index } => {
                put(&[RULE, 2]);
                put(&nonce_a);
                put(&nonce_b);
                put(&sid.to_bytes());
                put(&[key_index]);
            }
            Self::Fin { nonce_b } => {
                put(&[RULE, 3]);
                put(&nonce_b);
            }
            Self::KeySwitch { key_index } => put(&[RULE, 4, key_index]),
        }
        out.get(..at).unwrap_or_default()
    }
}

const NO_HELLO: Rejected = Rejected::new(Code::LinkMalformed, "no control message under a 64-bit source address");
const NOT_ANSWERED: Rejected = Rejected::new(Code::LinkNeighbourUnknown, "more HELLOs than are answered");
const NO_ECHO: Rejected = Rejected::new(Code::LinkNeighbourUnknown, "echoes no fresh nonce of ours");

/// What waits to be sent, or to be echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// HELLO-ACK, to be sent.
    AckDue,
    /// HELLO-ACK was sent.
    AckSent,
    /// HELLO-FIN, to be sent.
    FinDue,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    did: Did,
    sid: Sid,
    /// The nonce to echo; once HELLO-ACK was sent, our own that is to be echoed.
    nonce: [u8; 8],
    step: Step,
    /// When it is to be sent; once HELLO-ACK was sent, until when its nonce is good.
    at: Millis,
    known: bool,
    /// Key of the frame that is answered: whoever sent it has no other for certain.
    key: Generation,
    /// Frame counter of the HELLO that is answered. Under another key it may say "behind" of one that is not: that one is
    /// sent again, and by then this exchange is over.
    heard: u32,
}

/// Which HELLO of ours goes out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Said again and again until somebody answers.
    Often,
    /// Said once, and not again until somebody answers.
    Once,
    /// Said whoever is synced before: somebody new is to hear it.
    Promised,
}

/// A message that is due, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) message: Control,
    pub(super) to: Option<(Did, Sid)>,
    /// The key of what it answers.
    pub(super) answers: Option<Generation>,
}

/// Our side of all exchanges, at most `N` at a time.
pub(super) struct Greetings<const N: usize> {
    seed: [u8; 32],
    drawn: u64,
    /// Our own HELLO: its nonce, its number, and until when an echo counts.
    asked: Option<([u8; 8], Millis)>,
    number: u16,
    /// When our next HELLO is due, if one is wanted.
    wanted: Option<Millis>,
    said: Said,
    pause: u8,
    last_asked: Option<Millis>,
    exchanges: [Option<Exchange>; N],
    strangers: [Option<Stranger>; N],
}

impl<const N: usize> Greetings<N> {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            drawn: 0,
            asked: None,
            number: 0,
            wanted: Some(Millis(0)),
            said: Said::Often,
            pause: 0,
            last_asked: None,
            exchanges: [None; N],
            strangers: [None; N],
        }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        hmac_sha256(&self.seed, &[b"hello", &self.drawn.to_be_bytes()])
    }

    fn nonce(&mut self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.draw();
        [a, b, c, d, e, f, g, h]
    }

    /// Where the MAC's sequence number starts: anywhere (IEEE 802.15.4-2006 7.5.1.1, macDSN).
    pub(super) fn first_sequence(&mut self) -> u8 {
        let [first, ..] = self.draw();
        first
    }

    fn jitter(&mut self) -> u64 {
        let [a, b, c, d, ..] = self.draw();
        u64::from(u32::from_be_bytes([a, b, c, d])) % (JITTER + 1)
    }

    /// Wants a HELLO of ours soon, unless one went out less than a minute ago: what asks for it may be forged.
    pub(super) fn want(&mut self, now: Millis) {
        if self.wanted.is_none() {
            let earliest = self.last_asked.map_or(now, |at| at.plus(60_000).max(now));
            self.wanted = Some(earliest.plus(self.jitter()));
            self.pause = 0;
        }
        if self.said == Said::Once {
            self.said = Said::Often;
        }
    }

    /// Wants one HELLO of ours, unless one went out less than a minute ago or is wanted already.
    pub(super) fn want_one(&mut self, now: Millis) {
        if self.wanted.is_none() {
            self.want(now);
            self.said = Said::Once;
        }
    }

    /// Wants a HELLO of ours soon, even if one went out just now, and whoever answers that one.
    pub(super) fn greet(&mut self, now: Millis) {
        self.wanted = Some(now.plus(self.jitter()));
        self.said = Said::Promised;
        self.pause = 0;
    }

    /// The HELLO whose nonce is good now, to be said once more by another air.
    pub(super) fn asked_now(&self, now: Millis, sid: Sid, key_index: u8) -> Option<Control> {
        let (nonce_a, _) = self.asked.filter(|(_, until)| now <= *until)?;
        Some(Control::Hello { nonce_a, sid, key_index })
    }

    /// Somebody answered the HELLO that went out last: no further one is wanted, but for one that was promised since.
    fn content(&mut self) {
        if self.said != Said::Promised {
            self.wanted = None;
        }
        self.pause = 0;
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    /// A HELLO that passed CCM*: an answer is put in line if the budget allows.
    ///
    /// Whoever recorded it can send it again. Behind the HELLO that is being answered it is ignored; behind what the
    /// neighbour was heard to count, it has a budget of its own: recordings of somebody do not use up his own budget, and
    /// one who lost his counters is answered still.
    pub(super) fn asked_by<T: Neighbours>(
        &mut self,
        now: Millis,
        table: &mut T,
        did: Did,
        sid: Sid,
        nonce_a: [u8; 8],
        heard: (Generation, u32),
    ) -> Result<(), Rejected> {
        let registration = may_bind(table, did, sid)?;
        let (key, counter) = heard;
        let is_behind = |e: &Exchange| {
            let answering = match e.step {
                Step::AckDue => true,
                Step::AckSent => now <= e.at,
                Step::FinDue => false,
            };
            e.did == did && answering && counter <= e.heard
        };
        if self.exchanges.iter().flatten().any(is_behind) {
            return Err(NOT_ANSWERED);
        }
        let minute = u32::try_from(now.0 / 60_000).unwrap_or(u32::MAX);
        let (rate, known, recorded) = match table.by_did(did) {
            Some(n) => {
                let recorded = n.last(key).is_some_and(|last| counter <= last);
                (n.rate_mut(), true, recorded)
            }
            None => {
                let known = registration == Registration::Registered;
                let stranger = stranger(&mut self.strangers, did, minute, known).ok_or(NOT_ANSWERED)?;
                let recorded = stranger.heard.is_some_and(|furthest| counter <= furthest);
                if !recorded {
                    stranger.heard = Some(counter);
                }
                (&mut stranger.rate, known, recorded)
            }
        };
        if rate.minute != minute {
            *rate = Rate { minute, ..Rate::default() };
        }
        let (used, budget) =
            if recorded { (&mut rate.recorded, RECORDINGS_A_MINUTE) } else { (&mut rate.answers, ANSWERS_A_MINUTE) };
        if *used >= budget {
            return Err(NOT_ANSWERED);
        }
        *used += 1;
        let at = now.plus(self.jitter());
        self.line_up(now, Exchange { did, sid, nonce: nonce_a, step: Step::AckDue, at, known, key, heard: counter })
    }

    /// A HELLO-ACK that passed CCM*: it must echo our HELLO. A FIN is put in line.
    pub(super) fn acked_by(
        &mut self,
        now: Millis,
        did: Did,
        sid: Sid,
        (nonce_a, nonce_b): (&[u8; 8], [u8; 8]),
        key: Generation,
    ) -> Result<(), Rejected> {
        match &self.asked {
            Some((nonce, until)) if nonce == nonce_a && now <= *until => {}
            _ => return Err(NO_ECHO),
        }
        let (at, step) = (now.plus(self.jitter()), Step::FinDue);
        // Without room for the FIN the other side does not sync, and asks by a HELLO of its own.
        let _ = self.line_up(now, Exchange { did, sid, nonce: nonce_b, step, at, known: true, key, heard: 0 });
        self.content();
        Ok(())
    }

    /// A HELLO-FIN that passed CCM*: it must echo the nonce of our HELLO-ACK to that EUI-64. Returns the short address
    /// that its HELLO claimed. The nonce counts once.
    pub(super) fn finished_by(&mut self, now: Millis, did: Did, nonce_b: &[u8; 8]) -> Result<Sid, Rejected> {
        let ours = |e: &Exchange| e.did == did && e.step == Step::AckSent && e.nonce == *nonce_b && now <= e.at;
        let slot = self.exchanges.iter_mut().find(|e| e.as_ref().is_some_and(ours)).ok_or(NO_ECHO)?;
        let exchange = slot.take().ok_or(NO_ECHO)?;
        Ok(exchange.sid)
    }

    fn line_up(&mut self, now: Millis, new: Exchange) -> Result<(), Rejected> {
        let same = |e: &Exchange| e.did == new.did && (e.step == Step::FinDue) == (new.step == Step::FinDue);
        let over = |e: &Exchange| e.step == Step::AckSent && now > e.at;
        // One exchange a device and direction; half of the places are kept for those who are known.
        let at = self.exchanges.iter().position(|e| e.as_ref().is_some_and(same));
        let free = || self.exchanges.iter().position(|e| e.as_ref().is_none_or(over));
        let strangers = self.exchanges.iter().flatten().filter(|e| !e.known && !over(e)).count();
        let may_add = new.known || strangers < N.div_ceil(2);
        let at = at.or_else(|| if may_add { free() } else { None });
        let slot = at.and_then(|at| self.exchanges.get_mut(at)).ok_or(NOT_ANSWERED)?;
        *slot = Some(new);
        Ok(())
    }

    /// When [`Self::take_due`] has something.
    pub(super) fn next(&self) -> Option<Millis> {
        let answers = self.exchanges.iter().flatten().filter(|e| e.step != Step::AckSent).map(|e| e.at);
        answers.chain(self.wanted).min()
    }

    /// The next message that is due. It is taken as sent.
    pub(super) fn take_due(&mut self, now: Millis, sid: Sid, key_index: u8) -> Option<Due> {
        if self.wanted.is_some_and(|at| at <= now) {
            let nonce_a = self.nonce();
            let pause = PAUSES.get(usize::from(self.pause)).or(PAUSES.last()).copied().unwrap_or(JITTER);
            self.pause = self.pause.saturating_add(1);
            self.wanted = Some(now.plus(pause + self.jitter())).filter(|_| self.said != Said::Once);
            self.said = Said::Often;
            self.asked = Some((nonce_a, now.plus(NONCE_LIFE)));
            self.number = self.number.wrapping_add(1);
            self.last_asked = Some(now);
            return Some(Due { message: Control::Hello { nonce_a, sid, key_index }, to: None, answers: None });
        }
        let due = |e: &Exchange| e.step != Step::AckSent && e.at <= now;
        let at = self.exchanges.iter().position(|e| e.as_ref().is_some_and(due))?;
        let fresh = self.nonce();
        let slot = self.exchanges.get_mut(at)?;
        let exchange = (*slot)?;
        let (to, answers) = (Some((exchange.did, exchange.sid)), Some(exchange.key));
        if exchange.step == Step::FinDue {
            *slot = None;
            return Some(Due { message: Control::Fin { nonce_b: exchange.nonce }, to, answers });
        }
        *slot = Some(Exchange { nonce: fresh, step: Step::AckSent, at: now.plus(NONCE_LIFE), ..exchange });
        let message = Control::Ack { nonce_a: exchange.nonce, nonce_b: fresh, sid, key_index };
        Some(Due { message, to, answers })
    }
}

impl<const N: usize> Drop for Greetings<N> {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// Somebody who is in no table.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    did: Did,
    rate: Rate,
    /// Frame counter of the furthest HELLO so far, under any key.
    heard: Option<u32>,
}

/// The budget of somebody who is in no table; those unknown to the registry share one half of the places.
fn stranger<const N: usize>(
    places: &mut [Option<Stranger>; N],
    did: Did,
    minute: u32,
    known: bool,
) -> Option<&mut Stranger> {
    let half = if known { N } else { N.div_ceil(2) };
    let places = places.get_mut(..half)?;
    let at = places.iter().position(|p| p.as_ref().is_some_and(|s| s.did == did));
    let at = at.or_else(|| places.iter().position(|p| p.as_ref().is_none_or(|s| s.rate.minute != minute)))?;
    let place = places.get_mut(at)?;
    if place.as_ref().is_none_or(|s| s.did != did) {
        *place = Some(Stranger { did, rate: Rate { minute, ..Rate::default() }, heard: None });
    }
    place.as_mut()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::neighbour::{FixedNeighbours, Neighbour};
    use super::*;
    use proptest::prelude::*;

    const ME: Sid = Sid(1);

    fn did(n: u16) -> Did {
        let [a, b] = n.to_be_bytes();
        Did([0xac, 0, 0, 0, 0, 0, a, b])
    }

    fn at(counter: u32) -> (Generation, u32) {
        (Generation(1), counter)
    }

    #[test]
    fn recordings_of_somebody_do_not_use_up_his_own_budget() {
        for known in [true, false] {
            let mut g = Greetings::<8>::new([7; 32]);
            let mut table = FixedNeighbours::<4>::new();
            if known {
                let mut n = Neighbour::unsynced(did(1), Sid(7));
                n.store(Generation(1), 500);
                table.put(n).unwrap();
            }
            // What he said in earlier lives, from the beginning to the end, again and again.
            for now in 0..120_000u64 {
                let said = (now % 40) as u32 * 10;
                let _ = g.asked_by(Millis(now), &mut table, did(1), Sid(7), [said as u8; 8], at(said));
            }
            assert_eq!(g.asked_by(Millis(120_001), &mut table, did(1), Sid(7), [1; 8], at(600)), Ok(()));
            // Nor do they take the place of the one that is being answered, this one's own copy included.
            for said in [0, 390, 600] {
                let again = g.asked_by(Millis(120_002), &mut table, did(1), Sid(7), [9; 8], at(said));
                assert_eq!(again, Err(NOT_ANSWERED), "{said}");
            }
            let due = core::iter::from_fn(|| g.take_due(Millis(121_500), ME, 1));
            assert!(due.into_iter().any(|d| matches!(d.message, Control::Ack { nonce_a, .. } if nonce_a == [1; 8])));
        }
    }

    #[test]
    fn a_flood_of_replayed_hellos_starves_no_neighbour() {
        let mut g = Greetings::<8>::new([7; 32]);
        let mut table = FixedNeighbours::<4>::new();
        table.put(Neighbour::unsynced(did(1), Sid(0x11))).unwrap();
        for n in 0..500u16 {
            let _ = g.asked_by(Millis(10), &mut table, did(100 + n), Sid(100 + n), [1; 8], at(1));
        }
        assert_eq!(g.asked_by(Millis(10), &mut table, did(9999), Sid(9), [1; 8], at(1)), Err(NOT_ANSWERED));
        assert_eq!(g.asked_by(Millis(11), &mut table, did(1), Sid(0x11), [2; 8], at(1)), Ok(()));
    }

    #[test]
    fn one_device_is_answered_four_times_a_minute() {
        let mut g = Greetings::<8>::new([7; 32]);
        let mut table = FixedNeighbours::<4>::new();
        for t in 0..4 {
            assert_eq!(g.asked_by(Millis(t), &mut table, did(1), Sid(7), [t as u8; 8], at(t as u32)), Ok(()));
        }
        assert_eq!(g.asked_by(Millis(5), &mut table, did(1), Sid(7), [9; 8], at(9)), Err(NOT_ANSWERED));
        assert_eq!(g.asked_by(Millis(60_000), &mut table, did(1), Sid(7), [9; 8], at(10)), Ok(()));
    }

    #[test]
    fn an_answer_waits_at_most_a_second_and_its_nonce_lives_five() {
        let mut g = Greetings::<8>::new([7; 32]);
        g.content();
        let mut table = FixedNeighbours::<4>::new();
        g.asked_by(Millis(1000), &mut table, did(1), Sid(7), [1; 8], at(1)).unwrap();
        let at = g.next().unwrap();
        assert!((1000..=2000).contains(&at.0));
        assert_eq!(g.take_due(Millis(at.0 - 1), ME, 1), None);
        let Some(Due { message: Control::Ack { nonce_a, nonce_b, .. }, to, .. }) = g.take_due(at, ME, 1) else {
            panic!()
        };
        assert_eq!((nonce_a, to), ([1; 8], Some((did(1), Sid(7)))));
        assert_eq!(g.finished_by(at.plus(5_001), did(1), &nonce_b), Err(NO_ECHO));
        assert_eq!(g.finished_by(at, did(2), &nonce_b), Err(NO_ECHO));
        assert_eq!(g.finished_by(at.plus(5_000), did(1), &nonce_b), Ok(Sid(7)));
        assert_eq!(g.finished_by(at.plus(5_000), did(1), &nonce_b), Err(NO_ECHO));
    }

    #[test]
    fn a_hello_that_was_promised_goes_out_although_an_earlier_one_was_answered() {
        let mut g = Greetings::<8>::new([7; 32]);
        let Some(Due { message: Control::Hello { nonce_a, .. }, .. }) = g.take_due(Millis(0), ME, 1) else { panic!() };
        // Somebody was registered meanwhile, and what he said before was not heard.
        g.greet(Millis(100));
        g.acked_by(Millis(200), did(1), Sid(7), (&nonce_a, [2; 8]), Generation(1)).unwrap();
        let due: std::vec::Vec<_> = core::iter::from_fn(|| g.take_due(Millis(1_300), ME, 1)).collect();
        let Some(Control::Hello { nonce_a: second, .. }) = due.first().map(|d| d.message) else { panic!("{due:?}") };
        g.acked_by(Millis(1_400), did(2), Sid(8), (&second, [3; 8]), Generation(1)).unwrap();
        let due: std::vec::Vec<_> = core::iter::from_fn(|| g.take_due(Millis(120_000), ME, 1)).collect();
        assert!(due.iter().all(|d| matches!(d.message, Control::Fin { .. })), "{due:?}");
    }

    #[test]
    fn a_single_hello_is_said_once_and_at_most_one_a_minute() {
        let mut g = Greetings::<8>::new([7; 32]);
        g.content();
        let hellos = |g: &mut Greetings<8>, until: u64| {
            let said = (0..until).step_by(500).filter_map(|now| g.take_due(Millis(now), ME, 1)).count();
            (said, g.next())
        };
        g.want_one(Millis(0));
        assert_eq!(hellos(&mut g, 100_000), (1, None));
        for now in 100_000..100_100 {
            g.want_one(Millis(now));
        }
        assert!(g.next().is_some_and(|at| at.0 >= 60_000));
        let due = g.take_due(Millis(102_000), ME, 1);
        assert!(due.is_some_and(|d| matches!(d.message, Control::Hello { .. })));
        g.want_one(Millis(102_001));
        assert!(g.next().is_some_and(|at| at.0 >= 162_000), "{:?}", g.next());
        // Somebody who is not synced speaks: now it is said until he answers.
        g.want(Millis(102_002));
        assert!(hellos(&mut g, 400_000).0 > 1);
    }

    #[test]
    fn no_nonce_is_drawn_twice() {
        let mut g = Greetings::<8>::new([7; 32]);
        let mut seen = std::collections::HashSet::new();
        assert!((0..1000).all(|_| seen.insert(g.nonce())));
    }

    proptest! {
        #[test]
        fn a_control_message_emits_what_was_parsed(
            head in prop_oneof![Just([0x13u8, 1]), Just([0x13, 2]), Just([0x13, 3]), Just([0x13, 4]), any::<[u8; 2]>()],
            n in prop_oneof![Just(1usize), Just(8), Just(11), Just(19), 0usize..40],
            fill in any::<[u8; 40]>(),
        ) {
            let bytes = [&head[..], &fill[..n]].concat();
            if let Ok(control) = Control::parse(&bytes) {
                let mut out = [0; LONGEST];
                prop_assert_eq!(control.emit(&mut out), &bytes[..]);
            }
        }
    }
}
