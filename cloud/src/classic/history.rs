//! What is remembered of one classic device's frames, and what it says of the next one (docs/protocol.md, "Classic:
//! judged by the cloud").
//!
//! Nothing in a classic frame is new by proof: its sequence has 8 bits and starts at 0 at every boot (W5), and its blocks
//! open one by one (W16). So a frame is judged against what came before it: could this node have sent it, by the time that
//! went by?

use std::collections::VecDeque;

use fivefold_core::error::Code;
use fivefold_core::id::GatewayId;
use fivefold_core::time::Millis;

/// Frames that are remembered of one device: twice around the sequence.
pub const FRAMES: usize = 512;
/// Bytes of one of them in the store, at most.
pub const GLIMPSE: usize = 8 + 8 + 4 + 8 + 3 + 1 + IDS + 1 + BLOCKS * 4;
/// Fields of a frame that are remembered; a node builds at most 30 (W4).
const IDS: usize = 32;
/// Blocks of a frame that are remembered: 240 bytes of an inner frame (W7).
const BLOCKS: usize = 15;
/// The same frame by another gateway, or by the same one before anything else came, is one delivery for so long.
const DELIVERY: u64 = 60_000;
/// What a node takes to boot, at least, in milliseconds.
const BOOT: u64 = 2_000;
/// Steps from one frame to the next that say how fast a node speaks, and how many of them are needed to believe it.
const STEPS: usize = 32;
const STEPS_ENOUGH: usize = 8;
/// No node makes a frame and sends it in less, in milliseconds.
const FASTEST: u64 = 50;
/// As fast as a node is thought to be until it was heard often enough, in milliseconds.
const UNHEARD: u64 = 1_000;
/// So many frames may be lost in a row without anybody asking why.
const LOST: u16 = 16;
/// A row of repeats is told so often, at most: a node whose readings never change repeats itself after a boot for ever.
const ROW: u8 = 32;
/// A frame is impossible when a node would have to be so many times as fast as it ever was.
const HASTE: u64 = 8;

/// What is remembered of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// First bytes of SHA-256 of the frame as it came.
    pub hash: [u8; 8],
    /// When a gateway received it, by its clock.
    pub received: Millis,
    /// Which gateway.
    pub gateway: GatewayId,
    /// The gateway's own number of it.
    pub envelope: u64,
    /// Its sequence (W5).
    pub sequence: u8,
    /// Blocks that hold the sequence: the first of `blocks`.
    pub heads: u8,
    /// How many repeats in a row it ends, all of them taken. A boot that nobody believes counts as one.
    pub again: u8,
    /// One byte for each of its fields: the id, or what stands for a tag.
    pub fields: Vec<u8>,
    /// Of an encrypted frame that opened: the first four bytes of each block of ciphertext, from the one with the sequence
    /// on. Blocks before it are the same in every frame of a node.
    pub blocks: Vec<[u8; 4]>,
}

/// What the past says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing against it.
    Plausible,
    /// The same delivery: no reading of its own.
    Delivered {
        /// By a second gateway, or again by the module itself; else the gateway sent its batch again.
        again: bool,
    },
    /// A reading, to be looked at.
    Doubtful(Code),
    /// No reading: this node cannot have sent it now.
    Refused(Code),
}

/// How a frame follows the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// The next number, or a node that boots for every frame.
    Next,
    /// A few frames were lost.
    Near,
    /// By the time that went by it can be: the node booted or went on, and what it sent was lost.
    Explained,
    /// Not even so.
    Hasty,
}

/// The frames of one device, in the order in which they were taken.
#[derive(Debug, Default)]
pub struct History {
    // With the number under which each is stored.
    frames: VecDeque<(u64, Glimpse)>,
    next: u64,
}

impl History {
    /// From the store: numbers and frames, ascending.
    pub fn resume(frames: impl IntoIterator<Item = (u64, Glimpse)>) -> Self {
        let frames: VecDeque<_> = frames.into_iter().collect();
        let next = frames.back().map_or(0, |(n, _)| n + 1);
        Self { frames, next }
    }

