//! One entry for each code, by a `match` without a rest: a new code does not compile without one.

use crate::error::Code;

/// What a code is about, in words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Which check refuses.
    pub check: &'static str,
    /// What passes it.
    pub expected: &'static str,
    /// What does not.
    pub came: &'static str,
    /// What an operator does now.
    pub advice: &'static str,
}

const fn about(check: &'static str, expected: &'static str, came: &'static str, advice: &'static str) -> About {
    About { check, expected, came, advice }
}

impl Code {
    /// Which check refuses under this code, what passes it, what does not, and what an operator does now.
    pub const fn about(self) -> About {
        match self {
            Self::LinkUnsecured => about(
                "E1: the frame is secured",
                "the security bit set",
                "a frame without it",
                "If the sender is yours, its image has E1 switched off: compare its settings with `fivefold audit`. If not, nothing: it was dropped.",
            ),
            Self::LinkNotOurs => about(
                "E1: the frame is for this network and this station",
                "our PAN, and an address that we hear",
                "another one",
                "Nothing: another network is in reach. If your own nodes are counted, their PAN or gateway address is wrong: `fivefold network list`.",
            ),
            Self::LinkLevelTooLow => about(
                "E1: the security level is not below the network's",
                "the level of the network's policy, or a higher one",
                "a lower one",
                "Find the node by its short id (`fivefold device list`) and give it the settings of the network; if it is none of yours, somebody tries.",
            ),
            Self::LinkKeyUnknown => about(
                "E1: the network key that the frame names is held here",
                "a key index in use",
                "another index",
                "Mostly a node that missed a key rotation: `fivefold key show` says which are late. It comes back by itself while the key before is in recovery; after that, enrol it again.",
            ),
            Self::LinkForged => about(
                "E1: the MIC of the frame",
                "a MIC that holds under the network key that the frame names",
                "a MIC that does not",
                "A few are noise on the air. Many of one short id: that node has another key under this index: enrol it again (`fivefold device enrol-again`). Many of all: somebody without the key sends.",
            ),
            Self::LinkReplayed => about(
                "E1: the frame counter is greater than the sender's last one",
                "a frame counter not used before",
                "an old one",
                "A recording, or a node that lost its counter. If it is a node of yours, it says HELLO by itself and is heard again in a minute; if not, nothing: it was dropped.",
            ),
            Self::LinkCounterJump => about(
                "E1: the frame counter is not too far ahead",
                "a frame counter at most 65536 above the last",
                "a greater one",
                "The node was unheard for very many frames, or its counter is damaged. It says HELLO by itself; if it stays, look at its storage and enrol it again.",
            ),
            Self::LinkNeighbourUnknown => about(
                "E1: the sender is a known neighbour whose counter is synced",
                "a device of the network that has said HELLO",
                "one that is not known, not synced, or under another EUI-64",
                "After a restart this ends by itself with the next HELLO. If it goes on: is the device in the book and not revoked (`fivefold device list`), and is its short id used once?",
            ),
            Self::LinkCounterHigh => about(
                "E1: our own frame counter has room",
                "a frame counter below F0000000",
                "one above it",
                "Rotate the network key now: `fivefold key rotate`. Before the counter ends nothing is lost; after that this station is silent.",
            ),
            Self::LinkHopLimit => about(
                "E1: the datagram has hops left and was not heard before",
                "a datagram that is new here, with a hop left",
                "one that came back, came twice, or has no hop left",
                "Normal where relays hear each other. If readings are missing, the way is longer than the hop limit: move a relay, or add a gateway.",
            ),
            Self::LinkMalformed => about(
                "E1: the form of the frame",
                "a data frame of docs/protocol.md 4.1, with its check sequence",
                "bytes of another form",
                "A few are noise on the air. Many: another kind of device is on this channel, or somebody tries parsers; choose another channel if readings suffer.",
            ),
            Self::TinyMalformed => about(
                "the form of the message",
                "a known RuleID, and the length that it needs",
                "another form",
                "If its sender is yours, its image speaks another version: compare versions and put the right one on it. Nothing of it was taken.",
            ),
            Self::PivNotMinimal => about(
                "the form of the sender number",
                "a number without leading zeros",
                "one with them",
                "No node of ours writes that: the sender has another implementation, or somebody tries parsers. Nothing of it was taken.",
            ),
            Self::FragmentLost => about(
                "all fragments of a message, within a minute and without overlap",
                "the rest of its fragments",
                "a gap, an overlap, or too many at a time",
                "The node sends again by itself. If it does not end, the radio loses too much: look at RSSI and hops of its readings.",
            ),
            Self::GatewayUnknownKid => about(
                "E2: the sender has a context at this gateway",
                "the short id of a device that has E2 here",
                "another one",
                "Is the device in the book, of this network, with E2 (`fivefold device show`)? If it was just enrolled, wait until the gateway has the new state. If it is nobody of yours, nothing.",
            ),
            Self::CloudUnknownKid => about(
                "E3: the sender is known",
                "the short id of a device that has E3, and is not revoked",
                "another one",
                "Is the device in the book and not revoked (`fivefold device list`)? If it is nobody of yours, nothing: it was dropped.",
            ),
            Self::GatewayNoContext => about(
                "E2: a context for the message's epoch or boot is here",
                "an epoch or boot that this gateway was given",
                "another one",
                "It is kept for 24 h and taken when the context comes. If none comes: does the gateway reach the cloud, and did the device renew? Else enrol it again.",
            ),
            Self::CloudNoContext => about(
                "E3: a context for the message's epoch or boot is here",
                "an epoch or boot that the cloud knows",
                "another one",
                "It is kept for 24 h and taken when the context comes. If none comes, the device has other keys than the book: `fivefold device enrol-again`.",
            ),
            Self::GatewayForged => about(
                "E2: the tag of the message",
                "a tag that holds under a key of this device",
                "a tag that holds under none",
                "Somebody inside the network speaks as this device, or it has other keys than the book. If its own readings still come, look for the insider; if none come, enrol it again.",
            ),
            Self::CloudForged => about(
                "E3: the tag of the message",
                "a tag that holds under a key of this device",
                "a tag that holds under none",
                "A gateway or an insider changed or made up a message, or the device has other keys than the book. If its own readings still come, find which gateway brought this one; if none come, enrol it again.",
            ),
            Self::GatewayReplayed => about(
                "E2: the sender number is in the window and was not used",
                "a number inside the window, or above it",
                "a number or boot too old",
                "A recording, or a message that was very late. Nothing to do for a few; many: somebody records on the air, and nothing of it is taken.",
            ),
            Self::CloudReplayed => about(
                "E3: the sender number was not used",
                "a number not used before",
                "a number too old to tell",
                "A recording, or a message that was very late. Nothing to do for a few; many: somebody records, and nothing of it is taken.",
            ),
            Self::GatewayDuplicate => about(
                "E2: the message is new",
                "a message not taken before",
                "the same one again",
                "Nothing: it is counted once and answered again. Many of one device: it does not hear its answers; look at its radio.",
            ),
            Self::CloudDuplicate => about(
                "E3: the message is new",
                "a message not taken before",
                "the same one again",
                "Nothing: it is stored once and answered again. Many of one device: it does not hear its answers; look at its radio.",
            ),
            Self::GatewayNonceReuse => about(
                "E2: one message under one number",
                "under this number the message that was taken before",
                "another message under it",
                "Two devices have the same keys, or this one went back to an old state: take it out of service, and enrol it again with `fivefold device enrol-again`. Find the copy.",
            ),
            Self::CloudNonceReuse => about(
                "E3: one message under one number",
                "under this number the message that was taken before",
                "another message under it",
                "Two devices have the same keys, or this one went back to an old state: both messages are in quarantine. Take it out of service, and enrol it again with `fivefold device enrol-again`. Find the copy.",
            ),
            Self::GatewayInnerMalformed => about(
                "E2: what is inside is a message that we speak",
                "POST with items of docs/protocol.md 7, and no more than the device's record has",
                "something else under a tag that holds",
                "The device itself sent it: its image has a fault, or speaks another version. Compare versions and put the right one on it.",
            ),
            Self::CloudInnerMalformed => about(
                "E3: what is inside is a message that we speak",
                "POST with items of docs/protocol.md 7",
                "something else under a tag that holds",
                "The device itself sent it: its image has a fault, or speaks another version. Compare versions and put the right one on it.",
            ),
            Self::GatewayLevelMissing => about(
                "E2 is there where the device's record declares it",
                "a message with the levels of the record",
                "one without E2",
                "Act now: somebody leaves a level out, or a node runs with another policy than its record. `fivefold device show` says the record, `fivefold audit` what the node reports.",
            ),
            Self::CloudLevelMissing => about(
                "E3, and E1 below it, are there where the device's record declares them",
                "a message with the levels of the record",
                "one without them",
                "Act now: somebody leaves a level out, or a node runs with another policy than its record. `fivefold device show` says the record, `fivefold audit` what the node reports.",
            ),
            Self::GatewayLimitReached => about(
                "E2: the key has numbers left, and its sender keeps the rate",
                "a number up to 2^20, and a bounded rate",
                "more",
                "The device is told to renew and mostly does. If it goes on: `fivefold device renew`, or enrol it again. A rate that high is a fault of the device, or a flood under its name.",
            ),
            Self::CloudLimitReached => about(
                "E3: the key has numbers left, and its sender keeps the rate",
                "a number up to 2^20, and a bounded rate",
                "more",
                "The device is told to renew and mostly does. If it goes on: `fivefold device renew`, or enrol it again. A rate that high is a fault of the device, or a flood under its name.",
            ),
            Self::CloudStale => about(
                "E3: the context is in use, or drained less than 96 hours ago",
                "a message under a context not over",
                "one under a context that ended",
                "It is in quarantine. A gateway held it for days, or a recording: does that gateway deliver now (`fivefold gateway show`)?",
            ),
            Self::CloudPivGap => about(
                "E3: nearly all numbers of a day came",
                "at most every tenth number missing",
                "more missing",
                "Messages are lost on the way, or held back: compare the device's gateways, look at radio and hops, and at spools that are full.",
            ),
            Self::CloudSilence => about(
                "the device is heard as often as it was",
                "a message within three of its periods",
                "none",
                "Battery, radio, or theft: go and look. If others near it are silent too, it is their gateway.",
            ),
            Self::CloudBootRepeats => about(
                "E3: boots of a device in mode R are new, and few",
                "a boot id not used before, at most 20 a day",
                "one used before, or more of them",
                "The device restarts again and again (battery, watchdog), or two have the same keys, or its randomness is broken: take it out of service and look.",
            ),
            Self::CloudHeld => about(
                "E3: the cloud knows all that ever came under these keys",
                "a message under keys that were agreed, or installed, after the store was put back",
                "one under keys of before",
                "It is kept and is no reading: nobody can tell it from a recording of what came after the copy was made. The device is told to renew, and nothing of it is held after that. What an honest gateway kept meanwhile: `fivefold reading held`, then `fivefold reading release`.",
            ),
            Self::ChannelRefused => about(
                "E4: the client shows a gateway's certificate that is in the book",
                "a certificate of our CA for a gateway that is not revoked or expired",
                "another one, or none",
                "Does the gateway's certificate end, or was it revoked (`fivefold gateway show`)? If so invite it anew: `fivefold gateway invite`. If the address is none of yours, nothing.",
            ),
            Self::ChannelWrongNet => about(
                "E4: the message is of the network of the gateway's certificate",
                "the gateway's own network",
                "another one",
                "Act now: this gateway says things of devices that are not its own. Look at its machine, and revoke it if you cannot explain it: `fivefold gateway revoke`.",
            ),
            Self::ChannelSequence => about(
                "E4: what comes over the channel goes on where the last ended",
                "the next number or version, or the same content again",
                "a gap, an older one, or other content under the same number",
                "The gateway's or the cloud's store was put back from a copy, or somebody changed it. If nobody did that, treat the gateway as taken over.",
            ),
            Self::StoreFull => about(
                "E4: the store has room",
                "less than the store may hold",
                "no room, or little",
                "What is stored stays, what is new is refused. Does the gateway reach the cloud? Make room on its disk, or raise spool_bytes in gateway.toml.",
            ),
            Self::CloudUnreachable => about(
                "E4: the cloud answers",
                "an answer within 15 minutes, and within 6 hours",
                "none",
                "Look at the gateway's network, its clock and its log. Readings are kept meanwhile, until the spool is full.",
            ),
            Self::GatewayClockOff => about(
                "the gateway's clock shows the time",
                "a clock at most 60 s ahead of the cloud's",
                "a clock that is off",
                "Set the gateway's clock, and let it follow a time server: times of readings are wrong until then.",
            ),
            Self::ChannelNotHybrid => about(
                "E4: the key exchange is hybrid, where the policy asks for it",
                "X25519MLKEM768",
                "a group without a post-quantum part",
                "Upgrade the side that offers no hybrid group. Where that cannot be, say so in the configuration; `fivefold audit` keeps reminding.",
            ),
            Self::RenewalRate => about(
                "E5: runs of EDHOC begin at a bounded rate",
                "as many as a device or gateway may begin",
                "more",
                "One device: it does not hear message_2; look at its radio. Many of one gateway: a flood; nothing of it reaches a key.",
            ),
            Self::RenewalForged => about(
                "E5: the run of EDHOC proves who the device is",
                "a message that verifies",
                "one that does not",
                "One: a message changed on the way, and the device tries again. Again and again: its key is not the one in the book: `fivefold device enrol-again`. Else somebody tries.",
            ),
            Self::RenewalUnknownCredential => about(
                "E5: the credential is in the book",
                "the credential of a device that may renew",
                "an unknown or revoked one",
                "Is the device in the book and not revoked (`fivefold device show`)? A revoked one that still tries was stolen, or is still running: switch it off.",
            ),
            Self::RenewalSuite => about(
                "E5: method and suite of EDHOC",
                "method 3, suite 2",
                "others",
                "The device speaks another version, or somebody tries to make it use something weaker: put the right image on it.",
            ),
            Self::RenewalFailed => about(
                "E5: a renewal comes to an end",
                "a run that ends within three attempts",
                "three that came to nothing",
                "Look for E5-02 to E5-04 of the same device, and at its radio. It goes on under its old keys until they are used up.",
            ),
            Self::RenewalEpochNotGreater => about(
                "E5: each run agrees a greater epoch",
                "an epoch above the last",
                "one not above it",
                "The device lost its state, or there are two of it: take it out of service, look for the copy, and enrol it again with `fivefold device enrol-again`.",
            ),
            Self::RenewalOverdue => about(
                "E5: keys are renewed in time",
                "a renewal within one and a half of its interval",
                "none",
                "Order it: `fivefold device renew`. If nothing comes of it, look for E5-01 to E5-05 of the same device.",
            ),
            Self::KeyMessageRefused => about(
                "E5R: the RSA key message of a classic node",
                "a message that opens, of a node that may draw keys, all parts in time",
                "another one",
                "Does the book know this node as hardened with key messages (`fivefold device show`)? A part lost on the air is sent again by itself.",
            ),
            Self::RenewalLate => about(
                "E5: the message belongs to a run that is open",
                "a message of a run that waits for it",
                "one of a run that is over",
                "Nothing: it was late, and the device has its keys or begins again.",
            ),
            Self::EvidenceSignature => about(
                "the signature over a batch or a receipt",
                "a signature that holds, by a key of the book, over what stands before it",
                "one that does not hold, or by another key",
                "Act now. Of a device: its signing key is not the certified one: `fivefold device show`, `fivefold device certify`. Of a gateway: its receipt key is none of the book's; treat it as taken over until explained.",
            ),
            Self::EvidenceOverdue => about(
                "a device that signs sends its signatures",
                "a signed batch within twice its limit",
                "none",
                "Readings without it stay unsigned. Is the device heard, and does it sign (`fivefold device show`)? Parts lost on the way come again by themselves.",
            ),
            Self::EvidenceIncomplete => about(
                "a signed batch has all its readings and parts",
                "every reading that the signature covers",
                "some that never came",
                "Those readings stay unsigned. Look for what was lost: E3-11 of the same device, and full spools.",
            ),
            Self::EvidenceChain => about(
                "a signed batch goes on from the one before",
                "the hash of the batch before",
                "another one",
                "The device lost its storage, or there are two of it, or a batch was left out: compare with its E3-06 and E5-06.",
            ),
            Self::EvidenceLog => about(
                "the log goes on, and witnesses say so",
                "one history, cosigned within 24 hours",
                "another one, or no witness",
                "`fivefold log check` says which. Missing witnesses: look whether they run. Another history: keep all files, and stop calling anything proven until it is explained.",
            ),
            Self::ClassicMalformed => about(
                "classic: the form of the frame",
                "a frame of a Waspmote or Plug & Sense! node",
                "bytes of another form",
                "A few are noise. Many of one address: another kind of program sends there. `fivefold frame decode` says of a frame where it breaks.",
            ),
            Self::ClassicRelabelled => about(
                "classic: a device with a key encrypts",
                "a frame encrypted, as the book says of this device",
                "a plain one, or one of another kind",
                "Somebody who has not the key speaks as this node, or it was set up anew without its key: look at the node, and set it again.",
            ),
            Self::ClassicForeignInner => about(
                "classic: inside and outside name one device",
                "the same serial inside and outside",
                "another one",
                "Act now: somebody with a key of yours puts frames under another node's name. The network's AES key is not secret any more: harden the nodes (`fivefold device harden`), or change it.",
            ),
            Self::ClassicForged => about(
                "classic: the frame opens under the device's key",
                "a frame inside",
                "nothing that is one, or no key",
                "Is the key in the book the one of the node (`fivefold device set-keys`)? If its other frames open, somebody sends rubbish under its name.",
            ),
            Self::ClassicReplayed => about(
                "classic: the frame is new",
                "a frame that did not come before",
                "the same frame again",
                "A recording, or a node whose sequence stands still. Classic encryption cannot tell: harden the node (`fivefold device harden`).",
            ),
            Self::ClassicSpliced => about(
                "classic: the blocks of a frame are its own",
                "blocks that did not come before",
                "a frame made of blocks of earlier ones",
                "Act now: somebody uses the weakness of ECB against you. Do not use these readings; harden the node (`fivefold device harden`).",
            ),
            Self::ClassicUnknown => about(
                "classic: the device is in the book",
                "a serial or DevEUI of the book",
                "another one",
                "If it is yours, add it: `fivefold device add --classic`. `fivefold reading unknown` lists who speaks and is not in the book.",
            ),
            Self::ClassicSequence => about(
                "classic: the sequence number is possible",
                "a sequence that goes on",
                "one that cannot follow",
                "A restarted node begins at 0 and is let in; else somebody speaks under its name. The reading is kept and marked.",
            ),
            Self::ClassicOverTheAir => about(
                "classic: no over-the-air command comes to a gateway",
                "readings, time requests and key messages",
                "a command for programming nodes over the air",
                "If you program nodes now, nothing. If you do not, somebody does: look at the nodes' programs, and who is near.",
            ),
            Self::ClassicTooMany => about(
                "classic: the rate of a sender, and the limits of a listener",
                "as many as the limits allow",
                "more",
                "A node that sends too often, or a flood under its name. If it is meant, raise the limit in gateway.toml.",
            ),
            Self::ClassicToken => about(
                "classic by HTTP: the bearer token",
                "one of the gateway's tokens",
                "another one, or none",
                "Give the node a token made by `fivefold gateway token add`, or find who tries.",
            ),
            Self::ClassicTimeAnswered => about(
                "classic: a time request is answered",
                "a request for the time",
                "one, and it was answered",
                "Nothing: it is counted because the answer proves nothing to the node, and tells anybody that a gateway is here.",
            ),
            Self::ClassicWeakKey => about(
                "classic: the key is none that can be guessed",
                "a key drawn at random",
                "a key of zeros, a short one, or a word",
                "Anybody can read and make its frames: give the node another key (`fivefold device set-keys`), or harden it.",
            ),
            Self::HardenedForged => about(
                "classic, hardened: the tag of the frame",
                "a tag that holds under the device's key",
                "a tag that does not",
                "If its other frames hold, somebody forges; if none do, the node has another key: `fivefold device harden` draws the next.",
            ),
            Self::HardenedReplayed => about(
                "classic, hardened: the number was not used",
                "a number above the window, or unused in it",
                "one that was used, or is too old",
                "A recording, or a node that went back to an old state: if it is the node, harden it again.",
            ),
            Self::ClassicUnknownSensor => about(
                "classic: the sensor is in our tables",
                "a sensor that the tables know",
                "another one",
                "The reading is kept raw. If it is your own sensor, name it with `fivefold network set`.",
            ),
            Self::ConfigurationViolated => about(
                "the configuration keeps the rules of docs/protocol.md 15",
                "no finding that is critical",
                "one at least",
                "`fivefold audit` names the rule, what is wrong, and the line that mends it; `fivefold audit explain RULE` says why.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_says_its_check_what_it_expects_what_came_and_what_to_do() {
        for code in Code::ALL {
            let About { check, expected, came, advice } = code.about();
            for text in [check, expected, came, advice] {
                assert!(text.len() > 2 && text.trim() == text, "{code}: {text:?}");
            }
            assert!(advice.ends_with(['.', '?']) && expected != came, "{code}");
            assert!(Code::ALL.iter().filter(|other| other.about().check == check).count() == 1, "{code}: not its own");
        }
    }
}