    /// Judges a frame by what is remembered, and notes in it whether it is a repeat. Nothing is remembered of it yet.
    pub fn judge(&self, frame: &mut Glimpse) -> Ruling {
        if let Some(again) = self.delivered(frame) {
            return Ruling::Delivered { again };
        }
        // The oldest so far has nothing that it could follow.
        let Some((before, elapsed, passage)) = self.follows(frame) else { return Ruling::Plausible };
        if self.frames.iter().any(|(_, f)| f.hash == frame.hash) {
            let ruling = self.again(before, passage, elapsed, frame.sequence);
            if ruling == Ruling::Doubtful(Code::ClassicReplayed) {
                frame.again = before.again + 1;
            }
            return ruling;
        }
        if self.is_fragment(frame) {
            return Ruling::Plausible;
        }
        match (self.spliced(frame), passage) {
            // No boot is so fast: what follows it is a row of repeats, if it was heard before.
            (Splice::None, Passage::Hasty) if frame.sequence == 0 => {
                frame.again = 1;
                Ruling::Doubtful(Code::ClassicSequence)
            }
            (Splice::None, Passage::Hasty) => {
                if elapsed.saturating_mul(HASTE) < self.takes(before, frame.sequence) {
                    Ruling::Doubtful(Code::ClassicSequence)
                } else {
                    Ruling::Plausible
                }
            }
            // Or its gateway's clock is behind another's: a node that boots is not silenced for it.
            (Splice::Head | Splice::Whole, Passage::Hasty) if frame.sequence == 0 => {
                frame.again = 1;
                Ruling::Doubtful(Code::ClassicSpliced)
            }
            (Splice::Head | Splice::Whole, Passage::Hasty) => Ruling::Refused(Code::ClassicSpliced),
            (Splice::Whole, Passage::Explained) => Ruling::Doubtful(Code::ClassicSpliced),
            _ => Ruling::Plausible,
        }
    }

    /// Remembers a frame that was taken: the number under which it is to be stored.
    pub fn remember(&mut self, frame: Glimpse) -> u64 {
        let number = self.next;
        self.next += 1;
        self.frames.push_back((number, frame));
        while self.frames.len() > FRAMES {
            self.frames.pop_front();
        }
        number
    }

    /// Forgets a frame that did not become durable.
    pub fn forget(&mut self, number: u64) {
        self.frames.retain(|(n, _)| *n != number);
    }

    /// The newest frame that a gateway received until then, by the gateways' clocks: what a second one brings an hour later was
    /// heard when it says.
    fn newest(&self, until: Millis) -> Option<&Glimpse> {
        self.frames.iter().map(|(_, f)| f).filter(|f| f.received <= until).max_by_key(|f| f.received)
    }

    /// What a frame follows, after how long, and how. In front of a row of repeats the node was itself: who replays a boot must not
    /// make its own next frames look as if they came too soon.
    fn follows(&self, frame: &Glimpse) -> Option<(&Glimpse, u64, Passage)> {
        let after = |before: &Glimpse| {
            let elapsed = frame.received.since(before.received);
            (elapsed, self.passage(before, frame.sequence, elapsed))
        };
        let before = self.newest(frame.received)?;
        let (elapsed, passage) = after(before);
        if passage == Passage::Hasty && before.again > 0 {
            let itself = self.frames.iter().map(|(_, f)| f).filter(|f| f.again == 0 && f.received <= frame.received);
            if let Some(itself) = itself.max_by_key(|f| f.received) {
                let (elapsed, passage) = after(itself);
                if passage != Passage::Hasty {
                    return Some((itself, elapsed, passage));
                }
            }
        }
        Some((before, elapsed, passage))
    }

    /// A second gateway, or the module itself: it sends again before it makes another frame.
    fn delivered(&self, frame: &Glimpse) -> Option<bool> {
        let newest = self.newest(Millis(u64::MAX));
        let same = self.frames.iter().rev().map(|(_, f)| f).filter(|f| f.hash == frame.hash);
        same.filter_map(|f| {
            let batch = (f.gateway, f.envelope) == (frame.gateway, frame.envelope) && f.received == frame.received;
            let apart = frame.received.since(f.received).max(f.received.since(frame.received));
            let at_once = f.gateway != frame.gateway || Some(f) == newest;
            (batch || (apart <= DELIVERY && at_once)).then_some(!batch)
        })
        .min()
    }

    /// Blocks after the sequence that an earlier frame has too: whoever listens sees that much without a key (W16).
    pub fn equal(&self, frame: &Glimpse) -> u8 {
        let tail = frame.blocks.get(usize::from(frame.heads)..).unwrap_or_default();
        tail.iter().filter(|block| self.frames.iter().any(|(_, f)| f.blocks.contains(block))).count() as u8
    }

    fn again(&self, before: &Glimpse, passage: Passage, elapsed: u64, sequence: u8) -> Ruling {
        let hurried = elapsed.saturating_mul(2) < self.pace();
        let step = sequence.wrapping_sub(before.sequence);
        let goes_on = !(1..ROW).contains(&before.again);
        match passage {
            // A row of repeats goes on as fast as its node does.
            Passage::Next if step == 1 && hurried && before.again > 0 => Ruling::Refused(Code::ClassicReplayed),
            // Equal readings, once around or of a node that boots for every frame. A row of repeats stays one.
            Passage::Next if step == 1 && goes_on => Ruling::Plausible,
            Passage::Next if step == 0 && !hurried => Ruling::Plausible,
            Passage::Near if goes_on => Ruling::Plausible,
            Passage::Hasty => Ruling::Refused(Code::ClassicReplayed),
            // A boot takes its time.
            Passage::Next if step != 1 && elapsed < BOOT => Ruling::Refused(Code::ClassicReplayed),
            _ => Ruling::Doubtful(Code::ClassicReplayed),
        }
    }

    fn passage(&self, before: &Glimpse, sequence: u8, elapsed: u64) -> Passage {
        let step = sequence.wrapping_sub(before.sequence);
        let needed = self.takes(before, sequence);
        if is_next(step, sequence, elapsed) {
            Passage::Next
        } else if elapsed < needed {
            Passage::Hasty
        } else if step != 0 && u16::from(step) <= LOST {
            Passage::Near
        } else {
            Passage::Explained
        }
    }

    /// Milliseconds that the node needs at least to come from `before` to this sequence: on and on, or by a boot.
    fn takes(&self, before: &Glimpse, sequence: u8) -> u64 {
        let step = match sequence.wrapping_sub(before.sequence) {
            0 => 256,
            step => u64::from(step),
        };
        let pace = self.pace();
        (step * pace).min(BOOT + u64::from(sequence) * pace)
    }

    /// The shortest time from one frame to the next, of the last ones.
    fn pace(&self) -> u64 {
        let frames = self.frames.iter().rev().map(|(_, f)| f);
        let earlier = frames.clone().skip(1);
        let steps = frames.zip(earlier).filter(|(f, e)| {
            let step = f.sequence.wrapping_sub(e.sequence);
            f.again == 0 && is_next(step, f.sequence, f.received.since(e.received)) && f.received > e.received
        });
        let (mut count, mut fastest) = (0, u64::MAX);
        for (f, e) in steps.take(STEPS) {
            count += 1;
            fastest = fastest.min(f.received.since(e.received));
        }
        let least = if count < STEPS_ENOUGH { UNHEARD } else { FASTEST };
        if count == 0 { least } else { fastest.max(least) }
    }

    /// Fragments share the sequence, and divide the fields (W6).
    fn is_fragment(&self, frame: &Glimpse) -> bool {
        let mut others = self
            .frames
            .iter()
            .rev()
            .map(|(_, f)| f)
            .filter(|f| {
                let apart = frame.received.since(f.received).max(f.received.since(frame.received));
                f.sequence == frame.sequence && apart <= DELIVERY
            })
            .peekable();
        others.peek().is_some() && others.all(|f| !f.fields.iter().any(|id| frame.fields.contains(id)))
    }

    fn spliced(&self, frame: &Glimpse) -> Splice {
        let heads = usize::from(frame.heads);
        let (Some(head), Some(tail)) = (frame.blocks.get(..heads), frame.blocks.get(heads..)) else {
            return Splice::None;
        };
        if head.is_empty() || tail.is_empty() {
            return Splice::None;
        }
        if !self.frames.iter().any(|(_, f)| f.blocks.get(..heads) == Some(head)) {
            return Splice::None;
        }
        let seen = |block: &[u8; 4]| self.frames.iter().any(|(_, f)| f.blocks.contains(block));
        if tail.iter().all(seen) { Splice::Whole } else { Splice::Head }
    }
}

/// Whether a number follows the one before it: the next, or the first after a boot, which takes its time; a node that boots for
/// every frame is as fast as it is.
const fn is_next(step: u8, sequence: u8, elapsed: u64) -> bool {
    step == 1 || sequence == 0 && (step == 0 || elapsed >= BOOT)
}

/// What of a frame was seen in earlier ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Splice {
    /// The block with the sequence is new, or there are no blocks.
    None,
    /// The block with the sequence.
    Head,
    /// All of it, and never together.
    Whole,
}

impl Glimpse {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(GLIMPSE);
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.received.0.to_be_bytes());
        out.extend_from_slice(&self.gateway.0.to_be_bytes());
        out.extend_from_slice(&self.envelope.to_be_bytes());
        out.extend_from_slice(&[self.sequence, self.heads, self.again]);
        let fields = self.fields.get(..IDS).unwrap_or(&self.fields);
        out.push(fields.len() as u8);
        out.extend_from_slice(fields);
        let blocks = self.blocks.get(..BLOCKS).unwrap_or(&self.blocks);
        out.push(blocks.len() as u8);
        blocks.iter().for_each(|b| out.extend_from_slice(b));
        out
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk::<8>()?;
        let (received, rest) = rest.split_first_chunk::<8>()?;
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let (envelope, rest) = rest.split_first_chunk::<8>()?;
        let (&[sequence, heads, again, fields], rest) = rest.split_first_chunk::<4>()?;
        let (fields, rest) = rest.split_at_checked(usize::from(fields))?;
        let (count, rest) = rest.split_first()?;
        let (blocks, over) = rest.as_chunks::<4>();
        if blocks.len() != usize::from(*count) || !over.is_empty() {
            return None;
        }
        Some(Self {
            hash: *hash,
            received: Millis(u64::from_be_bytes(*received)),
            gateway: GatewayId(u32::from_be_bytes(*gateway)),
            envelope: u64::from_be_bytes(*envelope),
            sequence,
            heads,
            again,
            fields: fields.to_vec(),
            blocks: blocks.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u8, at: u64) -> Glimpse {
        Glimpse {
            hash: [sequence; 8],
            received: Millis(at),
            gateway: GatewayId(1),
            envelope: at,
            sequence,
            heads: 0,
            again: 0,
            fields: vec![74],
            blocks: Vec::new(),
        }
    }

    /// The first frame after a boot was refused or lost, and a recorder has it: with it in front, all that he heard after it
    /// would come in its turn.
    #[test]
    fn a_recorder_who_has_a_first_frame_that_nobody_took_starts_no_boot() {
        for known in [5, 40] {
            let mut history = History::default();
            for sequence in 1..=known {
                assert_eq!(history.judge(&mut frame(sequence, u64::from(sequence) * 2_000)), Ruling::Plausible);
                history.remember(frame(sequence, u64::from(sequence) * 2_000));
            }
            let now = u64::from(known) * 2_000 + 116;
            let mut boot = frame(0, now);
            assert_eq!(history.judge(&mut boot), Ruling::Doubtful(Code::ClassicSequence));
            history.remember(boot);
            for after in [1, 60, 400, 900] {
                for sequence in 1..=known {
                    let ruling = history.judge(&mut frame(sequence, now + after));
                    assert_eq!(ruling, Ruling::Refused(Code::ClassicReplayed), "{sequence} of {known}, {after}");
                }
            }
            // The node goes on.
            let next = known + 1;
            assert_eq!(history.judge(&mut frame(next, u64::from(next) * 2_000)), Ruling::Plausible);
        }
    }

    /// Encrypted, with readings that come again: blocks and frames that were seen before, in their turn.
    #[test]
    fn who_replays_a_boot_does_not_silence_the_node() {
        let sealed = |sequence: u8, at: u64, tail: u8| Glimpse {
            heads: 1,
            hash: [sequence, tail, 0, 0, 0, 0, 0, 0],
            blocks: vec![[sequence; 4], [tail, 1, 1, 1]],
            ..frame(sequence, at)
        };
        let mut history = History::default();
        // Once around, and a hundred more; every other reading as the time before.
        let mut at = 0;
        for n in 0..356_u32 {
            at = u64::from(n) * 10_000;
            let mut next = sealed(n as u8, at, if n % 2 == 0 { 1 } else { (n / 256) as u8 + 2 });
            assert!(!matches!(history.judge(&mut next), Ruling::Refused(_)), "{n}");
            history.remember(next);
        }
        let mut boot = sealed(0, at + 3_000, 1);
        assert_eq!(history.judge(&mut boot), Ruling::Doubtful(Code::ClassicReplayed));
        history.remember(boot);
        for n in 356..456_u32 {
            let mut next = sealed(n as u8, u64::from(n) * 10_000, if n % 2 == 0 { 1 } else { 3 });
            assert_eq!(history.judge(&mut next), Ruling::Plausible, "{n}");
            history.remember(next);
        }
    }

    #[test]
    fn a_boot_that_takes_its_time_and_a_node_that_boots_for_every_frame_are_believed() {
        let mut history = History::default();
        for (sequence, at) in [(7, 0), (8, 1_500), (0, 3_600), (1, 5_100), (0, 7_200)] {
            let mut next = Glimpse { hash: [at as u8; 8], ..frame(sequence, at) };
            assert_eq!(history.judge(&mut next), Ruling::Plausible, "{sequence} at {at}");
            history.remember(next);
        }
        let mut sleeper = History::default();
        for at in (0..20_000).step_by(1_000) {
            let mut next = Glimpse { hash: [(at / 1_000) as u8; 8], ..frame(0, at) };
            assert_eq!(sleeper.judge(&mut next), Ruling::Plausible, "at {at}");
            sleeper.remember(next);
        }
    }

    #[test]
    fn a_glimpse_is_read_as_it_was_stored_and_not_when_cut_or_longer() {
        let longest = Glimpse {
            hash: [1; 8],
            received: Millis(u64::MAX),
            gateway: GatewayId(u32::MAX),
            envelope: 7,
            sequence: 255,
            heads: 2,
            again: 32,
            fields: vec![9; IDS],
            blocks: vec![[8; 4]; BLOCKS],
        };
        let shortest = Glimpse { fields: Vec::new(), blocks: Vec::new(), ..longest.clone() };
        assert_eq!(longest.to_bytes().len(), GLIMPSE);
        for glimpse in [longest, shortest] {
            let bytes = glimpse.to_bytes();
            assert_eq!(Glimpse::from_bytes(&bytes), Some(glimpse));
            for cut in 0..bytes.len() {
                assert_eq!(Glimpse::from_bytes(&bytes[..cut]), None, "cut at {cut}");
            }
            assert_eq!(Glimpse::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
    }
}
